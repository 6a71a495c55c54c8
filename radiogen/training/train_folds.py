"""Train every fold, one after the other, into one ensemble folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from radiogen.model.card import NOT_FOR, validation_lines
from radiogen.model.ensemble import write_ensemble
from radiogen.training.errors import mishaps_told
from radiogen.model.folder import CARD, ENSEMBLE, METRICS, WEIGHTS
from radiogen.training.presets import RunSettings
from radiogen.training.train import CACHE, Trained, train_one, train_record
from radiogen.training.options import TrainOptions
from radiogen.errors import ConfigError, OutputError
from radiogen.provenance import RunRecord, is_done, write_json, write_text
from radiogen.runtime import Tick, is_first_process, no_tick, together, wait_for_all


@dataclass(frozen=True)
class TrainedFolds:
    """An ensemble folder, and what each held-out case said of the member that has not seen it."""

    folder: Path
    members: tuple[str, ...]
    validation: list[dict[str, Any]]  # one row a case and prior: fold, case_id, prior, prompt, dice

    def summary(self) -> list[str]:
        """One line a prior: the mean over all cases, each held out once, and its spread."""
        kinds = dict.fromkeys((row["prior"], row["prompt"]) for row in self.validation)
        lines = []
        for prior, prompt in kinds:
            dice = [
                row["dice"] for row in self.validation if (row["prior"], row["prompt"]) == (prior, prompt)
            ]
            spread = f" (sd {stdev(dice):.3f})" if len(dice) > 1 else ""
            lines.append(f"{prior}\t{prompt}\t{len(dice)} cases\tDice {mean(dice):.3f}{spread}")
        return lines


def train_folds(
    cases: Path,
    out: Path,
    settings: RunSettings,
    options: TrainOptions,
    device: torch.device,
    tick: Tick = no_tick,
) -> TrainedFolds:
    """Train each of `options.folds` folds into `out/fold0` .. and make `out` an ensemble.

    Args and errors: those of `train`.

    Raises:
        ConfigError: There are fewer than two folds.
        OutputError: The folder holds a single model.
    """
    if options.folds < 2:
        raise ConfigError("--fold all", "needs two folds or more", "add --folds 5")
    if (out / WEIGHTS).is_file():
        raise OutputError(out, "holds a single model", "choose another folder")
    record = train_record(settings, options)
    names = tuple(f"fold{number}" for number in range(options.folds))
    trained: list[Trained] = []
    with together(device), mishaps_told(f"training on {device}"):
        for number, name in enumerate(names):
            one = options.model_copy(update={"fold": number})
            trained.append(train_one(cases, out / name, settings, one, device, out / CACHE, tick))
        folds = TrainedFolds(out, names, _held_out_rows(trained))
        if is_first_process():
            record.seed, record.device = options.seed, str(device)
            _write(folds, settings, record)
            shutil.rmtree(out / CACHE, ignore_errors=True)
        wait_for_all()
    return folds


def _held_out_rows(trained: list[Trained]) -> list[dict[str, Any]]:
    return [
        {"fold": number, **{name: value for name, value in row.items() if name != "epoch"}}
        for number, one in enumerate(trained)
        for row in one.metrics["validation"]
        if row["epoch"] == one.metrics["kept_epoch"]
    ]


def _write(folds: TrainedFolds, settings: RunSettings, record: RunRecord) -> None:
    """metrics.json, MODEL_CARD.md and, last but for the record, ensemble.json."""
    out = folds.folder
    metrics = {"validation": folds.validation}
    if is_done(out, record.options, [], None) and json.loads((out / METRICS).read_text("utf-8")) == metrics:
        return  # all of it was there already
    write_json(out / METRICS, metrics)
    write_text(out / CARD, _card(folds, settings))
    write_ensemble(out, folds.members)
    record.finish(out, [out / ENSEMBLE, out / METRICS])


def _card(folds: TrainedFolds, settings: RunSettings) -> str:
    count = len(folds.members)
    metrics = {"validation": [{**row, "epoch": 0} for row in folds.validation]}
    lines = [
        f"# RA-Seg, an ensemble of {count} folds",
        "",
        "Not for clinical use. Research software.",
        "",
        f"- Members: {', '.join(folds.members)}; each has a card of its own.",
        "- Together they have seen every patient: their joint answer is not tested on any of these.",
        "",
        "## Measured by cross-validation, each case by the member that has not seen it",
        "",
        *validation_lines(metrics, chosen_by_it=settings.training.patience > 0),
        "",
        "## What it is not for",
        "",
        *(f"- {sentence}" for sentence in NOT_FOR),
    ]
    return "\n".join(lines) + "\n"
