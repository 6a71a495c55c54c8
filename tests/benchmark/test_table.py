"""The table of the classifier benchmark, by hand, and which runs it asks for."""

import pytest
import torch

from radiogen.benchmark.plans import BenchmarkGrid, RunPlan, parse_grid, plan_runs
from radiogen.benchmark.pruning import accuracy_table
from radiogen.errors import ConfigError

KEPT = {"snip": [1, 1, 0, 0], "fts": [1, 0, 1, 0], "shuffle": [0, 1, 0, 1]}


def masks_of(plan):
    return {"conv": torch.tensor(KEPT[plan.control or plan.criterion]).bool()}


def result(accuracy, collapsed=()):
    return {"accuracy": accuracy, "collapsed": list(collapsed)}


RESULTS = {
    RunPlan("dense", "", 0.0, 0): result(95.0),
    RunPlan("dense", "", 0.0, 1): result(96.0),
    RunPlan("snip", "", 0.5, 0): result(90.0),
    RunPlan("snip", "", 0.5, 1): result(92.0),
    RunPlan("fts", "", 0.5, 0): result(91.0),
    RunPlan("fts", "", 0.5, 1): result(95.0, ["conv"]),
    RunPlan("fts", "shuffle", 0.5, 1): result(94.0),
}


def test_means_differences_and_masks_in_common_by_hand():
    dense, snip, fts, control = accuracy_table(RESULTS, masks_of)
    assert (dense["accuracy_mean"], dense["accuracy_sd"], dense["against"]) == (
        95.5,
        pytest.approx(0.5**0.5),
        None,
    )
    assert (snip["accuracy_mean"], snip["difference"], snip["kept_in_common"]) == (91.0, None, None)
    assert (fts["accuracy_mean"], fts["against"], fts["difference"]) == (93.0, "snip", 2.0)  # 1 and 3
    half = 12.706204736432095 * 2**0.5 / 2**0.5  # t of one degree of freedom; deviation sqrt(2)
    assert (fts["low"], fts["high"]) == pytest.approx((2 - half, 2 + half))
    assert (fts["kept_in_common"], fts["collapsed_runs"]) == (0.5, 1)
    assert (control["against"], control["seeds"], control["difference"]) == ("fts", 1, -1.0)
    assert (control["low"], control["accuracy_sd"], control["kept_in_common"]) == (None, None, 0.0)


def test_without_snip_a_criterion_stands_alone():
    alone = {plan: r for plan, r in RESULTS.items() if plan.criterion != "snip"}
    assert accuracy_table(alone, masks_of)[1]["against"] is None


def test_a_grid_asks_for_each_run_once():
    grid = BenchmarkGrid(criteria=("snip", "fts"), sparsities=(0.5, 0.9), seeds=(0, 1), controls_of=("fts",))
    plans = plan_runs(grid)
    assert len(plans) == len(set(plans)) == 2 * (1 + 2 * (2 + 3))
    assert len({plan.name for plan in plans}) == len(plans)
    assert RunPlan("fts", "reinit", 0.9, 1).name == "fts-reinit-0_9-1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("best", "0.9", "0"), "criterion best: is unknown"),
        (("snip", "1", "0"), "sparsity 1 is not a share"),
        (("snip", "0", "0"), "sparsity 0 is not a share"),
        (("snip", "much", "0"), "sparsities"),
        (("snip", "0.9", "-1"), "seeds are 0 or more"),
        (("", "0.9", "0"), "criteria"),
        (("snip", "0.9", "0", "swap", "snip"), "control swap: is unknown"),
        (("snip", "0.9", "0", "shuffle", "fts"), "need fts among the criteria"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        parse_grid(*words)
