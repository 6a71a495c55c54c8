"""Train RA-Seg on a case folder, dense or pruned, and write a model folder."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from radiogen.config import Settings
from radiogen.engines.cards import model_card
from radiogen.engines.model_folder import WEIGHTS, ModelConfig, save_model
from radiogen.engines.prepared import learnable, prepare
from radiogen.engines.presets import RunSettings
from radiogen.engines.pruned_folder import Pruned, read_pruned
from radiogen.engines.training import CHECKPOINT, Training
from radiogen.errors import ConfigError, OutputError, TrainingError
from radiogen.io.cases import Case, find_cases
from radiogen.networks.raseg import build_raseg, weight_count
from radiogen.provenance import RunRecord, file_sha256, leave_no_trace, record_path, short_hash
from radiogen.runtime import Tick, no_tick

CACHE = "prepared"


class TrainOptions(Settings):
    """What is trained on what. With `pruned`, network, preprocessing and seed come from that folder."""

    preset: str = "modern"
    seed: int = 0
    pruned: Path | None = None
    folds: int = 0
    fold: int = 0
    resume: bool = True
    existing: Literal["skip", "overwrite", "fail"] = "skip"


@dataclass(frozen=True)
class Trained:
    """A finished training: the model folder and what its loop measured."""

    folder: Path
    metrics: dict[str, Any]
    learned_from: tuple[str, ...]
    held_out: tuple[str, ...]


def train(
    cases: Path,
    out: Path,
    settings: RunSettings,
    options: TrainOptions,
    device: torch.device,
    tick: Tick = no_tick,
) -> Trained:
    """Train on the cases with an outline whose split is not `test`; a killed run goes on where it was.

    Args:
        cases: A case folder with a manifest.
        out: The model folder to write.
        settings: Network, preprocessing and training.
        options: Seed, folds, weight masks, and what to do with what is there.
        device: Where to train.
        tick: Told of progress.

    Raises:
        CaseError: There is no case to learn from.
        ConfigError: The fold is not one of the folds, or the pruned folder is of other settings.
        TrainingError: The training cannot go on.
        OutputError: The folder holds a finished model and `existing` is fail.
    """
    pruned = read_pruned(options.pruned) if options.pruned else None
    if pruned:
        check_pruned(pruned, settings, options)
    found = find_cases(cases)
    learn, held_out = choose_cases(found, options)
    record = RunRecord(
        "train", options={**options.model_dump(mode="json"), "settings": settings.model_dump(mode="json")}
    )
    fingerprint = _fingerprint(settings, options, pruned, learn, held_out)
    finished = _finished(out, fingerprint, options)
    if finished is not None:
        return Trained(out, finished, _ids(learn), _ids(held_out))
    network = pruned.start() if pruned else build_raseg(settings.network, options.seed)
    with leave_no_trace(out / CACHE):
        prepared = [prepare(some, settings.preprocessing, out / CACHE, tick) for some in (learn, held_out)]
    training = Training(
        network=network,
        settings=settings,
        learn=prepared[0],
        held_out=prepared[1],
        weight_masks=pruned.weight_masks if pruned else {},
        seed=options.seed,
        device=device,
        folder=out,
        fingerprint=fingerprint,
    )
    done = training.run(tick)
    metrics: dict[str, Any] = {
        "fingerprint": fingerprint,
        "epochs": done.epochs,
        "validation": done.validation,
    }
    seen = set(pruned.config.patients_seen) if pruned else set()
    config = ModelConfig(
        preset=options.preset,
        network=pruned.network if pruned else settings.network,
        preprocessing=settings.preprocessing,
        priors=settings.training.prior_names,
        seed=options.seed,
        sparsity=pruned.config.sparsity if pruned else 0.0,
        control=pruned.config.control if pruned else "none",
        patients_seen=tuple(sorted(seen | {case.patient_id for case in learn})),
    )
    note = pruned.note if pruned else ""
    card = model_card(config, metrics, weight_count(network), note)
    save_model(out, network.state_dict(), config, metrics, card)
    record.decisions += learnable(found)[1]
    record.seed, record.device = options.seed, str(device)
    record.finish(out, [out / WEIGHTS])
    (out / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(out / CACHE, ignore_errors=True)
    return Trained(out, metrics, _ids(learn), _ids(held_out))


def choose_cases(cases: list[Case], options: TrainOptions) -> tuple[list[Case], list[Case]]:
    """Cases to learn from and cases held out: folds by patient, drawn from the seed.

    Cases of the split `test` and cases without an outline or a lung mask are in neither.

    Raises:
        CaseError: There is nothing to learn from.
        ConfigError: The fold is not one of the folds, or there are fewer patients than folds.
    """
    usable, _ = learnable(cases)
    if options.folds == 0:
        return usable, []
    patients = sorted({case.patient_id for case in usable})
    if not 0 <= options.fold < options.folds or options.folds < 2:
        raise ConfigError(f"--fold {options.fold}", f"is not one of {options.folds} folds", "count from 0")
    if len(patients) < options.folds:
        wrong = f"are more than the {len(patients)} patients with an outline"
        raise ConfigError(f"--folds {options.folds}", wrong, "take fewer folds")
    order = np.random.default_rng(options.seed).permutation(len(patients))
    fold_of = {patients[patient]: place % options.folds for place, patient in enumerate(order)}
    held_out = [case for case in usable if fold_of[case.patient_id] == options.fold]
    return [case for case in usable if fold_of[case.patient_id] != options.fold], held_out


def _ids(cases: list[Case]) -> tuple[str, ...]:
    return tuple(case.case_id for case in cases)


def check_pruned(pruned: Pruned, settings: RunSettings, options: TrainOptions) -> None:
    """Refuse weight masks of another network, seed or preprocessing."""
    made = pruned.config
    same = settings.network == made.settings.network and options.seed == made.seed
    if not same or settings.preprocessing != made.settings.preprocessing:
        raise ConfigError(
            f"--pruned {pruned.folder}",
            f"was made with --preset {made.preset} --seed {made.seed} and its settings",
            "train with the same --preset, --seed, --config and --set",
        )


def _fingerprint(
    settings: RunSettings, options: TrainOptions, pruned: Pruned | None, learn: list[Case], out: list[Case]
) -> str:
    """What decides the weights: settings, seed, masks, and the bytes of the cases."""
    deciding = settings.model_dump(mode="json", exclude={"training": {"workers", "checkpoint_minutes"}})
    paths = [(case.ct_path, case.lesion_path, case.lungs_path) for case in (*learn, *out)]
    files = [file_sha256(path) for three in paths for path in three if path.is_file()]
    parts = [deciding, options.seed, pruned.hash if pruned else "", len(learn), files]
    return short_hash(json.dumps(parts))


def _finished(out: Path, fingerprint: str, options: TrainOptions) -> dict[str, Any] | None:
    """The metrics of a finished training of the same kind; clears or refuses what else is in the way."""
    if not out.is_dir():
        return None
    is_finished, has_checkpoint = record_path(out).is_file(), (out / CHECKPOINT).is_file()
    if options.existing == "overwrite" and (is_finished or has_checkpoint):
        shutil.rmtree(out)
        return None
    if is_finished:
        metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        if options.existing == "fail":
            raise OutputError(out, "holds a finished model", "choose another folder or --existing overwrite")
        if metrics.get("fingerprint") != fingerprint:
            wrong = "holds a model of other settings or cases"
            raise OutputError(out, wrong, "choose another folder or --existing overwrite")
        return metrics
    if has_checkpoint and not options.resume:
        raise TrainingError(out, "holds an unfinished training", "add --resume or --existing overwrite")
    return None
