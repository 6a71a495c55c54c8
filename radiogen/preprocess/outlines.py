"""Turn any outline file into lesion labels on the grid of its CT, and say which part of it was taken."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydantic import Field

from radiogen.config import Settings
from radiogen.errors import OutlineError
from radiogen.io.contours import lay_contours
from radiogen.io.dicom_seg import Segment, read_seg, segment_mask
from radiogen.io.lidc_xml import find_nodules, read_lidc_xml
from radiogen.io.mask_grid import lay_mask
from radiogen.io.nifti import read_mask
from radiogen.io.rtstruct import read_rtstruct
from radiogen.measures.lesions import split_lesions
from radiogen.resources import OutlineRule, compile_pattern
from radiogen.volume import array_of, volume_like

LOOKS_LIKE_TUMOUR = re.compile(r"gtv|tumou?r|lesion|neoplasm|nodule", re.IGNORECASE)
LOOKS_LIKE_NODE = re.compile(r"(?<![a-z])ln(?![a-z])|lymph|nodal|(?<![a-z])nodes?(?![a-z])", re.IGNORECASE)


class OutlineChoice(Settings):
    """Which part of an outline is the tumour.

    Attributes:
        roi: Pattern that the whole name of an RTSTRUCT's ROI must match.
        segment: Name pattern or number of a SEG's segment, `largest`, or the label of a mask file.
        agreement: Share of the LIDC readers who must have drawn a voxel.
        rule: What the cohort's card says, used where the two above are not given.
    """

    roi: str | None = None
    segment: str | None = None
    agreement: float = Field(default=0.5, gt=0, le=1)
    rule: OutlineRule = OutlineRule()


@dataclass(frozen=True)
class LesionLabels:
    """Lesions on the grid of a CT: labels 1..n by falling size, what was decided, what readers thought."""

    labels: sitk.Image
    decisions: tuple[str, ...]
    malignancy: tuple[tuple[int, ...], ...] = ()  # LIDC only: one tuple a lesion, one rating a reader


def read_lesions(
    path: Path,
    kind: str,
    ct: sitk.Image,
    choice: OutlineChoice,
    slice_positions: Mapping[str, tuple[float, ...]] | None = None,
) -> LesionLabels:
    """Read an outline and lay it on a CT.

    Args:
        path: The outline file.
        kind: rtstruct, seg, lidc-xml or mask.
        ct: The grid.
        choice: Which part is the tumour.
        slice_positions: Position in LPS millimetres by SOPInstanceUID, for SEG frames without their own.

    Raises:
        OutlineError: It cannot be read, names no tumour, is empty, or does not lie on the CT.
    """
    if kind == "lidc-xml":
        return _lidc(path, ct, choice)
    if kind == "mask":
        return _mask_file(path, ct, choice)
    if kind == "rtstruct":
        mask, said = _rtstruct(path, ct, choice)
    else:
        mask, said = _seg(path, ct, choice, slice_positions or {})
    return LesionLabels(split_lesions(mask), tuple(said))


def _rtstruct(path: Path, ct: sitk.Image, choice: OutlineChoice) -> tuple[sitk.Image, list[str]]:
    rois = [roi for roi in read_rtstruct(path) if roi.contours]
    if not rois:
        raise OutlineError(path, "holds no closed contours", "give an RTSTRUCT with a drawn tumour")
    taken, why = choose_named(
        [roi.name for roi in rois], choice.roi, choice.rule.roi, f"{path}: ROI", "--roi PATTERN"
    )
    said = [f"RTSTRUCT: {', '.join(rois[i].name for i in taken)} taken, {why}"]
    inside = np.zeros(ct.GetSize()[::-1], dtype=bool)
    for i in taken:
        inside |= lay_contours(rois[i].contours, ct, path)
        if rois[i].left_out:
            said.append(f"RTSTRUCT: {rois[i].left_out} points or open lines of {rois[i].name} left out")
    if not inside.any():
        raise OutlineError(path, "encloses no voxel of the CT", "draw it larger, or on this CT")
    drawn = np.flatnonzero(inside.any(axis=(1, 2)))
    if gaps := int(drawn[-1] - drawn[0] + 1 - len(drawn)):
        said.append(f"RTSTRUCT: {gaps} slices between the contours have none and stay empty")
    return volume_like(inside.astype(np.uint8), ct), said


def _seg(
    path: Path, ct: sitk.Image, choice: OutlineChoice, slice_positions: Mapping[str, tuple[float, ...]]
) -> tuple[sitk.Image, list[str]]:
    seg = read_seg(path)
    said = list(seg.decisions)

    def laid(segment: Segment) -> sitk.Image:
        mask, how = lay_mask(segment_mask(seg, segment.number, ct, slice_positions), ct, path)
        said.extend(line for line in how if line not in said)
        return mask

    if choice.segment == "largest":
        masks = [(segment, laid(segment)) for segment in seg.segments]
        segment, mask = max(masks, key=lambda pair: int(array_of(pair[1]).sum()))
        return mask, [*said, f"SEG: segment {segment.label!r} taken, the largest of {len(masks)}"]
    taken, why = _choose_segments(seg.segments, choice, path)
    names = ", ".join(f"{seg.segments[i].number} {seg.segments[i].label!r}" for i in taken)
    mask = laid(seg.segments[taken[0]])
    for i in taken[1:]:
        mask = sitk.Or(mask, laid(seg.segments[i]))
    return mask, [*said, f"SEG: segment {names} taken, {why}"]


def _choose_segments(segments: Sequence[Segment], choice: OutlineChoice, path: Path) -> tuple[list[int], str]:
    if choice.segment is not None and choice.segment.isdecimal():
        numbers = [segment.number for segment in segments]
        if int(choice.segment) not in numbers:
            raise OutlineError(
                path, f"has no segment {choice.segment}", f"there are {', '.join(map(str, numbers))}"
            )
        return [numbers.index(int(choice.segment))], "as asked"
    labels = [segment.label for segment in segments]
    return choose_named(
        labels,
        choice.segment or choice.roi,
        choice.rule.segment,
        f"{path}: segment",
        "--segment NAME, NUMBER or largest",
    )


def choose_named(
    names: Sequence[str], asked: str | None, rule: str | None, what: str, way_out: str
) -> tuple[list[int], str]:
    """Choose tumours by name: as asked, by the cohort's rule, the only one, or what looks like a tumour.

    Returns:
        Indices into `names`, and the reason in words.

    Raises:
        OutlineError: None is chosen; the names are listed.

    >>> choose_named(["Heart", "GTV-1", "LN_tumor"], None, None, "plan.dcm: ROI", "--roi")
    ([1], 'its name looks like a tumour')
    """
    listed = ", ".join(repr(name) for name in names[:20])
    for pattern, why in ((asked, "as asked"), (rule, "by the rule of the cohort")):
        if pattern is None:
            continue
        expression = compile_pattern(pattern, "pattern")
        matching = [i for i, name in enumerate(names) if expression.fullmatch(name)]
        if matching:
            return matching, why
        if pattern is asked:
            raise OutlineError(what, f"none matches {pattern!r}, there are {listed}", f"correct {way_out}")
    if len(names) == 1:
        return [0], "the only one"
    likely = [
        i
        for i, name in enumerate(names)
        if LOOKS_LIKE_TUMOUR.search(name) and not LOOKS_LIKE_NODE.search(name)
    ]
    if likely:
        return likely, "its name looks like a tumour"
    raise OutlineError(what, f"which one is the tumour is not clear from {listed}", f"choose with {way_out}")


def _lidc(path: Path, ct: sitk.Image, choice: OutlineChoice) -> LesionLabels:
    nodules, said = find_nodules(read_lidc_xml(path), ct, choice.agreement, path)
    if not nodules:
        raise OutlineError(path, "; ".join(said), "ask for less agreement, or give the whole series")
    if len(nodules) > 255:
        raise OutlineError(path, f"holds {len(nodules)} nodules, a mask holds 255", "ask for more agreement")
    labels = np.zeros(ct.GetSize()[::-1], dtype=np.uint8)
    for label, nodule in reversed(list(enumerate(nodules, start=1))):
        labels.ravel()[nodule.voxels] = label
    ratings = tuple(nodule.malignancy for nodule in nodules)
    return LesionLabels(volume_like(labels, ct), tuple(said), ratings)


def _mask_file(path: Path, ct: sitk.Image, choice: OutlineChoice) -> LesionLabels:
    mask = read_mask(path)
    said: list[str] = []
    if choice.segment is not None and choice.segment.isdecimal():
        mask = sitk.Cast(mask == int(choice.segment), sitk.sitkUInt8)
        said.append(f"mask: label {choice.segment} taken, as asked")
    laid, how = lay_mask(mask, ct, path)
    counts = np.bincount(array_of(laid).ravel(), minlength=256)
    found = [label for label in range(1, 256) if counts[label]]
    said += how
    if len(found) == 1:
        return LesionLabels(split_lesions(laid), tuple(said))
    said.append(f"mask: each of its {len(found)} labels is one lesion")
    order = sorted(found, key=lambda label: (-counts[label], label))
    renumber = np.zeros(256, dtype=np.uint8)
    renumber[order] = np.arange(1, len(order) + 1)
    return LesionLabels(volume_like(renumber[array_of(laid)], ct), tuple(said))
