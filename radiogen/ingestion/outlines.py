"""Turn any outline file into lesion labels on the grid of its CT, and record which part of it was taken."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.ingestion.outline_choice import LARGEST, OutlineChoice, choose_named, choose_segments
from radiogen.io.contours import CtReference, check_frame, fill_contours
from radiogen.io.dicom.lidc import NoduleReading, find_nodules, read_lidc_xml
from radiogen.io.dicom.rtstruct import contours_of, read_rtstruct
from radiogen.io.dicom.seg import EmptySegmentError, SegFile, Segment, SegmentMask, read_seg, segment_mask
from radiogen.io.masks import mask_on_grid
from radiogen.io.nifti import read_mask
from radiogen.io.polygons import BoolArray
from radiogen.measures.lesions import MOST_LESIONS, split_lesions
from radiogen.volume import array_of, volume_like, voxel_ml


@dataclass(frozen=True)
class StructureMask:
    """One structure on the grid of the CT, shape (z, y, x)."""

    name: str
    inside: BoolArray


@dataclass(frozen=True)
class LesionLabels:
    """Lesions on the grid of a CT.

    Attributes:
        labels: uint8, 1..n by falling size.
        decisions: What was decided, in sentences.
        details: For case.json: the names of structures by lesion; of LIDC the readings by lesion, each with
            reader, volume and nine ratings, and the nodules under 3 mm.
    """

    labels: sitk.Image
    decisions: tuple[str, ...]
    details: Mapping[str, Any] = field(default_factory=dict)


def read_lesions(
    path: Path, kind: str, ct: sitk.Image, choice: OutlineChoice, reference: CtReference | None = None
) -> LesionLabels:
    """Read an outline and bring it onto the grid of a CT.

    Args:
        path: The outline file.
        kind: rtstruct, seg, lidc-xml or mask.
        ct: The grid.
        choice: Which part is the tumour.
        reference: What the outline may name of its CT; None where that was checked before.

    Raises:
        OutlineError: It cannot be read, names no tumour, is empty, or does not lie on the CT.
    """
    try:
        lesions = _read(path, kind, ct, choice, reference)
    except OutlineError as error:
        if not choice.known:
            raise
        wrong = f"{error.wrong}; known of this patient: {choice.known}"
        raise OutlineError(error.thing, wrong, error.hint) from error
    if choice.known:
        return replace(lesions, decisions=(*lesions.decisions, f"known of this patient: {choice.known}"))
    return lesions


def _read(
    path: Path, kind: str, ct: sitk.Image, choice: OutlineChoice, reference: CtReference | None
) -> LesionLabels:
    if kind == "rtstruct":
        return _rtstruct(path, ct, choice, reference)
    if kind == "seg":
        return _seg(path, ct, choice, reference)
    if kind == "lidc-xml":
        return _lidc(path, ct, choice, reference)
    return _mask_file(path, ct, choice)


def label_lesions(parts: Sequence[StructureMask], ct: sitk.Image, source: Path) -> LesionLabels:
    """Label the lesions of one or several structures; the details name the structures of each lesion.

    Structures that share voxels are one lesion; structures that only touch stay two. Within them every
    connected part is a lesion of its own (parts that touch by a corner are one).

    Raises:
        OutlineError: There are more lesions than a mask can hold.
    """
    groups, decisions = _overlapping(parts, ct)
    lesions: list[tuple[int, str, BoolArray, int]] = []  # voxels, name, labels of the group, label within
    for group in groups:
        inside = np.logical_or.reduce([part.inside for part in group])
        labels = array_of(split_lesions(volume_like(inside.astype(np.uint8), ct)))
        name = " + ".join(part.name for part in group)
        counts = np.bincount(labels.ravel())
        lesions += [(int(counts[label]), name, labels, label) for label in range(1, len(counts))]
    if len(lesions) > MOST_LESIONS:
        raise OutlineError(source, f"holds {len(lesions)} lesions, a mask {MOST_LESIONS}", "choose fewer")
    # By falling size, so that lesion 1 is the largest in every case, whatever the source called it.
    lesions.sort(key=lambda lesion: -lesion[0])
    details = {"names": [name for _, name, _, _ in lesions]}
    if len(groups) == 1:  # already numbered by size
        return LesionLabels(volume_like(lesions[0][2], ct), tuple(decisions), details)
    numbered = np.zeros(ct.GetSize()[::-1], dtype=np.uint8)
    for number, (_, _, labels, label) in enumerate(lesions, start=1):
        numbered[labels == label] = number
    return LesionLabels(volume_like(numbered, ct), tuple(decisions), details)


def _overlapping(
    parts: Sequence[StructureMask], ct: sitk.Image
) -> tuple[list[list[StructureMask]], list[str]]:
    groups: list[list[StructureMask]] = []
    decisions = []
    for part in parts:
        met = []
        for group in groups:
            for other in group:
                shared = int((part.inside & other.inside).sum())
                if shared:
                    ml = shared * voxel_ml(ct)
                    decisions.append(f"{other.name} and {part.name} share {ml:.3f} ml and are one lesion")
                    met.append(group)
        # Overlap is transitive: a structure that meets two groups makes them one lesion.
        joined = [one for group in groups if group in met for one in group] + [part]
        groups = [group for group in groups if group not in met] + [joined]
    return groups, decisions


def _rtstruct(
    path: Path, ct: sitk.Image, choice: OutlineChoice, reference: CtReference | None
) -> LesionLabels:
    rois = [roi for roi in read_rtstruct(path) if roi.drawn]
    if not rois:
        raise OutlineError(path, "holds no closed contours", "give an RTSTRUCT with a drawn tumour")
    names = [roi.name for roi in rois]
    taken, reason = choose_named(
        names, choice.roi, choice.rule.roi, f"{path}: ROI", "--roi PATTERN", by_keywords=True
    )
    decisions = [f"RTSTRUCT: {', '.join(names[i] for i in taken)} taken, {reason}"]
    parts = []
    for roi in (rois[i] for i in taken):
        drawn = contours_of(roi, path)
        if reference is not None:
            decisions += check_frame(roi.frame_uid, drawn.planes, ct, reference, path)
        filled = fill_contours(drawn.contours, ct, path)
        if not filled.inside.any():
            raise OutlineError(path, f"{roi.name} encloses no voxel centre of the CT", "draw it larger")
        ml = int(filled.inside.sum()) * voxel_ml(ct)
        decisions.append(
            f"RTSTRUCT: {roi.name}: {ml:.3f} ml in voxels, {filled.polygon_ml:.3f} ml in polygons"
        )
        decisions += [f"RTSTRUCT: {roi.name}: {line}" for line in filled.decisions]
        if roi.left_out:
            decisions.append(f"RTSTRUCT: {roi.name}: {roi.left_out} points or open lines left out")
        # Structures that only touch stay two lesions; they are joined only where they share voxels.
        parts.append(StructureMask(roi.name, filled.inside))
    return _add_decisions(label_lesions(parts, ct, path), decisions)


def _seg(path: Path, ct: sitk.Image, choice: OutlineChoice, reference: CtReference | None) -> LesionLabels:
    seg = read_seg(path)
    positions = reference.slice_positions if reference else {}
    if choice.segment == LARGEST:
        masks, reason = _largest(seg, ct, positions)
    else:
        taken, reason = choose_segments(seg.segments, choice, f"{path}: segment")
        chosen = [seg.segments[i] for i in taken]
        masks = [(one, segment_mask(seg, one.number, ct, positions)) for one in chosen]
    decisions = [f"SEG: segment {', '.join(_named(segment) for segment, _ in masks)} taken, {reason}"]
    parts = []
    for segment, mask in masks:
        decisions += mask.decisions
        if reference is not None:
            decisions += check_frame(seg.frame_uid, mask.planes, ct, reference, path)
        on_ct, grid_decisions = mask_on_grid(mask.mask, ct, path, is_dicom=True)
        decisions += grid_decisions
        parts.append(StructureMask(segment.label or str(segment.number), array_of(on_ct).astype(bool)))
    return _add_decisions(label_lesions(parts, ct, path), decisions)


def _add_decisions(lesions: LesionLabels, decisions: list[str]) -> LesionLabels:
    """Put decisions before those of the labelling, each once."""
    return replace(lesions, decisions=tuple(dict.fromkeys([*decisions, *lesions.decisions])))


def _named(segment: Segment) -> str:
    return f"{segment.number} {segment.label!r}"


def _largest(
    seg: SegFile, ct: sitk.Image, positions: Mapping[str, tuple[float, ...]]
) -> tuple[list[tuple[Segment, SegmentMask]], str]:
    found: list[tuple[float, Segment, SegmentMask]] = []
    for segment in seg.segments:
        try:
            mask = segment_mask(seg, segment.number, ct, positions)
        except EmptySegmentError:
            continue
        found.append((int(array_of(mask.mask).sum()) * voxel_ml(mask.mask), segment, mask))
    if not found:
        raise OutlineError(seg.path, "has only empty segments", "give another outline")
    _, segment, mask = max(found, key=lambda one: one[0])
    empty = len(seg.segments) - len(found)
    left = f", {empty} empty ones left out" if empty else ""
    return [(segment, mask)], f"the largest of {len(seg.segments)}{left}"


def _lidc(path: Path, ct: sitk.Image, choice: OutlineChoice, reference: CtReference | None) -> LesionLabels:
    # The XML names pixels of slices by z; a volume file may have been flipped or resampled since.
    if reference is not None and not reference.slice_positions:
        wrong = "counts pixels of DICOM slices, this CT is a volume file"
        raise OutlineError(path, wrong, "give the DICOM series it belongs to")
    annotated = find_nodules(read_lidc_xml(path), ct, choice.agreement, path)
    nodules = annotated.nodules
    if not nodules:
        raise OutlineError(path, "; ".join(annotated.decisions), "ask for less --agreement")
    if len(nodules) > MOST_LESIONS:
        wrong = f"holds {len(nodules)} nodules, a mask holds {MOST_LESIONS}"
        raise OutlineError(path, wrong, "ask for more --agreement")
    labels = np.zeros(ct.GetSize()[::-1], dtype=np.uint8)
    for label, nodule in enumerate(nodules, start=1):
        labels.ravel()[nodule.voxels] = label
    details = {
        "readings": [[_reading(one) for one in nodule.readings] for nodule in nodules],
        "small_nodules": [asdict(small) for small in annotated.small],
    }
    return LesionLabels(volume_like(labels, ct), annotated.decisions, details)


def _reading(one: NoduleReading) -> dict[str, Any]:
    return {"reader": one.reader, "nodule": one.nodule, "volume_ml": round(one.volume_ml, 4), **one.ratings}


def _mask_file(path: Path, ct: sitk.Image, choice: OutlineChoice) -> LesionLabels:
    mask = read_mask(path)
    decisions: list[str] = []
    if choice.segment is not None:
        label = _chosen_label(mask, choice.segment, path)
        mask = sitk.Cast(mask == label, sitk.sitkUInt8)
        reason = "the largest" if choice.segment == LARGEST else "as asked"
        decisions.append(f"mask: label {label} taken, {reason}")
    on_ct, grid_decisions = mask_on_grid(mask, ct, path)
    decisions += grid_decisions
    counts = np.bincount(array_of(on_ct).ravel(), minlength=256)
    labels = [label for label in range(1, 256) if counts[label]]
    # One label may mean all lesions, several labels number them: only one label is split into its parts.
    if len(labels) == 1:
        return LesionLabels(split_lesions(on_ct), tuple(decisions))
    decisions.append(f"mask: each of its {len(labels)} labels is one lesion")
    order = sorted(labels, key=lambda label: (-counts[label], label))
    renumber = np.zeros(256, dtype=np.uint8)
    renumber[order] = np.arange(1, len(order) + 1)
    return LesionLabels(volume_like(renumber[array_of(on_ct)], ct), tuple(decisions))


def _chosen_label(mask: sitk.Image, name: str, path: Path) -> int:
    counts = np.bincount(array_of(mask).ravel(), minlength=2)
    counts[0] = 0
    if name == LARGEST and counts.any():
        return int(np.argmax(counts))
    if name.isdecimal() and int(name) < len(counts) and counts[int(name)]:
        return int(name)
    there = ", ".join(map(str, np.flatnonzero(counts)[:20].tolist())) or "none"
    raise OutlineError(path, f"has no label {name!r}, there are {there}", "give a number or largest")
