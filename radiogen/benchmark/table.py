"""The table of a benchmark: mean and deviation over seeds, differences paired by seed, masks in common."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from radiogen.benchmark.plans import DENSE, Plan
from radiogen.measures.paired import paired_difference, spread
from radiogen.pruning.comparing import overlap
from radiogen.pruning.signatures import WeightMasks

Row = dict[str, Any]
Results = Mapping[Plan, Row]
REFERENCE = "snip"
COLUMNS = (
    *("criterion", "control", "sparsity", "seeds", "accuracy_mean", "accuracy_sd", "against"),
    *("difference", "low", "high", "kept_in_common", "collapsed_runs"),
)


def accuracy_table(results: Results, masks_of: Callable[[Plan], WeightMasks]) -> list[Row]:
    """One row for each criterion, control and sparsity.

    A criterion stands against SNIP, a control against its criterion, both at the same sparsity and seeds; the
    difference in points of accuracy comes with its 95 % interval. Only seeds that both have count.

    Args:
        results: What the runs measured.
        masks_of: Reads the weight masks of a run.

    Returns:
        Rows by COLUMNS; None where there is nothing to tell. `kept_in_common` is the share of the kept
        weights that the one it stands against keeps too, `collapsed_runs` counts runs with a layer that
        nothing passes.
    """
    rows = []
    for key in dict.fromkeys((plan.criterion, plan.control, plan.sparsity) for plan in results):
        own = [plan for plan in results if (plan.criterion, plan.control, plan.sparsity) == key]
        criterion, control, sparsity = key
        values = [results[plan]["accuracy"] for plan in own]
        row: Row = dict.fromkeys(COLUMNS)
        row |= {"criterion": criterion, "control": control, "sparsity": sparsity, "seeds": len(own)}
        row |= {"accuracy_mean": mean(values), "accuracy_sd": spread(values)}
        row["collapsed_runs"] = sum(bool(results[plan]["collapsed"]) for plan in own)
        against = criterion if control else REFERENCE
        if criterion != DENSE and key != (REFERENCE, "", sparsity):
            row |= _compare(results, own, against, masks_of)
        rows.append({name: round(v, 4) + 0.0 if isinstance(v, float) else v for name, v in row.items()})
    return rows


def _compare(
    results: Results, own: Sequence[Plan], against: str, masks_of: Callable[[Plan], WeightMasks]
) -> Row:
    pairs = [(plan, Plan(against, "", plan.sparsity, plan.seed)) for plan in own]
    pairs = [(plan, other) for plan, other in pairs if other in results]
    if not pairs:
        return {}
    found = paired_difference(
        [results[plan]["accuracy"] for plan, _ in pairs], [results[other]["accuracy"] for _, other in pairs]
    )
    shared = [overlap(masks_of(plan), masks_of(other)).shared for plan, other in pairs]
    return {
        "against": against,
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "kept_in_common": mean(shared),
    }
