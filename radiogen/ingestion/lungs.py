"""Find the lungs of a CT by thresholds and morphology, or with the network of lungmask."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from radiogen.drawing.planes import patient_axes
from radiogen.errors import ConfigError
from radiogen.optional import require
from radiogen.volume import array_of, volume_like, voxel_ml

BoolArray = npt.NDArray[np.bool_]

RIGHT, LEFT = 1, 2
WHOLE = "whole"
# A chest is wider than this from side to side and from front to back, as is the field of view of one lung.
CROP_MM = 120.0
# A CT of 0.7 x 0.7 x 1 mm has 18 times as many voxels as its copy of about 2 mm.
WORK_SPACING_MM = 2.0
LUNG_BELOW_HU = -400.0  # half way between lung (about -850) and soft tissue (about 40)
GAS_BELOW_HU = -950.0  # bowel gas and the inside of a table are nearly air throughout
BODY_ABOVE_HU = -500.0
BONE_ABOVE_HU = 150.0
RIB_MM = 2.5  # half the thickness of what is too thin to be a vertebra
APART_MM = 50.0  # the middles of two lungs
SPINE_MM = 40.0  # across; more bone than that in a column counts as that
TABLE_MM = 4.0  # half the thickness of what is too thin to be body
CLOSING_MM = 10.0  # takes in vessels at the hilum and lesions on the wall
SMALLEST_ML = 30.0  # a part of a lung is larger
ENCLOSED = 0.5  # share of a part's surface that lies on the body
# Of the airways.
AIR_BELOW_HU = (-900.0, -930.0, -950.0, -970.0)  # stricter where a lenient one leaks into the lung
WINDPIPE_MM2 = (40.0, 900.0)  # cross section
LARGEST_AIRWAYS_ML = 120.0  # windpipe and main bronchi hold less
SHORTEST_WINDPIPE_MM = 30.0
WINDPIPE_OFF_MIDLINE_MM = 35.0
WALL_MM = 3.0


@dataclass(frozen=True)
class FoundLungs:
    """The lungs of a CT.

    Attributes:
        mask: uint8, 0 / 1 right / 2 left, on the grid of the CT; empty if there is no lung, 1 everywhere in a
            crop.
        decisions: Sentences on volumes and what looks odd.
        is_crop: Whether the CT is a crop round a lesion and no lung was looked for.
    """

    mask: sitk.Image
    decisions: tuple[str, ...]
    is_crop: bool = False


def find_lungs(volume: sitk.Image, method: str = "threshold") -> FoundLungs:
    """Find the lungs of a CT; of a crop round a lesion, which shows none as a whole, all voxels count.

    Args:
        volume: CT in HU, whole, a part of the chest, or a crop: less than `CROP_MM` from side to side and
            from front to back.
        method: `threshold`, `lungmask` (U-Net R231, an extra), or `whole`: a crop, whatever its size.

    Raises:
        ConfigError: There is no such method.
    """
    if method not in METHODS:
        raise ConfigError(f"lungs {method!r}", "is not known", f"take one of {', '.join(METHODS)}")
    if method == WHOLE or is_crop(volume):
        size = " x ".join(f"{mm:.0f}" for mm in _extent_mm(volume)) + " mm"
        decision = f"{size}: a crop round a lesion, all of it counts as lung"
        return FoundLungs(whole_volume(volume), (decision,), is_crop=True)
    mask = METHODS[method](volume)
    labels = array_of(mask)
    right, left = (float((labels == side).sum()) * voxel_ml(mask) for side in (RIGHT, LEFT))
    if right + left == 0:
        return FoundLungs(mask, (f"lungs by {method}: none were found",))
    decisions = [f"lungs by {method}: right {right:.0f} ml, left {left:.0f} ml"]
    if min(right, left) < 0.1 * max(right, left):
        decisions.append(f"lungs: only the {'right' if right > left else 'left'} one was found")
    ends = [name for name, k in (("bottom", 0), ("top", -1)) if labels[k].any()]
    if ends:
        decisions.append(f"lungs: cut off at the {' and the '.join(ends)} of the scan")
    return FoundLungs(mask, tuple(decisions))


def is_crop(volume: sitk.Image) -> bool:
    """Return whether a CT is too small for a chest, a crop round a lesion."""
    x_mm, y_mm, _ = _extent_mm(volume)
    return max(x_mm, y_mm) < CROP_MM


def _extent_mm(volume: sitk.Image) -> tuple[float, float, float]:
    """Return how far a volume reaches along x, y and z of the patient, whichever way it is stored."""
    axes = patient_axes(volume).axes
    x, y, z = (volume.GetSize()[axis] * volume.GetSpacing()[axis] for axis in axes)
    return x, y, z


def whole_volume(volume: sitk.Image) -> sitk.Image:
    """Return a mask that is 1 everywhere, which says nothing of right or left."""
    return volume_like(np.full(volume.GetSize()[::-1], RIGHT, np.uint8), volume)


def threshold_lungs(volume: sitk.Image) -> sitk.Image:
    """Find lungs by thresholds and morphology, on a copy of about 2 mm.

    Air that the body encloses, without windpipe, bowel gas and table; split in two and closed by 10 mm, so
    that vessels at the hilum and lesions on the wall belong to the lung.

    Args:
        volume: CT in HU.

    Returns:
        uint8, 0 / 1 right / 2 left, on the grid of `volume`; empty if there is no lung.
    """
    work = _shrink(volume)
    hu = array_of(work)
    body = _body(work)
    air = _enclosed_air(work, body)
    midline = _midline(work)
    airways = _find_airways(hu, air, work.GetSpacing(), midline)
    parts = _lung_parts(volume_like((air & ~airways).astype(np.uint8), work), hu)
    labels = _close_each(_sides(parts, midline, work), airways, work)
    return _enlarge(labels, volume)


def learned_lungs(volume: sitk.Image) -> sitk.Image:
    """Find lungs by the U-Net R231 of lungmask (Hofmanninger et al., Eur Radiol Exp 4:50, 2020).

    Raises:
        MissingPackageError: lungmask is not installed.
    """
    inferer = require("lungmask", extra="lungs").LMInferer()
    labels: npt.NDArray[np.uint8] = inferer.apply(volume).astype(np.uint8)
    return volume_like(labels, volume)


METHODS: dict[str, Callable[[sitk.Image], sitk.Image]] = {
    "threshold": threshold_lungs,
    "lungmask": learned_lungs,
    WHOLE: whole_volume,
}


def _shrink(volume: sitk.Image) -> sitk.Image:
    factors = [max(1, round(WORK_SPACING_MM / spacing)) for spacing in volume.GetSpacing()]
    factors = [min(factor, size) for factor, size in zip(factors, volume.GetSize(), strict=True)]
    # Means of blocks, not picked voxels: they lower the noise before thresholds.
    return sitk.Clamp(sitk.BinShrink(sitk.Cast(volume, sitk.sitkFloat32), factors), lowerBound=-1024)


def _enlarge(labels: sitk.Image, volume: sitk.Image) -> sitk.Image:
    fine = sitk.Image(volume.GetSize(), sitk.sitkUInt8)
    fine.CopyInformation(volume)
    # Labels are enlarged one by one: interpolating between 1 and 2 would mix right and left.
    for side in (RIGHT, LEFT):
        share = sitk.Resample(
            sitk.Cast(labels == side, sitk.sitkFloat32),
            fine,
            sitk.Transform(),
            sitk.sitkLinear,
            0.0,
            sitk.sitkFloat32,
            True,  # beyond the outermost voxel centres take the nearest
        )
        fine = sitk.Maximum(fine, sitk.Cast(share > 0.5, sitk.sitkUInt8) * side)
    return fine


def _body(work: sitk.Image) -> sitk.Image:
    """Return the largest part that is not air, without what is as thin as a table."""
    dense = work > BODY_ABOVE_HU
    thick = _erode(dense, TABLE_MM)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(thick))
    return sitk.And(_dilate(parts == 1, TABLE_MM), dense)


def _enclosed_air(work: sitk.Image, body: sitk.Image) -> BoolArray:
    """Return the parts of the air that the body encloses: half of their surface at least lies on it.

    A part of the chest may be cut by the edge of the image, which says nothing about being enclosed: the edge
    within slices does not count.
    """
    parts = sitk.ConnectedComponent(work < LUNG_BELOW_HU)
    parts = sitk.RelabelComponent(parts, int(SMALLEST_ML / 3 / voxel_ml(work)))
    labels = array_of(parts)
    # One and a half pixels: the outermost voxels of the air are neighbours of the body, not part of it.
    near = array_of(_dilate(body, 1.5 * max(work.GetSpacing()[:2]))).astype(bool)
    count = int(labels.max()) + 1
    cut = np.ones(labels.shape, dtype=bool)
    cut[:, 1:-1, 1:-1] = False
    edge = (array_of(sitk.LabelContour(parts)) > 0) | cut
    surface = np.bincount(labels[edge], minlength=count)
    on_body = np.bincount(labels[edge & near & ~cut], minlength=count)
    keep = on_body >= ENCLOSED * np.maximum(surface, 1)
    # Label 0 is everything that is not air.
    keep[0] = False
    return np.asarray(keep[labels])


def _lung_parts(air: sitk.Image, hu: npt.NDArray[np.float32]) -> sitk.Image:
    """Return connected parts by size, without bowel gas and what is too small or lies below the lungs."""
    smallest = int(SMALLEST_ML / voxel_ml(air))
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(air), smallest)
    labels = array_of(parts)
    kept: list[int] = []
    slices = np.zeros(len(labels), dtype=bool)
    for label in range(1, int(labels.max()) + 1):
        inside = labels == label
        its_slices = inside.any(axis=(1, 2))
        is_gas = float(np.median(hu[inside])) < GAS_BELOW_HU
        # Bowel lies below the lungs: a part that shares few slices with the larger ones is no lung.
        is_beside = not kept or (its_slices & slices).sum() >= 0.3 * its_slices.sum()
        if not is_gas and is_beside:
            kept.append(label)
            slices |= its_slices
    return volume_like(np.where(np.isin(labels, kept), labels, 0).astype(np.uint8), air)


def _midline(work: sitk.Image) -> float:
    """Return the column of the spine: where most slices hold thick bone; a cropped scan has one too."""
    x_mm, y_mm, _ = work.GetSpacing()
    bone = array_of(_erode(work > BONE_ABOVE_HU, RIB_MM))
    bone_mm = np.minimum(bone.sum(axis=1) * y_mm, SPINE_MM).sum(axis=0)
    width = max(1, round(SPINE_MM / x_mm))
    smooth = np.convolve(bone_mm, np.ones(width) / width, mode="same")
    return float(smooth.argmax()) if smooth.max() > 0 else (len(smooth) - 1) / 2


def _sides(parts: sitk.Image, midline: float, work: sitk.Image) -> sitk.Image:
    """Tell right from left: by the middle between the two largest parts, else by the spine."""
    labels = array_of(parts)
    lungs = [lung for label in np.unique(labels[labels > 0]) for lung in _split(labels == label, work)]
    lungs.sort(key=lambda lung: -int(lung.sum()))
    across = np.arange(labels.shape[2])
    columns = [float(np.average(across, weights=lung.sum(axis=(0, 1)))) for lung in lungs]
    if len(lungs) > 1 and abs(columns[0] - columns[1]) * work.GetSpacing()[0] > APART_MM:
        midline = (columns[0] + columns[1]) / 2
    toward_left = work.GetDirection()[0] > 0  # x grows to the patient's left
    sides = np.zeros_like(labels)
    for lung, column in zip(lungs, columns, strict=True):
        sides[lung] = LEFT if (column > midline) == toward_left else RIGHT
    return volume_like(sides, work)


def _split(inside: BoolArray, work: sitk.Image) -> list[BoolArray]:
    """Split two lungs that touch, by watershed from their thickest parts; one lung stays whole.

    The lung is thinned until it falls into two large parts whose middles lie beside each other, further apart
    in x than in y or z: lobes of one lung do not. These parts are the seeds.
    """
    # Millimetres from the surface, so that a cut of 1 to 30 mm thins the lung evenly.
    depth = -_distance(volume_like(inside.astype(np.uint8), work))
    for cut_mm in np.arange(1.0, 31.0, 1.5):
        parts = sitk.RelabelComponent(sitk.ConnectedComponent(depth > cut_mm))
        labels = array_of(parts)
        sizes = np.bincount(labels.ravel(), minlength=3)
        # A second part of less than a fifth is a lobe or a tip, not the other lung.
        if sizes[2] <= 0.2 * sizes[1]:
            continue
        middles = [np.argwhere(labels == label).mean(axis=0)[::-1] * work.GetSpacing() for label in (1, 2)]
        x_mm, y_mm, z_mm = np.abs(middles[0] - middles[1])
        if x_mm > max(APART_MM, y_mm, z_mm):
            seeds = sitk.Cast(sitk.Mask(parts, parts <= 2), sitk.sitkUInt8)
            basins = array_of(sitk.MorphologicalWatershedFromMarkers(-depth, seeds, markWatershedLine=False))
            return [inside & (basins == 1), inside & (basins == 2)]
    return [inside]


def _close_each(sides: sitk.Image, airways: BoolArray, work: sitk.Image) -> sitk.Image:
    """Close each lung by itself and fill its holes; neither grows into the other or the windpipe."""
    closed = np.zeros(sides.GetSize()[::-1], dtype=np.uint8)
    labels = array_of(sides)
    for side in (RIGHT, LEFT):
        lung = sides == side
        if not array_of(lung).any():
            continue
        filled = array_of(sitk.BinaryFillhole(_close(lung, CLOSING_MM))).astype(bool)
        # Where both lungs would grow into the same voxels, the right one, closed first, keeps them.
        closed[filled & (closed == 0) & ~airways & ((labels == 0) | (labels == side))] = side
    return volume_like(closed, work)


def _close(mask: sitk.Image, radius_mm: float) -> sitk.Image:
    """Close a mask as if it went on behind the edge of the image as it meets it."""
    reach = [int(np.ceil(radius_mm / spacing)) + 1 for spacing in mask.GetSpacing()]
    margin = [min(n, size) for n, size in zip(reach, mask.GetSize(), strict=True)]
    wide = sitk.ZeroFluxNeumannPad(mask, margin, margin)
    closed = _erode(_dilate(wide, radius_mm), radius_mm)
    return sitk.RegionOfInterest(closed, mask.GetSize(), margin)


def _dilate(mask: sitk.Image, radius_mm: float) -> sitk.Image:
    return _distance(mask) <= radius_mm


def _erode(mask: sitk.Image, radius_mm: float) -> sitk.Image:
    return _distance(mask == 0) > radius_mm


def _distance(mask: sitk.Image) -> sitk.Image:
    """Return millimetres from the mask's outer voxels, 0 or less inside; large everywhere if it is empty."""
    return sitk.SignedMaurerDistanceMap(mask, squaredDistance=False, useImageSpacing=True)


