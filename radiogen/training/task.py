"""One training before it begins: its cases and folds, the network it starts from, and its fingerprint."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from radiogen.distributed import world_size
from radiogen.errors import ConfigError
from radiogen.io.cases import Case, find_cases
from radiogen.io.patients import find_known
from radiogen.model.folder import load_model
from radiogen.networks.raseg import RASeg, build_raseg
from radiogen.optional import require
from radiogen.provenance import file_sha256, short_hash
from radiogen.training.prepared import learnable
from radiogen.training.settings import RunSettings, TrainingSettings, TrainOptions

FREE = ("batch_size", "accumulate", "workers", "checkpoint_minutes", "checkpoint_activations", "tensorboard")
"""Settings that leave the result as it is and may change when a training goes on."""


@dataclass(frozen=True)
class TrainingStart:
    """The network that a training starts from, and what its model card has to say of that."""

    network: RASeg
    weight_masks: dict[str, Tensor] = field(default_factory=dict)
    patients_seen: frozenset[str] | None = frozenset()  # None: unknown
    scans_seen: frozenset[str] = frozenset()  # hashes
    hash: str = ""  # of what it was read from
    note: str = ""
    sparsity: float = 0.0
    control: str = "none"


@dataclass(frozen=True)
class TrainingTask:
    """One training before it begins: settings, start, and the cases on either side of the fold."""

    settings: RunSettings
    options: TrainOptions
    start: TrainingStart
    learn: list[Case]
    held_out: list[Case]
    left_out: list[str]  # sentences

    @property
    def fingerprint(self) -> str:
        """A hash of what decides the weights: settings, seed, start, patches in a step, bytes of the cases.

        How a step is cut in mini-batches and processes changes nothing, so whoever runs out of memory can
        halve one, double the other and go on; batch norm and `dice: batch`, which see one mini-batch at a
        time, are the exception.
        """
        training = self.settings.training
        deciding = self.settings.model_dump(mode="json", exclude={"training": set(FREE)})
        batch = [training.batch_size, training.accumulate, world_size()]
        if self.settings.network.gate_norm != "batch" and training.dice != "batch":
            batch = [math.prod(batch)]
        cases = [*self.learn, *self.held_out]
        paths = [path for case in cases for path in (case.ct_path, case.lesion_path, case.lungs_path)]
        files = [file_sha256(path) for path in paths if path.is_file()]
        cohorts = [case.cohort for case in cases]  # they have weights, or show lungs only
        seed, start = self.options.seed, self.start.hash
        return short_hash(json.dumps([deciding, batch, seed, start, len(self.learn), cohorts, files]))

    @property
    def fold(self) -> str:
        """A sentence on what is held out; empty where nothing is."""
        if not self.held_out:
            return ""
        patients = len({case.patient_id for case in self.held_out})
        fold = f"Fold {self.options.fold} of {self.options.folds}, by patient, from seed {self.options.seed}"
        return f"{fold}: {len(self.held_out)} cases of {patients} patients, not learned from."


def find_task(cases: Path, settings: RunSettings, options: TrainOptions) -> TrainingTask:
    """Read what a training needs and refuse what does not fit, before any work is done.

    Raises:
        RadiogenError: The errors of `train`.
    """
    check_options(settings, options)
    start = find_start(settings, options)
    found = find_cases(cases)
    lungs_only = settings.training.lungs_only_cohorts
    left_out = learnable(found, lungs_only_cohorts=lungs_only)[1]
    learn, held_out = choose_cases(found, options, lungs_only)
    settings.training.check_cohorts({case.cohort for case in learn})
    check_step_size(settings.training, learn)
    # A fine-tuned model is measured on patients that its start has not seen either.
    known = [*(start.patients_seen or ()), *start.scans_seen]
    scans = {case.patient_id: [case.scan] for case in held_out}
    if options.start and find_known(scans, scans, known):
        wrong = "has seen patients that are held out here, whose figures would flatter"
        raise ConfigError(f"--start {options.start}", wrong, "begin with a model that has not seen them")
    return TrainingTask(settings, options, start, learn, held_out, left_out)


def check_options(settings: RunSettings, options: TrainOptions) -> None:
    """Refuse options that contradict each other, before anything is read.

    Raises:
        ConfigError: With a hint.
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
    """Return the number of patches that an epoch draws."""
    return sum(training.cohort_draws.get(case.cohort, 1) for case in learn) * training.patches_per_case


