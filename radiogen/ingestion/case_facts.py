"""Measure what distinguishes a sound case from an odd one: HU, lungs, lesions, extent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import cKDTree

from radiogen.drawing.planes import PatientAxes, patient_axes
from radiogen.io.cases import Case
from radiogen.measures.lesions import measure_lesions
from radiogen.volume import voxel_ml

AnyArray = npt.NDArray[Any]

AIR_HU = (-1024, -850)  # outside the body, in the windpipe and in emphysema
SOFT_TISSUE_HU = (-150, 150)  # fat, blood, muscle
BINS = np.arange(-1050, 1575, 25)  # edges of the drawn histogram; beyond them counts to the last bin
MOST_POINTS = 4000  # of a surface that distances are measured to


@dataclass(frozen=True)
class LungFacts:
    """The lung mask: volumes, and how much of it the first and last slice cut."""

    right_ml: float
    left_ml: float
    median_hu: float  # of all voxels inside
    cut: tuple[float, float]  # area on the lowest and on the highest slice, as a share of the largest area


@dataclass(frozen=True)
class LesionFacts:
    """One lesion: size, density, and where it lies relative to the lungs."""

    label: int  # in the lesion mask
    volume_ml: float
    diameter_mm: float  # the longest
    median_hu: float
    in_lungs: float | None  # share inside the lung mask; None without lungs
    from_lungs_mm: float | None  # of its nearest voxel to the lung mask, 0 where they overlap
    at_end: bool  # whether the first or last slice holds a part of it


@dataclass(frozen=True)
class CaseFacts:
    """The measurements of one case."""

    slices: int  # axial
    spacing_mm: tuple[float, float, float]  # along x, y, z of the patient
    extent_mm: float  # from the lowest to the highest slice
    tilt_degrees: float  # largest angle between an axis of the volume and the patient's
    lowest_hu: int
    highest_hu: int
    air: float  # share of the voxels in AIR_HU
    soft_tissue: float  # share of the voxels in SOFT_TISSUE_HU
    at_lowest: float  # share of the voxels that have the smallest value
    at_highest: float  # share of the voxels that have the largest value
    histogram: tuple[int, ...]  # voxels in each of BINS
    lungs: LungFacts | None = None  # None without a lung mask
    lesions: tuple[LesionFacts, ...] = ()  # empty where no outline is known
    is_crop: bool = False  # a crop round a lesion, whose lungs are not known


def read_masks(case: Case) -> dict[str, sitk.Image]:
    """Read the masks that a case has, by name: `lungs`, `lesion`.

    Raises:
        RadiogenError: One is damaged or does not lie on the CT.
    """
    masks = {}
    if case.lungs_path.is_file():
        masks["lungs"] = case.lungs()
    if case.has_lesion:
        masks["lesion"] = case.lesion()
    return masks


def measure_case(ct: sitk.Image, masks: Mapping[str, sitk.Image], is_crop: bool = False) -> CaseFacts:
    """Measure a CT (int16 HU) and the masks on its grid that `read_masks` found.

    The lung mask of a crop is not measured: it holds all voxels and says nothing of lungs.
    """
    axes = patient_axes(ct)
    hu = axes.oriented(ct)
    lungs = axes.oriented(masks["lungs"]) if "lungs" in masks else None
    if lungs is not None and (is_crop or not lungs.any()):  # an empty mask is no lungs
        lungs = None
    x_mm, y_mm, z_mm = axes.spacing_mm
    return CaseFacts(
        slices=len(hu),
        spacing_mm=(x_mm, y_mm, z_mm),
        extent_mm=len(hu) * z_mm,
        tilt_degrees=axes.tilt_degrees,
        **_measure_values(hu),
        lungs=_measure_lungs(hu, lungs, voxel_ml(ct)) if lungs is not None else None,
        lesions=_measure_lesions(hu, masks["lesion"], lungs, axes) if "lesion" in masks else (),
        is_crop=is_crop,
    )


def _measure_values(hu: AnyArray) -> dict[str, Any]:
    """Count every int16 value once; range, shares and histogram all follow from these counts."""
    counts = np.zeros(65536, np.int64)
    for plane in hu:  # one by one, since counting takes eight bytes a voxel
        counts += np.bincount(plane.ravel().astype(np.int32) + 32768, minlength=65536)
    occurring = np.flatnonzero(counts)
    low, high, voxels = int(occurring[0]), int(occurring[-1]), hu.size
    clipped = np.clip(np.arange(65536) - 32768, BINS[0], BINS[-1])
    binned, _ = np.histogram(clipped, bins=BINS, weights=counts.astype(float))
    return {
        "lowest_hu": low - 32768,
        "highest_hu": high - 32768,
        "air": _share(counts, AIR_HU),
        "soft_tissue": _share(counts, SOFT_TISSUE_HU),
        "at_lowest": float(counts[low]) / voxels,
        "at_highest": float(counts[high]) / voxels,
        "histogram": tuple(int(n) for n in binned),
    }


def _share(counts: AnyArray, bounds: tuple[int, int]) -> float:
    # int16 starts at -32768, so that is place 0 of the counts.
    return float(counts[bounds[0] + 32768 : bounds[1] + 32769].sum() / counts.sum())


def _measure_lungs(hu: AnyArray, lungs: AnyArray, ml: float) -> LungFacts:
    areas = np.count_nonzero(lungs, axis=(1, 2))
    largest = float(areas.max())
    return LungFacts(
        right_ml=float(np.count_nonzero(lungs == 1)) * ml,
        left_ml=float(np.count_nonzero(lungs == 2)) * ml,
        median_hu=float(np.median(hu[lungs > 0])),
        cut=(float(areas[0]) / largest, float(areas[-1]) / largest),
    )


def _measure_lesions(
    hu: AnyArray, mask: sitk.Image, lungs: AnyArray | None, axes: PatientAxes
) -> tuple[LesionFacts, ...]:
    labels = axes.oriented(mask)
    surface = _surface(lungs, axes) if lungs is not None else None
    facts, boxes = [], ndimage.find_objects(labels)
    for lesion in measure_lesions(mask):
        box = boxes[lesion.label - 1]
        inside = labels[box] == lesion.label
        # None, not 0: without a lung mask nothing is known about the place of a lesion.
        in_lungs, distance_mm = None, None
        if lungs is not None and surface is not None:
            in_lungs = float(np.mean(lungs[box][inside] > 0))
            distance_mm = 0.0 if in_lungs else _distance_mm(inside, box, surface, axes)
        facts.append(
            LesionFacts(
                label=lesion.label,
                volume_ml=lesion.volume_ml,
                diameter_mm=lesion.longest_diameter_mm,
                median_hu=float(np.median(hu[box][inside])),
                in_lungs=in_lungs,
                from_lungs_mm=distance_mm,
                at_end=bool(box[0].start == 0 or box[0].stop == len(labels)),
            )
        )
    return tuple(facts)


def _points_mm(inside: AnyArray, axes: PatientAxes, start: tuple[int, ...] = (0, 0, 0)) -> AnyArray:
    """Return about `MOST_POINTS` evenly chosen voxels at most, shape (n, 3), mm in the order z, y, x."""
    points = np.argwhere(inside) + start
    return np.asarray(points[:: len(points) // MOST_POINTS + 1] * np.array(axes.spacing_mm[::-1]))


def _surface(lungs: AnyArray, axes: PatientAxes) -> cKDTree:
    """Index the voxels on the edge of the lungs in axial planes."""
    inside = lungs > 0
    inner = inside.copy()
    for axis in (1, 2):
        inner &= np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
    return cKDTree(_points_mm(inside & ~inner, axes))


def _distance_mm(inside: AnyArray, box: tuple[slice, ...], surface: cKDTree, axes: PatientAxes) -> float:
    start = tuple(each.start for each in box)
    return float(surface.query(_points_mm(inside, axes, start))[0].min())
