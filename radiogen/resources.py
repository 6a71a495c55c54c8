"""What is shipped beside the code: cards of public cohorts and folders of models."""

import re
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from radiogen.config import Settings, check_settings, read_yaml
from radiogen.errors import ConfigError

OutlineKind = Literal["rtstruct", "seg", "lidc-xml", "mask"]


class OutlineRule(Settings):
    """How the tumour is found among the outlines of a cohort."""

    kinds: tuple[OutlineKind, ...] = ()
    roi: str | None = None
    segment: str | None = None

    @field_validator("roi", "segment")
    @classmethod
    def _is_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            compile_pattern(value, "pattern")
        return value


class BadOutlines(Settings):
    """Outlines of a cohort that are known to be wrong: their kind, whose they are, and what is wrong."""

    kind: OutlineKind
    patients: tuple[str, ...]
    what: str


class CohortCard(Settings):
    """A public cohort: where it comes from, under which licence, how its patients and tumours are named."""

    name: str
    title: str
    doi: str = ""
    citation: str = ""
    licence: str
    non_commercial: bool = False
    patient_id_pattern: str
    outline: OutlineRule = OutlineRule()
    bad_outlines: tuple[BadOutlines, ...] = ()
    notes: tuple[str, ...] = ()

    @field_validator("patient_id_pattern")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        compile_pattern(value, "pattern")
        return value

    def known_of(self, patient_id: str, kind: str) -> str:
        """What is known to be wrong with a patient's outlines of one kind; empty if nothing is."""
        return "; ".join(
            bad.what for bad in self.bad_outlines if bad.kind == kind and patient_id in bad.patients
        )

    def names_pseudonym(self, patient_id: str) -> bool:
        """Whether a PatientID is one of this cohort's published pseudonyms."""
        return re.fullmatch(self.patient_id_pattern, patient_id) is not None


def compile_pattern(pattern: str, what: str) -> re.Pattern[str]:
    """A regular expression that ignores case.

    Raises:
        ConfigError: It is not one.
    """
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(
            f"{what} {pattern!r}", f"is not a regular expression: {error}", "write one, such as GTV.*"
        ) from error


def data_folder(name: str) -> Path:
    """The folder `data_manifests` or `models`: inside the installed package, or beside it in a checkout.

    Raises:
        ConfigError: It is in neither place.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise ConfigError(f"folder {name}", "is not part of this installation", "install radiogen again")


def cohort_names() -> list[str]:
    """Names of the cohorts that have a card."""
    return sorted(path.stem for path in data_folder("data_manifests").glob("*.yaml"))


def cohort_card(name: str) -> CohortCard:
    """The card of a cohort.

    Raises:
        ConfigError: There is none of that name, or it does not fit.
    """
    if name not in cohort_names():
        raise ConfigError(f"cohort {name!r}", "has no card", f"take one of {', '.join(cohort_names())}")
    path = data_folder("data_manifests") / f"{name}.yaml"
    return check_settings(CohortCard, {"name": name, **read_yaml(path)}, what=path.name)