def check_step_size(training: TrainingSettings, learn: list[Case]) -> None:
    """Refuse steps of more patches than an epoch has; one small mini-batch alone may be smaller.

    Raises:
        ConfigError: With both numbers.
    """
    ranks = world_size()
    available = patches_of_epoch(training, learn)
    needed = ranks * training.accumulate * training.batch_size
    if available < needed and ranks * training.accumulate > 1:
        raise ConfigError(
            "training.patches_per_case",
            f"gives {available} patches an epoch, and one step takes {needed}",
            "raise it, or lower training.batch_size, training.accumulate or the number of processes",
        )


def choose_cases(
    cases: list[Case], options: TrainOptions, lungs_only_cohorts: Sequence[str] = ()
) -> tuple[list[Case], list[Case]]:
    """Return the cases to learn from and those held out: folds by patient, drawn from the seed.

    Cases of the split `test` and cases without a lung mask are in neither; nor are those without an outline,
    unless only their lungs are shown: these are all learned from.

    Raises:
        CaseError: There is nothing to learn from.
        ConfigError: The fold is not one of the folds, or there are fewer patients than folds.
    """
    usable, _ = learnable(cases, lungs_only_cohorts=lungs_only_cohorts)
    if options.folds == 0:
        return usable, []
    patients = sorted({case.patient_id for case in usable if case.has_lesion})
    if not 0 <= options.fold < options.folds or options.folds < 2:
        raise ConfigError(f"--fold {options.fold}", f"is not one of {options.folds} folds", "count from 0")
    if len(patients) < options.folds:
        wrong = f"are more than the {len(patients)} patients with an outline"
        raise ConfigError(f"--folds {options.folds}", wrong, "take fewer folds")
    # Dealt out by patient, so that no patient is on both sides.
    order = np.random.default_rng(options.seed).permutation(len(patients))
    fold_of = {patients[patient]: place % options.folds for place, patient in enumerate(order)}
    held_out = [case for case in usable if case.has_lesion and fold_of[case.patient_id] == options.fold]
    kept_out = {case.patient_id for case in held_out}
    return [case for case in usable if case.patient_id not in kept_out], held_out


def find_start(settings: RunSettings, options: TrainOptions) -> TrainingStart:
    """Return the start that the options name: a pruned folder, a model folder, or weights of the seed.

    Raises:
        ConfigError: It is of another network, preprocessing or seed.
        PruningError, ModelError: It is not whole.
    """
    if options.pruned and options.start:
        raise ConfigError("--start", "has no place beside --pruned", "take one of them")
    if options.pruned:
        return _start_from_pruned(options.pruned, settings, options)
    if options.start:
        return _start_from_model(options.start, settings)
    return TrainingStart(build_raseg(settings.network, options.seed))


def _start_from_pruned(folder: Path, settings: RunSettings, options: TrainOptions) -> TrainingStart:
    """Read a pruned folder; refuse weight masks of another network, seed or preprocessing."""
    from radiogen.training.pruned_folder import read_pruned  # and with it all of pruning

    pruned = read_pruned(folder)
    config = pruned.config
    is_same = settings.network == config.settings.network and options.seed == config.seed
    if not is_same or settings.preprocessing != config.settings.preprocessing:
        raise ConfigError(
            f"--pruned {pruned.folder}",
            f"was made with --preset {config.preset} --seed {config.seed} and its settings",
            "train with the same --preset, --seed, --config and --set",
        )
    return TrainingStart(
        network=pruned.start(),
        weight_masks=pruned.weight_masks,
        patients_seen=frozenset(config.patients_seen),
        hash=pruned.hash,
        note=pruned.note,
        sparsity=config.sparsity,
        control=config.control,
    )


def _start_from_model(folder: Path, settings: RunSettings) -> TrainingStart:
    """Read a model; refuse other networks or preprocessing, and pruned ones, whose zeros would be lost."""
    model = load_model(folder, torch.device("cpu"))
    config = model.config
    if config.network != settings.network or config.preprocessing != settings.preprocessing:
        wrong = (
            f"was made with --preset {config.preset} and its settings"
            if config.preset
            else "is another network"
        )
        raise ConfigError(f"--start {folder}", wrong, "train with the same --preset, --config and --set")
    if config.sparsity:
        raise ConfigError(f"--start {folder}", "is pruned, and would not stay so", "take one that is not")
    seen = None if config.patients_seen is None else frozenset(config.patients_seen)
    origin = f"model {model.hash}" + (f" (preset {config.preset})" if config.preset else "")
    return TrainingStart(
        model.network,
        patients_seen=seen,
        scans_seen=frozenset(config.scans_seen),
        hash=model.hash,
        note=f"Training began with {origin}.",
    )
