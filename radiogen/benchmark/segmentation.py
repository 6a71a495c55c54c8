"""Compare pruned RA-Segs with the dense one on a case folder: Dice, size, speed, memory."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from radiogen.benchmark.runs import Existing, Failure, open_benchmark, perform_all
from radiogen.benchmark.variants import SegmentationBench, Variant, VariantSettings
from radiogen.errors import CaseError, ConfigError
from radiogen.io.cases import Case, cases_of_split, find_cases
from radiogen.measures.intervals import paired_difference, sample_deviation
from radiogen.model.folder import load_model, model_hash
from radiogen.networks.raseg import RASeg, RASegSettings
from radiogen.provenance import (
    RunRecord,
    file_sha256,
    is_done,
    remove_if_refused,
    short_hash,
    write_csv,
    write_failures,
    write_json,
)
from radiogen.pruning.costs import measure_cost
from radiogen.runtime import Progress, no_progress, pick_device
from radiogen.training.prepared import learnable
from radiogen.training.step import SegmentationBatch, segmentation_loss

REPEATS = 5


@dataclass
class Timings:
    """Seconds of each round, of forward passes and of training steps."""

    forward: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)

    @property
    def forward_ms(self) -> float:
        """Median of the forward passes in milliseconds: other work of the machine delays single rounds."""
        return 1000 * median(self.forward)

    @property
    def step_ms(self) -> float:
        """Median of the training steps, in milliseconds."""
        return 1000 * median(self.step)


def time_networks(
    networks: Mapping[str, RASeg],
    window: Sequence[int],
    batch_size: int,
    device: torch.device,
    repeats: int = REPEATS,
    progress: Progress = no_progress,
) -> dict[str, Timings]:
    """Time networks in turn, so that other work of the machine falls on all of them alike.

    Args:
        networks: RA-Seg by name; their weights are moved by the training steps.
        window: Size (D, H, W) of the window of a forward pass in evaluation mode, one sample.
        batch_size: Samples in a training step: forward, backward, AdamW.
        device: Where.
        repeats: Rounds, after one that is not timed.
        progress: Called with the number of rounds done and of all.
    """
    passes = {name: _passes(network, window, batch_size, device) for name, network in networks.items()}
    timings = {name: Timings() for name in networks}
    for repeat in range(-1, repeats):
        progress("measure", repeat + 1, repeats + 1)
        for name, (forward, step) in passes.items():
            forward_s, step_s = _seconds(forward, device), _seconds(step, device)
            # The first round fills caches and picks kernels, and does not count.
            if repeat >= 0:
                timings[name].forward.append(forward_s)
                timings[name].step.append(step_s)
    progress("measure", repeats + 1, repeats + 1)
    return timings


def example_inputs(settings: RASegSettings, window: Sequence[int], count: int = 1) -> list[Tensor]:
    """Return random images (B, C, D, H, W) and priors of ones (B, 1, D, H, W)."""
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(count, settings.in_channels, *window, generator=rng)
    return [image, torch.ones(count, 1, *window)]


def _passes(
    network: RASeg, window: Sequence[int], batch_size: int, device: torch.device
) -> tuple[Callable[[], None], Callable[[], None]]:
    network.to(device)
    # A rate so small that the weights hardly move: timings of one network stay comparable.
    optimizer = torch.optim.AdamW(network.parameters(), 1e-6)
    loss = segmentation_loss()
    one, many = (
        [tensor.to(device) for tensor in example_inputs(network.settings, window, count)]
        for count in (1, batch_size)
    )
    # Times do not depend on the values: any sparse target will do.
    batch: SegmentationBatch = (*many, (many[0][:, :1] > 0.9).float())

    def forward() -> None:
        network.eval()
        with torch.inference_mode():
            network(*one)

    def step() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        loss(network, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return forward, step


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        # Kernels run after the call that starts them has returned.
        torch.cuda.synchronize(device)


TABLE, COSTS, FAILURES = "table.csv", "costs.csv", "failures.csv"
COLUMNS = (
    "structure",
    "criterion",
    "share",
    "seeds",
    "dice_mean",
    "dice_sd",
    "difference",
    "low",
    "high",
    "dice_of_the_box",
    "prompt",
    "collapsed_runs",
    "weights",
    "not_zero",
    "checkpoint_mb",
)
COST_COLUMNS = (
    "structure",
    "criterion",
    "share",
    "weights",
    "macs",
    "inference_mb",
    "training_mb",
    "forward_ms",
    "step_ms",
    "train_minutes",
)
Row = dict[str, Any]


@dataclass(frozen=True)
class SegmentationBenchmark:
    """A finished benchmark: Dice and costs of the variants, and the runs that failed."""

    folder: Path
    rows: list[Row]
    costs: list[Row]
    failures: list[Failure]


def benchmark_segmentation(
    cases: Path,
    out: Path,
    settings: VariantSettings,
    variants: Sequence[Variant],
    devices: Sequence[str] = ("cpu",),
    jobs: int = 1,
    existing: Existing = "skip",
    progress: Progress = no_progress,
) -> SegmentationBenchmark:
    """Train every variant on the cases that are not of the split `test`, and segment those that are.

    Writes `runs/` (pruned folder, model, masks, evaluation and result of each run), `table.csv`, `costs.csv`,
    and `failures.csv` if runs failed. Killed at any moment, the same call goes on, trainings where they were.

    Args:
        cases: A case folder whose manifest marks cases as `test`.
        out: Folder to write.
        settings: Network, training, scoring, prior.
        variants: Networks that are compared; differences are those to the dense network of the same seed.
        devices: Where the networks run; costs are measured on the first.
        jobs: Runs at the same time, each in a process of its own.
        existing: Whether a benchmark that is there is continued, overwritten or refused.
        progress: Called with the number of runs done and of all.

    Raises:
        CaseError: There are no cases to learn from or none to test on.
        ConfigError: The network is not trained with the prior.
        OutputError: The folder holds something else.
    """
    if settings.prior not in settings.run.training.priors:
        there = " or ".join(settings.run.training.priors)
        raise ConfigError(f"--prior {settings.prior}", "is not trained with", f"take --prior {there}")
    learn, test = learnable(find_cases(cases))[0], cases_of_split(cases, "test")
    if not any(case.has_lesion for case in test):
        raise CaseError(cases, "has no test case with an outline", "ingest with outlines, or split anew")
    options = {"cases": _hash_cases([*learn, *test]), "settings": settings.model_dump(mode="json")}
    record = RunRecord("benchmark segmentation-pruning", options)
    with remove_if_refused(out):
        bench = SegmentationBench(cases, settings, open_benchmark(out, options, existing))
        missing = [v for v in variants if not is_done(bench.result(v), asdict(v), [], None)]
        failures = perform_all(missing, bench, devices, jobs, progress)
    failed = {name for name, _, _ in failures}
    results = {
        variant: json.loads(bench.result(variant).read_text(encoding="utf-8"))
        for variant in variants
        if variant.name not in failed
    }
    rows = segmentation_table(results)
    write_csv(out / TABLE, COLUMNS, rows)
    costs = _costs(bench, list(results), len(learn), out / COSTS, devices[0], progress)
    write_failures(out / FAILURES, "benchmark", failures)
    record.device = ", ".join(devices)
    record.finish(out, [out / TABLE, out / COSTS])
    return SegmentationBenchmark(out, rows, costs, failures)


def _hash_cases(cases: Sequence[Case]) -> str:
    paths = [path for case in cases for path in (case.ct_path, case.lesion_path, case.lungs_path)]
    files = [file_sha256(path) for path in paths if path.is_file()]
    return short_hash(json.dumps([[(case.case_id, case.split) for case in cases], files]))


def segmentation_table(results: dict[Variant, Row]) -> list[Row]:
    """Return one row for each variant: Dice over seeds, its difference to the dense network paired by seed.

    Args:
        results: Numbers of the runs.

    Returns:
        Rows by COLUMNS; the interval is the 95 % one of the mean difference.
    """
    rows = []
    for key, own in _by_variant(results).items():
        dice = [results[variant]["dice"] for variant in own]
        row: Row = {**dict.fromkeys(COLUMNS), **_named(key), "seeds": len(own)}
        row |= {"dice_mean": mean(dice), "dice_sd": sample_deviation(dice)}
        pairs = [(v, dense) for v in own if (dense := Variant("dense", "", 0.0, v.seed)) in results]
        if key[0] != "dense" and pairs:
            found = paired_difference(
                [results[v]["dice"] for v, _ in pairs], [results[dense]["dice"] for _, dense in pairs]
            )
            row |= {"difference": found.mean, "low": found.low, "high": found.high}
        first = results[own[0]]
        row |= {name: first[name] for name in ("dice_of_the_box", "prompt", "weights", "not_zero")}
        row["collapsed_runs"] = sum(bool(results[variant]["collapsed"]) for variant in own)
        # Sizes are those of the first seed: the widths of the others are the same.
        row["checkpoint_mb"] = first["checkpoint_bytes"] / 1e6
        rows.append({name: v + 0.0 if isinstance(v, float) else v for name, v in row.items()})
    return rows


def _costs(
    bench: SegmentationBench, done: Sequence[Variant], learn: int, path: Path, device: str, progress: Progress
) -> list[Row]:
    """Return one row for each variant: the costs of the network of its first seed, unless measured."""
    # Times never have the same bytes twice, so they stand apart from the results, which a benchmark that was
    # killed ends with to the byte. The network of the first seed stands for all: their widths are the same.
    firsts = {own[0].name: key for key, own in _by_variant(done).items()}
    folders = {name: bench.runs / name / "model" for name in firsts}
    options = {"models": {name: model_hash(folder) for name, folder in folders.items()}, "device": device}
    beside = path.with_suffix(".json")
    if not (is_done(path, options, [], None) and beside.is_file()):
        record = RunRecord("benchmark costs", options, device=device)
        where, run = pick_device(device), bench.settings.run
        window, batch = run.preprocessing.size, run.training.batch_size
        networks = {name: load_model(folder, where).network for name, folder in folders.items()}
        timings = time_networks(networks, window, batch, where, progress=progress)
        # Time of a step by their number, not the clock of the runs, which shared the machine.
        steps = run.training.epochs * ceil(learn * run.training.patches_per_case / batch)
        rows = []
        for name, key in firsts.items():
            settings = networks[name].settings
            cost = measure_cost(partial(RASeg, settings), example_inputs(settings, window))
            row = {**_named(key), **asdict(cost)}
            row |= {"forward_ms": timings[name].forward_ms, "step_ms": timings[name].step_ms}
            row["train_minutes"] = timings[name].step_ms * steps / 60_000
            rows.append(row)
        write_csv(path, COST_COLUMNS, rows)
        write_json(beside, rows)
        record.finish(path, [path, beside])
    kept: list[Row] = json.loads(beside.read_text(encoding="utf-8"))
    return kept


Key = tuple[str, str, float]


def _by_variant(variants: Iterable[Variant]) -> dict[Key, list[Variant]]:
    found: dict[Key, list[Variant]] = {}
    for variant in variants:
        found.setdefault((variant.structure, variant.criterion, variant.share), []).append(variant)
    return found


def _named(key: Key) -> Row:
    return dict(zip(("structure", "criterion", "share"), key, strict=True))