def _find_airways(
    hu: npt.NDArray[np.float32], air: BoolArray, spacing_mm: Sequence[float], midline: float
) -> BoolArray:
    """Return windpipe and main bronchi with their walls.

    From each hole that looks like a windpipe, from the head down, air is grown, with a stricter threshold as
    long as it leaks into a lung; where all leak, the windpipe alone is followed slice by slice. The first
    tree that is long enough counts.

    Args:
        hu: CT of about 2 mm, shape (z, y, x), z to the head.
        air: Air that the body encloses, same shape.
        spacing_mm: In the order (x, y, z).
        midline: Column of the spine.

    Returns:
        Same shape; empty if there is no windpipe, as in a scan of the lower chest.
    """
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    labelled = [ndimage.label(air & (hu < below))[0] for below in AIR_BELOW_HU]
    tried = np.zeros_like(air)
    for seed in _round_holes(hu, air, spacing_mm, midline):
        if tried[seed]:
            continue
        for labels in labelled:
            grown = labels == labels[seed] if labels[seed] else np.zeros_like(air)
            if grown.sum() * voxel_ml <= LARGEST_AIRWAYS_ML:
                break
        else:
            grown = _tube(hu, air, seed, spacing_mm)
        tried |= grown
        length_mm = grown.any(axis=(1, 2)).sum() * spacing_mm[2]
        # A short scan shows a short windpipe: half of the scan is enough there.
        if length_mm >= min(SHORTEST_WINDPIPE_MM, 0.5 * len(hu) * spacing_mm[2]):
            return _widen(grown, spacing_mm)
    return np.zeros_like(air)


