"""Compare pruning criteria on classifiers, by the protocol of arXiv:2502.11450."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from radiogen.benchmark.classifiers import ClassifierBench, ClassifierSettings, read_images
from radiogen.benchmark.images import DIGITS, ImageSet
from radiogen.benchmark.plans import DENSE, BenchmarkGrid, RunPlan, plan_runs
from radiogen.benchmark.runs import Existing, Failure, open_benchmark, perform_all
from radiogen.drawing.plots import plot_accuracy
from radiogen.measures.intervals import paired_difference, sample_deviation
from radiogen.networks.classifiers import build_classifier
from radiogen.provenance import RunRecord, is_done, remove_if_refused, write_csv, write_failures
from radiogen.pruning.controls import overlap
from radiogen.pruning.settings import WeightMasks
from radiogen.pruning.weight_masks import load_weight_masks
from radiogen.runtime import Progress, no_progress

Row = dict[str, Any]
Results = Mapping[RunPlan, Row]
# The first of the single-shot criteria (Lee et al. 2019), which every later one compares itself with.
REFERENCE = "snip"
COLUMNS = (
    "criterion",
    "control",
    "sparsity",
    "seeds",
    "accuracy_mean",
    "accuracy_sd",
    "against",
    "difference",
    "low",
    "high",
    "kept_in_common",
    "collapsed_runs",
)


def accuracy_table(results: Results, masks_of: Callable[[RunPlan], WeightMasks]) -> list[Row]:
    """Return one row for each criterion, control and sparsity.

    A criterion stands against SNIP, a control against its criterion, both at the same sparsity and seeds; the
    difference in points of accuracy comes with its 95 % interval. Only seeds that both have count.

    Args:
        results: Numbers of the runs.
        masks_of: Reads the weight masks of a run.

    Returns:
        Rows by COLUMNS; None where there is nothing to compare. `kept_in_common` is the share of the kept
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
        row |= {"accuracy_mean": mean(values), "accuracy_sd": sample_deviation(values)}
        # A collapse is a result: without such runs, criteria that cause them would look better than they are.
        row["collapsed_runs"] = sum(bool(results[plan]["collapsed"]) for plan in own)
        against = criterion if control else REFERENCE
        if criterion != DENSE and key != (REFERENCE, "", sparsity):
            row |= _compare(results, own, against, masks_of)
        # `+ 0.0` turns -0.0 into 0.0.
        rows.append({name: v + 0.0 if isinstance(v, float) else v for name, v in row.items()})
    return rows


def _compare(
    results: Results, own: Sequence[RunPlan], against: str, masks_of: Callable[[RunPlan], WeightMasks]
) -> Row:
    # Runs of one seed share weights, warm-up, scored images and mini-batches: compare them seed by seed.
    pairs = [(plan, RunPlan(against, "", plan.sparsity, plan.seed)) for plan in own]
    pairs = [(plan, other) for plan, other in pairs if other in results]
    if not pairs:
        return {}
    found = paired_difference(
        [results[plan]["accuracy"] for plan, _ in pairs], [results[other]["accuracy"] for _, other in pairs]
    )
    # Criteria that keep the same weights cannot differ by more than noise, whatever their accuracies.
    shared = [overlap(masks_of(plan), masks_of(other)).shared for plan, other in pairs]
    return {
        "against": against,
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "kept_in_common": mean(shared),
    }


TABLE, PICTURE, FAILURES = "table.csv", "accuracy.png", "failures.csv"
# 1201 images of 8 x 8: a small network, more steps an epoch, and no flips, for a mirrored digit is another.
FOR_DIGITS = {
    "network": "resnet8",
    "training": {"epochs": 30, "batch_size": 64, "augment": False},
}

