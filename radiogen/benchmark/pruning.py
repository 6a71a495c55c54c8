"""Compare pruning criteria on classifiers, by the protocol of arXiv:2502.11450."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from radiogen.benchmark.classifiers import ClassifierBench, ClassifierSettings, read_images
from radiogen.benchmark.folder import Existing, open_benchmark
from radiogen.benchmark.plans import DENSE, Grid, Plan, plan_runs
from radiogen.benchmark.plot import plot_accuracy
from radiogen.benchmark.runs import Failure, perform_all
from radiogen.benchmark.table import COLUMNS, Row, accuracy_table
from radiogen.benchmark.images import DIGITS, ImageSet
from radiogen.networks.classifiers import build_classifier
from radiogen.provenance import RunRecord, is_done, leave_no_trace, write_csv, write_failures
from radiogen.pruning.mask_files import load_weight_masks
from radiogen.runtime import Tick, no_tick

TABLE, PICTURE, FAILURES = "table.csv", "accuracy.png", "failures.csv"
FOR_DIGITS = {  # 1201 images of 8 x 8: a small network, more steps an epoch, nothing mirrored
    "network": "resnet8",
    "training": {"epochs": 30, "batch_size": 64, "augment": False},
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
    grid: Grid,
    devices: Sequence[str] = ("cpu",),
    jobs: int = 1,
    limit: int | None = None,
    side: int = 32,
    existing: Existing = "skip",
    tick: Tick = no_tick,
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
        existing: What happens to a benchmark that is there.
        tick: Told of each finished run.

    Raises:
        VolumeError: The images cannot be read.
        ConfigError: The network is unknown.
        OutputError: The folder holds something else.
    """
    images = read_images(source, side, limit)
    _check_network(settings, images)
    about = {"images": f"{images.name} {images.hash()}", "settings": settings.model_dump(mode="json")}
    record = RunRecord("benchmark pruning", {**about, "grid": grid.model_dump(mode="json")})
    with leave_no_trace(out):
        bench = ClassifierBench(source, side, limit, settings, open_benchmark(out, about, existing))
        plans = plan_runs(grid)
        missing = [p for p in plans if not is_done(bench.result(p), bench.options(p), [], None)]
        failures = perform_all(missing, bench, devices, jobs, tick)
    rows = _table(bench, [plan for plan in plans if plan.name not in {failed[0] for failed in failures}])
    write_csv(out / TABLE, COLUMNS, rows)
    outputs = [out / TABLE]
    if any(row["criterion"] != DENSE for row in rows):
        plot_accuracy(rows, out / PICTURE)
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


def default_values(source: Path) -> dict[str, object]:
    """The settings for a set unless something else is said: the papers', but for digits."""
    return dict(FOR_DIGITS) if source.as_posix() == DIGITS else {}


def _table(bench: ClassifierBench, plans: Sequence[Plan]) -> list[Row]:
    results = {plan: json.loads(bench.result(plan).read_text(encoding="utf-8")) for plan in plans}
    dense_first = sorted(results, key=lambda plan: plan.criterion != DENSE)
    return accuracy_table(
        {plan: results[plan] for plan in dense_first}, lambda plan: load_weight_masks(bench.masks(plan))[0]
    )
