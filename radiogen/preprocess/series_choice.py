"""Of several CT series of a patient choose one, and the outline that belongs to it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from radiogen.errors import OutlineError, RadiogenError, SeriesError
from radiogen.io.dicom_facts import OutlineFile, SliceFile
from radiogen.io.dicom_files import DicomTree
from radiogen.io.dicom_volumes import Series, group_series
from radiogen.resources import OutlineKind

DEFAULT_KINDS: tuple[OutlineKind, ...] = ("rtstruct", "seg", "lidc-xml")


@dataclass(frozen=True)
class Patient:
    """All CT series of one patient, or the reason why they cannot be told from another's."""

    name: str
    series: tuple[Series, ...]
    problem: RadiogenError | None = None

    @property
    def uid(self) -> str:
        """The UID of the largest series."""
        return self.series[0].uid

    @property
    def folder(self) -> Path:
        return self.series[0].folder


@dataclass(frozen=True)
class SeriesChoice:
    """The series that was taken, its outline if one is known, and why."""

    series: Series
    outline: OutlineFile | None
    decisions: tuple[str, ...]


def gather_patients(tree: DicomTree) -> list[Patient]:
    """CT slices by patient. Patients who share a folder or a series are one entry with a problem.

    Slices without PatientID go by their study.
    """
    together = _Groups()
    for item in tree.slices:
        together.join(("patient", _name(item)), ("folder", str(item.path.parent)))
        together.join(("patient", _name(item)), ("series", item.series_uid))
    groups: dict[object, list[SliceFile]] = defaultdict(list)
    for item in tree.slices:
        groups[together.root(("patient", _name(item)))].append(item)
    return [_patient(slices, tree) for slices in groups.values()]


def _name(item: SliceFile) -> str:
    return item.patient or item.study_uid


def _patient(slices: list[SliceFile], tree: DicomTree) -> Patient:
    series = tuple(group_series(slices))
    by_folder: dict[Path, dict[str, SliceFile]] = defaultdict(dict)
    for item in slices:
        by_folder[item.path.parent].setdefault(_name(item), item)
    problem: RadiogenError | None = None
    for folder, names in by_folder.items():
        if len(names) > 1:
            one, other, *_ = (item.path.name for item in names.values())
            problem = SeriesError(
                folder,
                f"holds slices of {len(names)} patients, such as {one} and {other}",
                "separate them, one folder a patient",
            )
    if problem is None and len({_name(item) for item in slices}) > 1:
        problem = SeriesError(
            series[0].folder, "holds one series of several patients", "separate them, one folder a patient"
        )
    for path, reason in tree.damaged.items():
        if problem is None and path.parent in by_folder:
            problem = SeriesError(path, reason, "copy the file again, or leave it out")
    return Patient(_name(slices[0]), series, problem)


class _Groups:
    """Things that belong together, directly or through others."""

    def __init__(self) -> None:
        self._parent: dict[object, object] = {}

    def root(self, thing: object) -> object:
        while (above := self._parent.setdefault(thing, thing)) != thing:
            thing = above
        return thing

    def join(self, one: object, other: object) -> None:
        self._parent[self.root(one)] = self.root(other)


def choose_series(
    patient: Patient, outlines: Sequence[OutlineFile], kinds: Sequence[OutlineKind] = ()
) -> SeriesChoice:
    """Take the series that an outline refers to, else the one with most axial slices.

    Args:
        patient: Its series.
        outlines: Candidates, of this patient and of others; a mask file goes with any series.
        kinds: Kinds of outlines in the order of preference.

    Raises:
        OutlineError: Several outlines belong to the series equally well.
    """
    order: list[str] = list(kinds or DEFAULT_KINDS)
    order += [kind for kind in ("mask", *DEFAULT_KINDS) if kind not in order]
    ranked = sorted(patient.series, key=_preference)
    best = max((_match(o, one, patient) for o in outlines for one in ranked), default=0)
    said: list[str] = []
    series = ranked[0]
    if best:
        series = next(one for one in ranked if any(_match(o, one, patient) == best for o in outlines))
    if len(ranked) > 1:
        why = "the outline refers to it" if best == 3 else "it has the most axial slices"
        said.append(f"of {len(ranked)} CT series the one with {len(series.slices)} files taken, {why}")
    mine = [o for o in outlines if best and _match(o, series, patient) == best]
    if not mine:
        return SeriesChoice(series, None, (*said, "no outline was found"))
    drawn = [o for o in mine if not o.is_automatic] or mine
    if len(drawn) < len(mine):
        said.append(f"{len(mine) - len(drawn)} automatic outlines left out")
    first = min(drawn, key=lambda o: order.index(o.kind)).kind
    chosen = [o for o in drawn if o.kind == first]
    if len(drawn) > len(chosen):
        said.append(f"{first} taken, {len(drawn) - len(chosen)} outlines of other kinds left out")
    if len(chosen) > 1:
        names = ", ".join(o.path.name for o in chosen[:5])
        raise OutlineError(
            series.folder, f"has {len(chosen)} outlines: {names}", "choose one with --outline FILE"
        )
    if best == 2:
        said.append("the outline names no series of the source but this one's frame of reference")
    if best == 1 and chosen[0].kind != "mask":
        said.append("the outline does not say which CT it belongs to, only the patient")
    return SeriesChoice(series, chosen[0], tuple(said))


def _preference(series: Series) -> tuple[bool, bool, int, str]:
    is_projection = bool({"MIP", "MINIP", "MPR", "PROJECTION IMAGE"} & set(series.slices[0].image_type))
    return (not series.is_axial, is_projection, -len(series.slices), series.uid)


def _match(outline: OutlineFile, series: Series, patient: Patient) -> int:
    """3: names the series; 2: shares its frame of reference; 1: names the patient alone; 0: not his."""
    if outline.kind == "mask":
        return 1
    if series.uid in outline.series_uids:
        return 3
    is_his = outline.patient in ("", patient.name)
    if any(one.uid in outline.series_uids for one in patient.series) or not is_his:
        return 0
    if outline.frame_uids & series.frame_uids:
        return 2
    says_nothing = not outline.series_uids and not outline.frame_uids
    return 1 if says_nothing and outline.patient == patient.name else 0
