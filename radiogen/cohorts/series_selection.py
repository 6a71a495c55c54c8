"""Say which series of an index make a cohort, and which of them to have."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from radiogen.cohorts.index import SeriesRow, licences_of, of_patients, patients_of
from radiogen.errors import ConfigError, TableError
from radiogen.resources import CohortCard, SeriesRule, licence_terms


@dataclass(frozen=True)
class CohortSeries:
    """The series of a cohort by the part they play; what is neither CT nor outline is left out."""

    ct: tuple[SeriesRow, ...]
    outlines: tuple[SeriesRow, ...]
    automatic: tuple[SeriesRow, ...]
    to_fetch: tuple[SeriesRow, ...]  # what a download brings: CTs and outlines, by the rules of the card

    @property
    def patients(self) -> list[str]:
        """All patients with a CT."""
        return patients_of(self.ct)


@dataclass(frozen=True)
class SeriesWanted:
    """Which series to have: of these patients, only of so many, only with an outline."""

    patients: tuple[str, ...] = ()
    limit: int | None = None
    only_with_outline: bool = False


def cohort_series(rows: Sequence[SeriesRow], card: CohortCard) -> CohortSeries:
    """Sort the rows of a collection by the rules of its card.

    Raises:
        ConfigError: The card has no rules, or its collection is not in the rows.
        TableError: A PatientID is none of the cohort's pseudonyms, or a licence is not known.
    """
    if not card.series or not card.source.idc:
        how = card.source.how or card.source.page or "see radiogen cohort show"
        raise ConfigError(f"cohort {card.name}", "is not in the Imaging Data Commons", how)
    mine = [row for row in rows if row.collection == card.source.idc]
    for row in mine:
        if not card.names_pseudonym(row.patient):
            raise TableError("index", f"{row.patient!r} is no patient of {card.name}", "give another index")
    played = [(row, _part(row, card)) for row in mine]
    parts = {
        name: tuple(row for row, rule in played if rule is not None and rule.part == name)
        for name in ("ct", "outline", "automatic")
    }
    fetch = tuple(row for row, rule in played if rule is not None and rule.fetch)
    for licence in licences_of(fetch):
        licence_terms(licence)
    return CohortSeries(parts["ct"], parts["outline"], parts["automatic"], fetch)


def _part(row: SeriesRow, card: CohortCard) -> SeriesRule | None:
    for rule in card.series:
        if row.modality == rule.modality and row.analysis == rule.analysis:
            return rule
    return None


def wanted_series(series: CohortSeries, wanted: SeriesWanted, name: str) -> list[SeriesRow]:
    """The series to fetch, by patient.

    With `only_with_outline` the CTs of a patient are those of the studies in which there is an outline; the
    index does not say which one was drawn on.

    Raises:
        ConfigError: A patient is not in the cohort, or nothing is left.
    """
    known = set(series.patients)
    for patient in wanted.patients:
        if patient not in known:
            raise ConfigError(f"--patients {patient}", f"is not in {name}", "see the index for its ids")
    rows: Sequence[SeriesRow] = series.to_fetch
    if wanted.only_with_outline:
        studies = {row.study for row in series.outlines}
        rows = [row for row in rows if row.study in studies]
    if wanted.patients:
        rows = of_patients(rows, set(wanted.patients))
    rows = sorted(rows, key=lambda row: (row.patient, row.study, row.modality, row.uid))
    if wanted.limit is not None:
        rows = of_patients(rows, set(patients_of(rows)[: wanted.limit]))
    if not rows:
        raise ConfigError(f"cohort {name}", "has no series as asked for", "ask for more")
    return list(rows)


def chosen_series(
    series: CohortSeries, uids: Collection[str], uuids: Collection[str]
) -> tuple[list[SeriesRow], int]:
    """The series that a manifest names, of any part, and how many of its names are not among them."""
    rows = [*series.ct, *series.outlines, *series.automatic]
    found = [row for row in rows if row.uid in uids or row.uuid in uuids]
    return found, len(uids) + len(uuids) - len(found)