# Both learn from 40,000 of the 50,000 images of CIFAR; they choose by the others, nothing is chosen here.
PROTOCOLS: dict[str, dict[str, object]] = {
    "paper": {
        "warmup": "epoch",
        "fisher_scale": "batch",
        "samples": None,
        "held_out": 0.2,
    },  # arXiv:2502.11450
    "successor": {"warmup": "bn", "fisher_scale": 1.0, "samples": 10, "held_out": 0.2},
}


@dataclass(frozen=True)
class PruningBenchmark:
    """A finished benchmark: its table, and the runs that failed."""

    folder: Path
    rows: list[Row]
    failures: list[Failure]


def benchmark_pruning(
    source: Path,
    out: Path,
    settings: ClassifierSettings,
    grid: BenchmarkGrid,
    devices: Sequence[str] = ("cpu",),
    jobs: int = 1,
    limit: int | None = None,
    side: int = 32,
    existing: Existing = "skip",
    progress: Progress = no_progress,
) -> PruningBenchmark:
    """Train a classifier dense, pruned by every criterion, and under the controls, and compare.

    Writes `runs/` (result, weight masks and run record of each run), `table.csv`, `accuracy.png`, and
    `failures.csv` if runs failed. Killed at any moment, the same call goes on with the runs that are missing;
    another grid adds to what is there.

    Args:
        source: Images, as `read_image_set` takes them.
        out: Folder to write.
        settings: Network, training, scoring.
        grid: Criteria, sparsities, seeds, controls.
        devices: Where the networks run; several are shared out among the jobs.
        jobs: Runs at the same time, each in a process of its own.
        limit: At most this many images of each class.
        side: Pixels a side of images that come from class folders.
        existing: Whether a benchmark that is there is continued, overwritten or refused.
        progress: Called with the number of runs done and of all.

    Raises:
        VolumeError: The images cannot be read.
        ConfigError: The network is unknown.
        OutputError: The folder holds something else.
    """
    images = read_images(source, side, limit)
    _check_network(settings, images)
    options = {"images": f"{images.name} {images.hash()}", "settings": settings.model_dump(mode="json")}
    record = RunRecord("benchmark pruning", {**options, "grid": grid.model_dump(mode="json")})
    with remove_if_refused(out):
        bench = ClassifierBench(source, side, limit, settings, open_benchmark(out, options, existing))
        plans = plan_runs(grid)
        missing = [p for p in plans if not is_done(bench.result(p), asdict(p), [], None)]
        failures = perform_all(missing, bench, devices, jobs, progress)
    rows = _table(bench, [plan for plan in plans if plan.name not in {failed[0] for failed in failures}])
    write_csv(out / TABLE, COLUMNS, rows)
    outputs = [out / TABLE]
    if any(row["criterion"] != DENSE for row in rows):
        plot_accuracy(rows, DENSE, out / PICTURE)
        outputs.append(out / PICTURE)
    write_failures(out / FAILURES, "benchmark", failures)
    record.device = ", ".join(devices)
    record.finish(out, outputs)
    return PruningBenchmark(out, rows, failures)


def _check_network(settings: ClassifierSettings, images: ImageSet) -> None:
    """Build the network and show it an image, before any work is done."""
    shape = images.train.pixels.shape[1:]
    network = build_classifier(settings.network, shape[0], len(images.classes), 0, settings.width)
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape))


def default_values(source: Path, protocol: str | None = None) -> dict[str, object]:
    """Return the default settings for a set of images, and those in which a paper's protocol differs."""
    for_set = FOR_DIGITS if source.as_posix() == DIGITS else {}
    return {**for_set, **(PROTOCOLS[protocol] if protocol else {})}


def _table(bench: ClassifierBench, plans: Sequence[RunPlan]) -> list[Row]:
    results = {plan: json.loads(bench.result(plan).read_text(encoding="utf-8")) for plan in plans}
    dense_first = sorted(results, key=lambda plan: plan.criterion != DENSE)
    return accuracy_table(
        {plan: results[plan] for plan in dense_first}, lambda plan: load_weight_masks(bench.masks(plan))[0]
    )