def _round_holes(
    hu: npt.NDArray[np.float32], air: BoolArray, spacing_mm: Sequence[float], midline: float
) -> Iterator[tuple[int, int, int]]:
    """Find round holes near the midline that look like a windpipe; middles (z, y, x) from the head down."""
    pixel_mm2 = spacing_mm[0] * spacing_mm[1]
    for k in range(len(hu) - 1, -1, -1):
        labels, _ = ndimage.label(air[k])
        for label, place in enumerate(ndimage.find_objects(labels), start=1):
            hole = labels[place] == label
            area = float(hole.sum()) * pixel_mm2
            sides = [n * mm for n, mm in zip(hole.shape, spacing_mm[1::-1], strict=True)]
            center_y, center_x = ndimage.center_of_mass(hole)
            y, x = round(place[0].start + center_y), round(place[1].start + center_x)
            # A disc fills 0.79 of its box; half leaves room for a flattened windpipe.
            is_round = max(sides) < 2.5 * min(sides) and area > 0.5 * sides[0] * sides[1]
            is_central = abs(x - midline) * spacing_mm[0] < WINDPIPE_OFF_MIDLINE_MM
            is_air = labels[y, x] == label and hu[k, y, x] < AIR_BELOW_HU[0]
            if WINDPIPE_MM2[0] <= area <= WINDPIPE_MM2[1] and is_round and is_central and is_air:
                yield k, y, x


def _tube(
    hu: npt.NDArray[np.float32], air: BoolArray, seed: tuple[int, int, int], spacing_mm: Sequence[float]
) -> BoolArray:
    """Return the windpipe alone, followed downwards slice by slice while its cross section stays small."""
    tube = np.zeros_like(air)
    above = np.zeros(air.shape[1:], dtype=bool)
    above[seed[1:]] = True
    for k in range(seed[0], -1, -1):
        labels, _ = ndimage.label(air[k] & (hu[k] < AIR_BELOW_HU[1]))
        met = np.setdiff1d(labels[above], 0)
        here = np.isin(labels, met) & (labels > 0)
        if not here.any() or here.sum() * spacing_mm[0] * spacing_mm[1] > WINDPIPE_MM2[1]:
            break
        tube[k] = above = here
    return tube


def _widen(airways: BoolArray, spacing_mm: Sequence[float]) -> BoolArray:
    """Add the wall, so that closing a lung does not take it in."""
    if not airways.any():
        return airways
    distance = ndimage.distance_transform_edt(~airways, sampling=tuple(spacing_mm)[::-1])
    return np.asarray(distance <= WALL_MM)
