"""Tell whether two ids are of one patient: spelt otherwise, hashed by ingest, or shared by two cohorts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from radiogen.provenance import short_hash
from radiogen.resources import cohort_card, cohort_names

SIGNS = re.compile(r"[\s_.-]+")
# Of a second row of a patient: P-001b, P-001_2, P01again. Three digits are a number of their own (R01-001).
SUFFIX = re.compile(r"(?<=\d)(?:[\s_.-]*[a-z]{1,8}|[\s_.-]+\d{1,2})$", re.IGNORECASE)


def patients_in_common(ids: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Return which of some ids are patients of another list: id -> the other id of that patient.

    >>> patients_in_common(["lung_003", "p 1b", "P2"], ["R01-003", "P-1", "R02"])
    {'lung_003': 'R01-003', 'p 1b': 'P-1'}
    """
    seen = _Patients()
    for other in others:
        seen.add(other)
    found = {one: seen.find(one) for one in ids}
    return {one: other for one, other in found.items() if other is not None}


def find_known(
    patients: Iterable[str], scans: Mapping[str, Sequence[str]], seen: Sequence[str]
) -> dict[str, str]:
    """Return which patients are among the ids and hashes of scans of a model: id -> what it knows them by."""
    by_id = patients_in_common(patients, seen)
    hashes = set(seen)
    by_scan = {one: each for one, own in scans.items() for each in own if each in hashes}
    return {**by_scan, **by_id}


def name_pair(patient: str, other: str) -> str:
    """Return how a message calls a patient known under two ids, or by a scan.

    >>> name_pair("R01-003", "lung_003"), name_pair("R01-003", "R01-003")
    ('R01-003, there lung_003', 'R01-003')
    """
    return patient if patient == other else f"{patient}, there {other}"


def doubled_patients(ids: Iterable[str]) -> list[tuple[str, str]]:
    """Return the ids of one list that are one patient, as pairs (first, later)."""
    seen, pairs = _Patients(), []
    for later in ids:
        first = seen.find(later)
        if first is not None:
            pairs.append((first, later))
        seen.add(later)
    return pairs


class _Patients:
    """Ids by the spellings they are known under; the first of a patient stays."""

    def __init__(self) -> None:
        self._spelt: dict[str, str] = {}
        self._known: dict[str, str] = {}

    def add(self, patient: str) -> None:
        self._spelt.setdefault(spell_plainly(patient), patient)
        for name in known_as(patient):
            self._known.setdefault(name, patient)

    def find(self, patient: str) -> str | None:
        """Return the id that is this patient, known by the spelling of either; None if there is none."""
        own = self._known.get(spell_plainly(patient))
        return own or next((self._spelt[name] for name in known_as(patient) if name in self._spelt), None)


def spell_plainly(patient: str) -> str:
    """Return an id in lower case, without signs that only set letters apart from numbers.

    >>> spell_plainly("R01_001 "), spell_plainly("P 1"), spell_plainly("P-1")
    ('r01-001', 'p1', 'p1')
    """
    joined = SIGNS.sub("-", patient.strip().lower())
    return re.sub(r"(?<=[^\d-])-|-(?=[^\d-])|^-|-$", "", joined) or patient


@cache
def known_as(patient: str) -> tuple[str, ...]:
    """Return the spellings under which a patient may stand elsewhere, all plain.

    These are the id without a suffix, the ids in cohorts that share patients, and the hashes of all of them.
    """
    names = [patient, *shared_patients().get(spell_plainly(patient), ())]
    names += [SUFFIX.sub("", name.strip()) for name in names]
    names += [short_hash(name) for name in names]
    return tuple(dict.fromkeys(map(spell_plainly, names)))


@cache
def shared_patients() -> dict[str, tuple[str, ...]]:
    """Return the patients that the cards of public cohorts call one: plain id -> ids elsewhere."""
    shared: dict[str, tuple[str, ...]] = {}
    for name in cohort_names():
        for other in cohort_card(name).shared_patients:
            for one, two in other.pairs.items():
                for here, there in ((one, two), (two, one)):
                    here = spell_plainly(here)
                    shared[here] = (*shared.get(here, ()), there)
    return shared
