"""Read a mask of any format as a label map with names: all structures of a file, on the grid of a CT.

SEG and RTSTRUCT have no grid of their own that could be trusted (a SEG leaves out empty frames, contours have
none), so they are placed on the CT.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from radiogen.errors import OutlineError, SeriesError, VolumeError
from radiogen.ingestion.outline_choice import OutlineChoice, choose_named, choose_segments
from radiogen.ingestion.series_choice import Patient, gather_patients
from radiogen.io.cases import is_case_source
from radiogen.io.contours import CtReference, check_frame, fill_contours
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.referenced_ct import one_line
from radiogen.io.dicom.rtstruct import contours_of, read_rtstruct
from radiogen.io.dicom.seg import EmptySegmentError, read_seg, segment_mask
from radiogen.io.dicom.series import Series, SeriesRules, check_series
from radiogen.io.dicom.slice_header import OutlineFile
from radiogen.io.dicom.slice_order import even_grid
from radiogen.io.masks import mask_on_grid
from radiogen.io.nifti import NIFTI_ENDINGS, is_volume_file, read_grid, read_mask, read_volume
from radiogen.io.polygons import BoolArray
from radiogen.measures.lesions import MOST_LESIONS
from radiogen.volume import array_of, volume_like


@dataclass(frozen=True)
class ReferenceGrid:
    """A CT without its voxels.

    Attributes:
        grid: Size and place.
        names: What a DICOM outline may name of it; empty for a volume file or a case.
        patient: Whose it is, where it is DICOM.
        series: The same.
    """

    grid: sitk.Image
    names: CtReference = field(default_factory=CtReference)
    patient: Patient | None = None
    series: Series | None = None


def read_reference(path: Path, outline: OutlineFile | None, series_uid: str | None = None) -> ReferenceGrid:
    """Return the grid of a CT; of DICOM no pixel is read.

    Args:
        path: A case folder, a volume file, or a DICOM folder.
        outline: Its outline; of several series, the one it names is taken.
        series_uid: The requested series.

    Raises:
        VolumeError: The file cannot be read.
        SeriesError: The folder holds no CT, several that could be meant, or one that is no upright even grid.
    """
    if path.is_dir() and is_case_source(path):
        if not (path / "ct.nii.gz").is_file():
            raise SeriesError(path, "holds many cases", "give the folder of one case")
        return ReferenceGrid(read_grid(path / "ct.nii.gz"))
    if path.is_file() and is_volume_file(path):
        is_nifti = path.name.lower().endswith(NIFTI_ENDINGS)
        return ReferenceGrid(read_grid(path) if is_nifti else read_volume(path))
    if not path.is_dir():
        raise VolumeError(
            path, "is no CT", "give a case folder, a DICOM folder, or a NIfTI, NRRD or MHA file"
        )
    patient, series = _choose(path, outline, series_uid)
    stack = check_series(series, SeriesRules())
    even = even_grid(stack)
    grid = sitk.Image(even.size, sitk.sitkUInt8)
    grid.SetOrigin(even.origin_mm)
    grid.SetSpacing(even.spacing_mm)
    grid.SetDirection(even.direction)
    # The first file of a place stands for it: doubled files hold the same voxels.
    positions = {place[0].sop_uid: place[0].position_mm for place in stack.places}
    return ReferenceGrid(grid, CtReference(series.frame_of_reference_uids, positions), patient, series)


def _choose(path: Path, outline: OutlineFile | None, series_uid: str | None) -> tuple[Patient, Series]:
    found = [(patient, one) for patient in gather_patients(find_dicom(path)) for one in patient.series]
    if series_uid is not None:
        matching = [pair for pair in found if series_uid in (pair[1].uid, pair[1].name)]
    elif outline is not None and len(found) > 1:
        matching = [pair for pair in found if pair[1].uid in outline.series_uids]
    else:
        matching = found
    if len(matching) != 1:
        wrong = f"holds {len(found)} CT series, {len(matching)} of them could be meant"
        raise SeriesError(path, wrong, "choose with --series UID, radiogen ingest --list shows them")
    if matching[0][0].problem is not None:
        raise matching[0][0].problem
    return matching[0]


@dataclass(frozen=True)
class LabelMap:
    """Structures on one grid: uint8 labels, the name of each by rising label, and what was decided."""

    labels: sitk.Image
    names: dict[int, str]
    decisions: tuple[str, ...]


@dataclass(frozen=True)
class _LabelledStructure:
    label: int
    name: str
    inside: BoolArray


def read_label_map(
    outline: OutlineFile, reference: ReferenceGrid | None, roi: str | None, segment: str | None
) -> LabelMap:
    """Read all structures of a file, or the requested ones.

    A SEG gives its segment numbers as labels, an RTSTRUCT the numbers of its ROIs from 1 in the order of the
    file, a mask file its own labels.

    Args:
        outline: The file and its kind.
        reference: The CT; a mask file does without and keeps its grid.
        roi: Name or pattern of ROIs.
        segment: Name, pattern or number of segments.

    Raises:
        OutlineError: The file cannot be read, is empty, leaves the CT, or two structures share voxels.
    """
    path = outline.path
    if outline.kind == "mask":
        return _mask_file(path, reference)
    if outline.kind not in ("rtstruct", "seg"):
        raise OutlineError(path, "is LIDC XML, which converts to no single mask", "take radiogen ingest")
    if reference is None:
        wrong = f"is {'an RTSTRUCT' if outline.kind == 'rtstruct' else 'a SEG'}, which has no grid of its own"
        raise OutlineError(path, wrong, "give its CT with --reference")
    decisions: list[str] = []
    if outline.kind == "rtstruct":
        found = list(_rois(path, reference, roi, decisions))
    else:
        found = list(_segments(path, reference, segment, decisions))
    return _one_mask(path, found, reference.grid, decisions)


def _mask_file(path: Path, reference: ReferenceGrid | None) -> LabelMap:
    mask = read_mask(path)
    decisions: list[str] = []
    if reference is not None:
        mask, decisions = mask_on_grid(mask, reference.grid, path)
    present = np.unique(sitk.GetArrayViewFromImage(mask)).tolist()
    names = {label: f"Lesion {label}" for label in present if label}
    if not names:
        raise OutlineError(path, "is empty", "give a mask with at least one voxel")
    return LabelMap(mask, names, tuple(decisions))


def _rois(
    path: Path, reference: ReferenceGrid, wanted: str | None, decisions: list[str]
) -> Iterator[_LabelledStructure]:
    rois = [(n, roi) for n, roi in enumerate(read_rtstruct(path), start=1) if roi.drawn]
    if not rois:
        raise OutlineError(path, "holds no closed contours", "give an RTSTRUCT that is drawn")
    if wanted is not None:
        names = [roi.name for _, roi in rois]
        rois = [rois[i] for i in choose_named(names, wanted, None, f"{path}: ROI", "--roi PATTERN")[0]]
    for number, roi in rois:
        drawn = contours_of(roi, path)
        decisions += check_frame(roi.frame_uid, drawn.planes, reference.grid, reference.names, path)
        filled = fill_contours(drawn.contours, reference.grid, path)
        decisions += [f"{roi.name}: {line}" for line in filled.decisions]
        if not filled.inside.any():
            raise OutlineError(
                path, f"{roi.name} encloses no voxel centre of the CT", "leave it out by --roi"
            )
        yield _LabelledStructure(number, roi.name or f"ROI {number}", filled.inside)


def _segments(
    path: Path, reference: ReferenceGrid, wanted: str | None, decisions: list[str]
) -> Iterator[_LabelledStructure]:
    seg = read_seg(path)
    grid, names = reference.grid, reference.names
    segments = list(seg.segments)
    if wanted is not None:
        taken, _ = choose_segments(segments, OutlineChoice(segment=wanted), f"{path}: segment")
        segments = [segments[i] for i in taken]
    for segment in segments:
        try:
            mask = segment_mask(seg, segment.number, grid, names.slice_positions)
        except EmptySegmentError:
            decisions.append(f"segment {segment.number} {segment.label!r} is empty and left out")
            continue
        decisions += [*mask.decisions, *check_frame(seg.frame_uid, mask.planes, grid, names, path)]
        on_grid, grid_decisions = mask_on_grid(mask.mask, grid, path, is_dicom=True)
        decisions += grid_decisions
        yield _LabelledStructure(
            segment.number, segment.label or f"segment {segment.number}", array_of(on_grid) != 0
        )


def _one_mask(
    path: Path, found: list[_LabelledStructure], grid: sitk.Image, decisions: list[str]
) -> LabelMap:
    if not found:
        raise OutlineError(path, "holds no voxel", "export it anew")
    if max(one.label for one in found) > MOST_LESIONS:
        raise OutlineError(
            path, f"has structures beyond {MOST_LESIONS}", "choose some with --roi or --segment"
        )
    labels = np.zeros(grid.GetSize()[::-1], np.uint8)
    for one in found:
        shared = int(labels[one.inside].astype(bool).sum())
        if shared:  # which structure should win cannot be known
            other = next(o.name for o in found if (o.inside & one.inside).any())
            wrong = f"{other!r} and {one.name!r} share {shared} voxels, which one mask cannot hold"
            raise OutlineError(path, wrong, "choose one with --roi or --segment")
        labels[one.inside] = one.label
    names = {one.label: one_line(one.name) for one in sorted(found, key=lambda one: one.label)}
    return LabelMap(volume_like(labels, grid), names, tuple(dict.fromkeys(decisions)))
