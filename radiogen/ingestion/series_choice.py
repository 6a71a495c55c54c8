"""Choose one of all CT series of a patient, and the outline that belongs to it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from radiogen.errors import OutlineError, RadiogenError, SeriesError
from radiogen.io.dicom.files import DicomTree
from radiogen.io.dicom.series import Series, group_series
from radiogen.io.dicom.slice_header import OutlineFile, SliceFile
from radiogen.resources import OutlineKind, compile_pattern

SeriesRule = Literal["most-slices", "thinnest", "thickest"]
DEFAULT_KINDS: tuple[OutlineKind, ...] = ("rtstruct", "seg", "lidc-xml")
REFERS = "the outline refers to another"
# Values of ImageType that scanners give to images computed from a volume.
PROJECTIONS = {"MIP", "MINIP", "MPR", "PROJECTION IMAGE"}
WHOLE = 0.5  # of the longest scan: so that five thin slices do not win against a whole chest


@dataclass(frozen=True)
class SeriesFilter:
    """Which series of a patient is wanted.

    Attributes:
        series: SeriesInstanceUID, with `#2` behind it for the second volume of that UID.
        rule: What decides among several; None lets an outline decide, and then the number of slices.
        kernel: Pattern found in the convolution kernel.
        contrast: Whether contrast medium was given.
    """

    series: str | None = None
    rule: SeriesRule | None = None
    kernel: str | None = None
    contrast: bool | None = None

    def select(self, series: Sequence[Series], where: Path) -> list[Series]:
        """Return the series that fit name, kernel and contrast.

        Raises:
            SeriesError: There is none.
        """
        selected = [one for one in series if self.series in (None, one.name, one.uid)]
        if not selected:
            raise SeriesError(
                where, f"holds {len(series)} CT series, none is {self.series}", "correct --series"
            )
        if self.kernel is not None:
            pattern = compile_pattern(self.kernel, "--kernel")
            there = sorted({one.slices[0].kernel or "none given" for one in selected})
            selected = [one for one in selected if pattern.search(one.slices[0].kernel)]
            if not selected:
                wrong = f"no kernel matches {self.kernel!r}, there are {', '.join(there)}"
                raise SeriesError(where, wrong, "correct --kernel")
        if self.contrast is not None:
            selected = [one for one in selected if one.slices[0].has_contrast == self.contrast]
            if not selected:
                word = "with" if self.contrast else "without"
                raise SeriesError(where, f"holds no CT {word} contrast medium", "leave out --contrast")
        return selected


@dataclass(frozen=True)
class _Rank:
    """The keys by which series are compared, in order; each with the reason to lose by it."""

    series: Series
    keys: tuple[tuple[float | str, str], ...]

    @property
    def order(self) -> tuple[float | str, ...]:
        return tuple(key for key, _ in self.keys)


def rank_series(series: Sequence[Series], rule: SeriesRule | None) -> list[tuple[Series, str]]:
    """Order series from the best to the last, each but the first with the reason why it is not taken."""
    longest = max(one.extent_mm for one in series)
    ranks = sorted((_rank(one, rule, longest) for one in series), key=lambda rank: rank.order)
    return [(rank.series, _behind(ranks[0], rank)) for rank in ranks]


def _rank(series: Series, rule: SeriesRule | None, longest: float) -> _Rank:
    first = series.slices[0]
    places = len(series.stack.places)
    by_thickness: tuple[tuple[float, str], ...] = ()
    if rule in ("thinnest", "thickest"):
        sign, word = (1, "thicker") if rule == "thinnest" else (-1, "thinner")
        by_thickness = (
            (series.extent_mm < WHOLE * longest, "it covers less than half of the longest"),
            (sign * series.thickness_mm, f"its slices are {word}"),
        )
    return _Rank(
        series,
        (
            (not series.is_axial, "it is not axial"),
            (bool(PROJECTIONS & set(first.image_type)), "it is a projection or reformat"),
            *by_thickness,
            # Places before files: a series that is there twice is not longer.
            (-places, "it has fewer slices"),
            (-len(series.slices), "it has fewer slices"),
            ("ORIGINAL" not in first.image_type, "it is derived, not original"),
            (series.uid, "it is as good and its UID comes later"),
            (series.part, "it is as good and comes later in its series"),
        ),
    )


def _behind(first: _Rank, other: _Rank) -> str:
    """Return the reason of the first key in which two series differ."""
    pairs = zip(first.keys, other.keys, strict=True)
    return next((reason for (one, _), (two, reason) in pairs if one != two), "")


def _reason_of_rule(rule: SeriesRule | None) -> str:
    return "it has the most axial slices" if rule in (None, "most-slices") else f"it is the {rule}"


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
    """The series that was taken, its outline if one is known, why, and why not the others."""

    series: Series
    outline: OutlineFile | None
    decisions: tuple[str, ...]
    passed_over: tuple[tuple[Series, str], ...] = ()


def gather_patients(tree: DicomTree) -> list[Patient]:
    """Group CT slices by patient; patients who share a series are one entry with a problem.

    Slices without PatientID go by their study.
    """
    together = _DisjointSets()
    for item in tree.slices:
        together.join(("patient", _name(item)), ("series", item.series_uid))
    groups: dict[object, list[SliceFile]] = defaultdict(list)
    for item in tree.slices:
        groups[together.root(("patient", _name(item)))].append(item)
    return [_patient(slices, tree) for slices in groups.values()]


def _name(item: SliceFile) -> str:
    return item.patient or item.study_uid


def _patient(slices: list[SliceFile], tree: DicomTree) -> Patient:
    series = tuple(group_series(slices))
    folders = {item.path.parent for item in slices}
    problem: RadiogenError | None = None
    if len({_name(item) for item in slices}) > 1:
        problem = SeriesError(
            series[0].folder, "holds one series of several patients", "separate them, one folder a patient"
        )
    for path, reason in tree.damaged.items():
        if problem is None and path.parent in folders:
            problem = SeriesError(path, reason, "copy the file again, or leave it out")
    return Patient(_name(slices[0]), series, problem)


class _DisjointSets:
    """Things that belong together, directly or through others (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[object, object] = {}

    def root(self, thing: object) -> object:
        above = self._parent.setdefault(thing, thing)
        while above != thing:
            thing, above = above, self._parent[above]
        return thing

    def join(self, one: object, other: object) -> None:
        self._parent[self.root(one)] = self.root(other)


def choose_series(
    patient: Patient,
    outlines: Sequence[OutlineFile],
    kinds: Sequence[OutlineKind] = (),
    series_filter: SeriesFilter | None = None,
) -> SeriesChoice:
    """Take the requested series, else that of an outline, else the one with most slices.

    How well an outline goes with a series counts from 0 to 3 (`_match`). The best match decides between
    series, unless a rule was given; of several series that match alike the ranking decides, and for volumes
    that share a UID the share of its images that the outline names.

    Args:
        patient: Its series.
        outlines: Candidates, of this patient and of others; a mask file goes with any series.
        kinds: Kinds of outlines in the order of preference.
        series_filter: Series, rule, kernel and contrast that were requested; a rule goes before an outline.

    Raises:
        SeriesError: No series fits the request.
        OutlineError: Several outlines belong to the series equally well.
    """
    series_filter = series_filter or SeriesFilter()
    selected = series_filter.select(patient.series, patient.folder)
    ranked = rank_series(selected, series_filter.rule)
    reason = _reason_of_rule(series_filter.rule)
    series = ranked[0][0]
    best = max((_match(o, one, patient) for o in outlines for one, _ in ranked), default=0)
    if best and series_filter.rule is None:
        series = max(
            (one for one, _ in ranked if any(_match(o, one, patient) == best for o in outlines)),
            key=lambda one: max(_share(o, one) for o in outlines),  # of equal ones max takes the first
        )
        if best == 3:
            reason = "the outline refers to it"
    passed_over = [(one, "it is not as asked for") for one in patient.series if one not in selected]
    passed_over += [(one, behind or REFERS) for one, behind in ranked if one is not series]
    decisions = _series_decisions(series, len(ranked), reason)
    best = max((_match(o, series, patient) for o in outlines), default=0)
    matching = [o for o in outlines if best and _match(o, series, patient) == best]
    outline, outline_decisions = _choose_outline(matching, kinds, series)
    decisions += outline_decisions
    if outline is not None and best == 2:
        decisions.append("the outline refers to another series of the same frame of reference")
    if outline is not None and best == 1 and outline.kind != "mask":
        decisions.append("the outline does not say which CT it belongs to, only the patient")
    return SeriesChoice(series, outline, tuple(decisions), tuple(passed_over))


def _series_decisions(series: Series, rivals: int, reason: str) -> list[str]:
    decisions = []
    if rivals > 1:
        decisions.append(f"of {rivals} CT series the one with {len(series.slices)} files taken, {reason}")
    if series.part:
        decisions.append(
            f"volume {series.part} of its SeriesInstanceUID, told apart by {series.told_apart_by}"
        )
    return decisions


def _choose_outline(
    matching: Sequence[OutlineFile], kinds: Sequence[OutlineKind], series: Series
) -> tuple[OutlineFile | None, list[str]]:
    if not matching:
        return None, ["no outline was found"]
    order: list[str] = list(kinds or DEFAULT_KINDS)
    order += [kind for kind in ("mask", *DEFAULT_KINDS) if kind not in order]
    decisions = []
    # An outline by a person goes before that of a program, whatever its format.
    drawn = [o for o in matching if not o.is_automatic] or list(matching)
    if len(drawn) < len(matching):
        decisions.append(f"{len(matching) - len(drawn)} automatic outlines left out")
    first = min(drawn, key=lambda o: order.index(o.kind)).kind
    chosen = [o for o in drawn if o.kind == first]
    if len(drawn) > len(chosen):
        decisions.append(f"{first} taken, {len(drawn) - len(chosen)} outlines of other kinds left out")
    if len(chosen) > 1:
        names = ", ".join(o.path.name for o in chosen[:5])
        raise OutlineError(
            series.folder, f"has {len(chosen)} outlines: {names}", "choose one with --outline FILE"
        )
    return chosen[0], decisions


def _match(outline: OutlineFile, series: Series, patient: Patient) -> int:
    """Rate a match: 3 names the series, 2 shares its frame of reference, 1 names only the patient, 0 none."""
    if outline.kind == "mask":
        return 1
    if series.uid in outline.series_uids:
        return 3
    names_patient = outline.patient in ("", patient.name)
    if not names_patient:
        return 0
    if outline.frame_uids & series.frame_of_reference_uids:
        return 2
    names_no_ct = not outline.series_uids and not outline.frame_uids
    return 1 if names_no_ct and outline.patient == patient.name else 0


def belongs_to_any(outline: OutlineFile, patients: Sequence[Patient]) -> bool:
    """Return whether an outline goes with a CT of these patients."""
    return any(_match(outline, one, patient) for patient in patients for one in patient.series)


def _share(outline: OutlineFile, series: Series) -> float:
    """Return the share of a volume's images that the outline refers to, for volumes that share a UID."""
    # Only for volumes that share a UID: elsewhere the UID has decided already.
    named = sum(item.sop_uid in outline.sop_uids for item in series.slices) if series.part else 0
    return named / len(series.slices)
