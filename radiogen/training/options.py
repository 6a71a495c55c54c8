"""What a training is asked for: options, folds, and what of it decides the result."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from radiogen.config import Settings
from radiogen.distributed import world_size
from radiogen.errors import ConfigError
from radiogen.io.cases import Case, find_cases
from radiogen.model.folder import load_model
from radiogen.networks.raseg import RASeg, build_raseg
from radiogen.optional import require
from radiogen.provenance import file_sha256, short_hash
from radiogen.training.patches import check_cohorts
from radiogen.training.prepared import learnable
from radiogen.training.pruned_folder import Pruned, read_pruned
from radiogen.training.settings import RunSettings, TrainingSettings

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
        hint = "add --folds 5, or set it to 0"
        raise ConfigError("training.patience", "needs held-out cases, and there are no folds", hint)
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
    world = world_size()
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
    training, world = settings.training, world_size()
    deciding = settings.model_dump(mode="json", exclude={"training": set(FREE)})
    batch = [training.batch_size, training.accumulate, world]
    if settings.network.gate_norm != "batch":  # which sees one mini-batch at a time
        batch = [math.prod(batch)]
    paths = [(case.ct_path, case.lesion_path, case.lungs_path) for case in (*learn, *out)]
    files = [file_sha256(path) for three in paths for path in three if path.is_file()]
    cohorts = [case.cohort for case in (*learn, *out)]  # some are drawn more often, or lungs only
    parts = [deciding, batch, options.seed, start, len(learn), cohorts, files]
    return short_hash(json.dumps(parts))


@dataclass(frozen=True)
class Start:
    """The network at its start, and what its model card has to say of that."""

    network: RASeg
    weight_masks: dict[str, Tensor] = field(default_factory=dict)
    patients_seen: frozenset[str] | None = frozenset()  # None: unknown
    hash: str = ""  # of what it was read from
    note: str = ""
    sparsity: float = 0.0
    control: str = "none"


def find_start(settings: RunSettings, options: TrainOptions) -> Start:
    """The start that the options name.

    Raises:
        ConfigError: The pruned folder or the model is of another network, preprocessing or seed.
        PruningError: The pruned folder is not whole.
        ModelError: The model folder is not whole.
    """
    if options.pruned and options.start:
        raise ConfigError("--start", "has no place beside --pruned", "take one of them")
    if options.pruned:
        return _from_pruned(read_pruned(options.pruned), settings, options)
    if options.start:
        return _from_model(options.start, settings)
    return Start(build_raseg(settings.network, options.seed))


def _from_pruned(pruned: Pruned, settings: RunSettings, options: TrainOptions) -> Start:
    """Refuses weight masks of another network, seed or preprocessing."""
    made = pruned.config
    same = settings.network == made.settings.network and options.seed == made.seed
    if not same or settings.preprocessing != made.settings.preprocessing:
        raise ConfigError(
            f"--pruned {pruned.folder}",
            f"was made with --preset {made.preset} --seed {made.seed} and its settings",
            "train with the same --preset, --seed, --config and --set",
        )
    return Start(
        network=pruned.start(),
        weight_masks=pruned.weight_masks,
        patients_seen=frozenset(made.patients_seen),
        hash=pruned.hash,
        note=pruned.note,
        sparsity=made.sparsity,
        control=made.control,
    )


def _from_model(folder: Path, settings: RunSettings) -> Start:
    """Refuses a model that sees or computes otherwise, and one whose zeros would be trained away."""
    model = load_model(folder, torch.device("cpu"))
    made = model.config
    if made.network != settings.network or made.preprocessing != settings.preprocessing:
        wrong = (
            f"was made with --preset {made.preset} and its settings" if made.preset else "is another network"
        )
        raise ConfigError(f"--start {folder}", wrong, "train with the same --preset, --config and --set")
    if made.sparsity:
        raise ConfigError(f"--start {folder}", "is pruned, and would not stay so", "take one that is not")
    seen = None if made.patients_seen is None else frozenset(made.patients_seen)
    of = f"model {model.hash}" + (f" (preset {made.preset})" if made.preset else "")
    return Start(model.network, patients_seen=seen, hash=model.hash, note=f"Training began with {of}.")


@dataclass(frozen=True)
class Task:
    """One training before it begins: from where, on which cases, in which way."""

    settings: RunSettings
    options: TrainOptions
    start: Start
    learn: list[Case]
    held_out: list[Case]
    left_out: list[str]  # sentences

    @property
    def fingerprint(self) -> str:
        """Of all that decides the result; reads every case."""
        return fingerprint_of(self.settings, self.options, self.start.hash, self.learn, self.held_out)

    @property
    def fold(self) -> str:
        """What is held out, in words."""
        if not self.held_out:
            return ""
        patients = len({case.patient_id for case in self.held_out})
        fold = f"Fold {self.options.fold} of {self.options.folds}, by patient, from seed {self.options.seed}"
        return f"{fold}: {len(self.held_out)} cases of {patients} patients, not learned from."


def find_task(cases: Path, settings: RunSettings, options: TrainOptions) -> Task:
    """Read what a training needs and refuse what does not fit, before any work is done.

    Raises:
        RadiogenError: As `train` says.
    """
    check_options(settings, options)
    start = find_start(settings, options)
    found = find_cases(cases)
    learn, held_out = choose_cases(found, options)
    check_cohorts(settings.training, {case.cohort for case in learn})
    check_step(settings.training, learn)
    known = start.patients_seen or frozenset()
    if any(case.patient_id in known for case in held_out) and options.start:
        wrong = "has seen patients that are held out here, whose figures would flatter"
        raise ConfigError(f"--start {options.start}", wrong, "begin with a model that has not seen them")
    return Task(settings, options, start, learn, held_out, learnable(found)[1])
