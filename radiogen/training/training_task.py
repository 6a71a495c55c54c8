"""One training before it begins: what it starts from, learns from and holds out."""

from dataclasses import dataclass
from pathlib import Path

from radiogen.training.patches import check_cohorts
from radiogen.training.prepared import learnable
from radiogen.training.presets import RunSettings
from radiogen.training.options import (
    TrainOptions,
    check_options,
    check_step,
    choose_cases,
    fingerprint_of,
)
from radiogen.training.training_start import Start, find_start
from radiogen.errors import ConfigError
from radiogen.io.cases import Case, find_cases


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
