"""Read what is shipped beside the code: the cards of public cohorts, and folders of models.

A cohort is added by its card, `data_manifests/NAME.yaml`, whose keys are the fields of `CohortCard`.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, field_validator

from radiogen.config import Settings, check_settings, data_folder, read_yaml
from radiogen.errors import ConfigError

OutlineKind = Literal["rtstruct", "seg", "lidc-xml", "mask"]

# What a licence asks for or forbids, by its name; those of Creative Commons are read from their letters.
LICENCES = {
    "MIT": "keep its text with copies",
    "BSD-3-Clause": "keep its text with copies",
    "CC0": "nothing",
    "own": "yours to say: what the ethics board allowed",
}
CREATIVE_COMMONS = re.compile(r"CC BY(-NC)?(-SA|-ND)? [34]\.0")


def licence_terms(name: str) -> str:
    """Return what a licence asks for and forbids, in a few words.

    Raises:
        ConfigError: It is not one that is known.

    >>> licence_terms("CC BY-NC 3.0")
    'name the source; no commercial use'
    """
    if name in LICENCES:
        return LICENCES[name]
    found = CREATIVE_COMMONS.fullmatch(name)
    if found is None:
        known = ", ".join([*LICENCES, "CC BY 4.0", "CC BY-NC 3.0, ..."])
        raise ConfigError(f"licence {name!r}", "is not known", f"known are {known}")
    letters = {"-NC": "no commercial use", "-SA": "share alike", "-ND": "no changed copies"}
    return "; ".join(["name the source", *(letters[part] for part in found.groups() if part)])


class OutlineRule(Settings):
    """How the tumour is found among the outlines of a cohort.

    Attributes:
        kinds: Which kinds of outlines are read.
        roi: Pattern of the tumour's ROI in an RTSTRUCT.
        segment: Pattern of the tumour's segment in a SEG.
    """

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


class SeriesRule(Settings):
    """Which series of the Imaging Data Commons play a part in a cohort.

    Attributes:
        part: `ct`; `outline`, drawn or checked by people; or `automatic`, outlines that nobody drew.
        modality: As in DICOM.
        analysis: `analysis_result_id` of the series; empty for the collection's own.
        fetch: Whether a download brings them.
        what: Why not, or what they are.
    """

    part: Literal["ct", "outline", "automatic"]
    modality: str
    analysis: str = ""
    fetch: bool = True
    what: str = ""


class CohortSource(Settings):
    """Where a cohort comes from.

    Attributes:
        idc: `collection_id` in the Imaging Data Commons.
        tcia: Folder that the NBIA retriever makes for it.
        page: Address of its page.
        how: How to get it, or the part of it, that `radiogen cohort download` does not bring.
        folder: Where its scans lie, beside the card; for a cohort of one's own.
    """

    idc: str = ""
    tcia: str = ""
    page: str = ""
    how: str = ""
    folder: str = ""


class CohortCounts(Settings):
    """How large a cohort is: patients, series of each part, gigabytes of CTs and drawn outlines."""

    patients: int = 0  # in all
    with_outline: int = 0  # patients
    ct: int = 0  # series
    outlines: int = 0  # series
    automatic: int = 0  # series of outlines that nobody drew
    gigabytes: float = 0  # of CTs and drawn outlines


class ClinicalMapping(Settings):
    """How a foreign table is read: our column -> its header, and column by column its words -> ours."""

    columns: dict[str, str] = Field(default_factory=dict)  # our column: its header
    values: dict[str, dict[str, str]] = Field(default_factory=dict)  # our column: {its word: ours}


class ClinicalSource(ClinicalMapping):
    """Where clinical data and EGFR status come from, and how the table reads.

    Attributes:
        table: The file, beside the card; for a cohort of one's own.
        where: Where the table of a public cohort is had.
        egfr: What it says of EGFR.
    """

    table: str = ""
    where: str = ""
    egfr: str = ""

    @property
    def mapping(self) -> ClinicalMapping:
        """Columns and words of the table."""
        return ClinicalMapping(columns=self.columns, values=self.values)


class PublishedSplit(Settings):
    """How others split the patients: by part a pattern of PatientIDs, or what tells them apart."""

    name: str
    what: str
    parts: dict[str, str]


class SharedPatients(Settings):
    """Patients of a cohort who are patients of another public set too: id here -> id there."""

    cohort: str
    what: str
    pairs: dict[str, str] = Field(default_factory=dict)


class CohortCard(Settings):
    """A cohort: what it is, what it forbids, where it comes from, how patients and tumours are named.

    A public one is shipped; one of your own is the same YAML, written by hand or by `radiogen cohort init`.

    Attributes:
        name: Letters, digits, `_` and `-`; of your own card the file's name, if left out.
        title: In words.
        doi: Of the data.
        citation: As its authors ask for it.
        licence: Such as CC BY 3.0, or `own`.
        patient_id_pattern: What PatientIDs look like that are known to be pseudonyms.
        series: Which series of the Imaging Data Commons are CTs and outlines.
        bad_outlines: Outlines known to be wrong.
        splits: How others divided the patients.
        shared_patients: Which of its patients are in other public sets too, under other ids.
        notes: What else is known.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    title: str
    doi: str = ""
    citation: str = ""
    licence: str
    patient_id_pattern: str = ""  # empty: no PatientID is known to be a pseudonym
    source: CohortSource = CohortSource()
    counts: CohortCounts = CohortCounts()
    series: tuple[SeriesRule, ...] = ()
    outline: OutlineRule = OutlineRule()
    bad_outlines: tuple[BadOutlines, ...] = ()
    clinical: ClinicalSource = ClinicalSource()
    splits: tuple[PublishedSplit, ...] = ()
    shared_patients: tuple[SharedPatients, ...] = ()
    notes: tuple[str, ...] = ()
    _home: Path | None = PrivateAttr(default=None)

    @field_validator("patient_id_pattern")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        compile_pattern(value, "pattern")
        return value

    @field_validator("licence")
    @classmethod
    def _is_known(cls, value: str) -> str:
        licence_terms(value)
        return value

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return "no commercial use" in licence_terms(self.licence)

    @property
    def clinical_table(self) -> Path | None:
        """The clinical table beside the card, if it names one."""
        return self._home / self.clinical.table if self._home and self.clinical.table else None

    @property
    def source_folder(self) -> Path | None:
        """The folder of scans beside the card, if it names one."""
        return self._home / self.source.folder if self._home and self.source.folder else None

    def known_of(self, patient_id: str, kind: str) -> str:
        """Return what is known to be wrong with a patient's outlines of one kind; empty if nothing is."""
        return "; ".join(
            bad.what for bad in self.bad_outlines if bad.kind == kind and patient_id in bad.patients
        )

    def names_pseudonym(self, patient_id: str) -> bool:
        """Return whether a PatientID is one of this cohort's published pseudonyms."""
        return re.fullmatch(self.patient_id_pattern or r"(?!)", patient_id) is not None


def compile_pattern(pattern: str, source: str) -> re.Pattern[str]:
    """Compile a regular expression that ignores case.

    Raises:
        ConfigError: It is not one.
    """
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(
            f"{source} {pattern!r}", f"is not a regular expression: {error}", "write one, such as GTV.*"
        ) from error


def cohort_names() -> list[str]:
    """Return the names of the cohorts that have a card."""
    return sorted(path.stem for path in data_folder("data_manifests").glob("*.yaml"))


def cohort_card(name: str) -> CohortCard:
    """Read the card of a shipped cohort, by its name, or of one's own, by the path of its YAML file.

    Raises:
        ConfigError: There is none of that name, or it does not fit.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        card = check_settings(CohortCard, {"name": path.stem, **read_yaml(path)}, source=path.name)
        card._home = path.resolve().parent
        return card
    if name not in cohort_names():
        known = ", ".join(cohort_names())
        raise ConfigError(
            f"cohort {name!r}", "has no card", f"take one of {known}, or the path of your .yaml"
        )
    path = data_folder("data_manifests") / f"{name}.yaml"
    return check_settings(CohortCard, {"name": name, **read_yaml(path)}, source=path.name)
