"""What a training is asked for: options, folds, and what of it decides the result."""

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np

from radiogen.config import Settings
from radiogen.training.prepared import learnable
from radiogen.training.presets import RunSettings
from radiogen.training.settings import TrainingSettings
from radiogen.errors import ConfigError
from radiogen.io.cases import Case
from radiogen.optional import require
from radiogen.provenance import file_sha256, short_hash
from radiogen.runtime import process_number

FREE = ("batch_size", "accumulate", "workers", "checkpoint_minutes", "checkpoint_activations", "tensorboard")
"""Settings of a training that leave its result as it is; `fingerprint_of` counts the patches in a step."""


class TrainOptions(Settings):
    """What is trained on what; with `pruned` or `start`, the network must be that of the folder."""

    preset: str = "modern"
    seed: int = 0
    pruned: Path | None = None
    start: Path | None = None  # a model folder
    folds: int = 0
    fold: int = 0
    resume: bool = True
    existing: Literal["skip", "overwrite", "fail"] = "skip"


def check_options(settings: RunSettings, options: TrainOptions) -> None:
    """Refuse what contradicts itself, before anything is read.

    Raises:
        ConfigError: With the way out.
        MissingPackageError: TensorBoard is wanted and not installed.
    """
    training = settings.training
    if options.fold and not options.folds:
        raise ConfigError(f"--fold {options.fold}", "is one of no folds", "add --folds, such as --folds 5")
    if training.patience and not options.folds:
        way_out = "add --folds 5, or set it to 0"
        raise ConfigError("training.patience", "needs held-out cases, and there are no folds", way_out)
    if training.patience and not training.validate_every:
        wrong = "counts validations, and there is only one, after the last epoch"
        raise ConfigError("training.patience", wrong, "add --set training.validate_every=5")
    if training.tensorboard:
        require("tensorboard", "track")


def patches_of_epoch(training: TrainingSettings, learn: list[Case]) -> int:
    """Patches that an epoch draws from cases."""
    return sum(training.cohort_draws.get(case.cohort, 1) for case in learn) * training.patches_per_case


def check_step(training: TrainingSettings, learn: list[Case]) -> None:
    """Refuse steps that take more patches than an epoch has; one small mini-batch alone may be smaller.

    Raises:
        ConfigError: With both numbers.
    """
    _, world = process_number()
    draws = patches_of_epoch(training, learn)
    asked = world * training.accumulate * training.batch_size
    if draws < asked and world * training.accumulate > 1:
        raise ConfigError(
            "training.patches_per_case",
            f"gives {draws} patches an epoch, and one step takes {asked}",
            "raise it, or lower training.batch_size, training.accumulate or the number of processes",
        )


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


def fingerprint_of(
    settings: RunSettings, options: TrainOptions, start: str, learn: list[Case], out: list[Case]
) -> str:
    """What decides the weights: settings, seed, hash of the start, patches in a step, bytes of the cases."""
    training, (_, world) = settings.training, process_number()
    deciding = settings.model_dump(mode="json", exclude={"training": set(FREE)})
    batch = [training.batch_size, training.accumulate, world]
    if settings.network.gate_norm != "batch":  # which sees one mini-batch at a time
        batch = [math.prod(batch)]
    paths = [(case.ct_path, case.lesion_path, case.lungs_path) for case in (*learn, *out)]
    files = [file_sha256(path) for three in paths for path in three if path.is_file()]
    cohorts = [case.cohort for case in (*learn, *out)]  # some are drawn more often, or lungs only
    parts = [deciding, batch, options.seed, start, len(learn), cohorts, files]
    return short_hash(json.dumps(parts))
