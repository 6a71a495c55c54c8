"""Turn what was asked for, a cohort or a download list, into series of the index."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from radiogen.cohorts.idc_index import packaged_index
from radiogen.cohorts.series_lists import is_series_list, read_series_list
from radiogen.cohorts.index import SeriesRow, of_patients, patients_of, read_series_rows
from radiogen.cohorts.series_selection import SeriesWanted, chosen_series, cohort_series, wanted_series
from radiogen.errors import ConfigError, TableError
from radiogen.resources import CohortCard, cohort_card, cohort_names


@dataclass(frozen=True)
class Request:
    """The series that were asked for, the cohorts they are of, and how many names nobody knows."""

    cards: tuple[CohortCard, ...]
    rows: tuple[SeriesRow, ...]
    unknown: int = 0


def find_request(name: str, wanted: SeriesWanted, index: Path | None = None) -> Request:
    """The series of a cohort by the rules of its card, or those that a download list names.

    Args:
        name: Of a cohort, or path of a `.tcia`, `.s5cmd` or CSV list.
        wanted: Which of them.
        index: Rows of the index; else the one that is installed with idc-index.

    Raises:
        RadiogenError: Nothing is left, or a list, an index or a card does not fit.
    """
    if is_series_list(Path(name)):
        return _of_list(Path(name), wanted, index)
    card = cohort_card(name)
    if not card.source.idc:
        cohort_series([], card)  # says where else it is had
    series = cohort_series(read_series_rows(index or packaged_index(), card.source.idc), card)
    return Request((card,), tuple(wanted_series(series, wanted, card.name)))


def _of_list(path: Path, wanted: SeriesWanted, index: Path | None) -> Request:
    if wanted.only_with_outline:
        raise ConfigError("--only-with-outline", "does not go with a list", "name the cohort instead")
    asked = read_series_list(path)
    index = index or packaged_index()
    cards, rows = [], []
    for card in (cohort_card(name) for name in cohort_names()):
        if card.source.idc:
            mine = _of_cohort(index, card)
            found, _ = chosen_series(cohort_series(mine, card), asked.uids, asked.uuids) if mine else ([], 0)
            cards += [card] if found else []
            rows += found
    unknown = len(asked) - len(rows)
    if wanted.patients:
        rows = of_patients(rows, wanted.patients)
    if wanted.limit is not None:
        rows = of_patients(rows, patients_of(rows)[: wanted.limit])
    if not rows:
        raise TableError(path, "names no series of a known cohort", "see radiogen cohort list")
    return Request(tuple(cards), tuple(rows), unknown)


def _of_cohort(index: Path, card: CohortCard) -> Sequence[SeriesRow]:
    """The rows of one cohort; none where the index has none of it."""
    try:
        return read_series_rows(index, card.source.idc)
    except TableError as error:
        if error.wrong.startswith("has no series"):
            return []
        raise
