"""Bring a lesion mask of any grid onto the grid of its CT, by geometry alone."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.io.contours import check_inside, check_numbers, indices_of
from radiogen.io.polygons import BoolArray, Points
from radiogen.volume import array_of, corners_mm, resample_to, same_grid, voxel_ml

# What volume files hold when nobody set a place: spacing, origin, direction.
_NO_PLACE = ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def mask_on_grid(
    mask: sitk.Image, ct: sitk.Image, source: Path, is_dicom: bool = False
) -> tuple[sitk.Image, list[str]]:
    """Bring a mask to the voxels of a CT.

    On another grid each voxel of the CT takes the label of the mask's voxel its centre lies in: the same rule
    as for contours, and labels never mix. What is too small to meet a centre is reported.

    Args:
        mask: Labels, uint8, with its own place in space.
        ct: The grid.
        source: Where the mask is from, for messages.
        is_dicom: Its place is stated in the file; a volume file may have lost it.

    Returns:
        The labels on the CT's grid, and what was decided.

    Raises:
        OutlineError: The mask is empty, leaves the CT (with the distance), or has no place in space.
    """
    labels = array_of(mask)
    if not labels.any():
        raise OutlineError(source, "is empty", "give an outline with at least one voxel")
    if same_grid(mask, ct):
        return _on_grid(mask, ct), []
    if not is_dicom:
        _check_has_place(mask, ct, source)
    # Checked on the mask itself: resampling would cut off in silence what lies outside.
    points = _ends_mm(labels != 0, mask)
    check_numbers(points, source)
    check_inside(indices_of(points, ct), ct, source)
    # Linear interpolation with a threshold would smooth the labels that somebody drew.
    resampled = resample_to(mask, ct, outside=0, nearest=True)
    before, after = (int(array_of(m).astype(bool).sum()) * voxel_ml(m) for m in (mask, resampled))
    if after == 0:
        raise OutlineError(source, "is too small to meet a voxel of the CT", "draw it on the CT")
    # A small label may fall between the centres of the CT, which must not go unnoticed.
    lost = sorted(set(np.unique(labels)) - set(np.unique(array_of(resampled))))
    # A thousandth of the volume is rounding of positions, not another grid.
    moved = abs(after - before) > 0.001 * before
    decisions = []
    if moved:
        change = f"resampled to the CT, nearest voxel: {before:.3f} -> {after:.3f} ml"
        decisions.append(f"the outline's own grid of {mask.GetSize()} voxels was {change}")
    elif not (is_dicom and _is_part_of(mask, ct)):
        decisions.append(f"the outline's own grid of {mask.GetSize()} voxels was placed on the CT")
    if lost:
        labels_lost = ", ".join(map(str, lost))
        decisions.append(f"labels {labels_lost} of the outline are too small to meet a voxel of the CT")
    return resampled, decisions


def _is_part_of(mask: sitk.Image, ct: sitk.Image) -> bool:
    """Return whether each voxel of a mask is one of the CT's: what SEG frames on its slices are."""
    corners = indices_of(corners_mm(mask), ct)
    # 0.02 of a voxel: DICOM writes positions in at most 16 characters, and exporters use fewer.
    is_whole = np.allclose(corners, np.rint(corners), atol=0.02)
    return is_whole and bool(np.isclose(voxel_ml(mask), voxel_ml(ct), rtol=1e-4))


def _ends_mm(inside: BoolArray, mask: sitk.Image) -> Points:
    """Return the first and last voxel of each row of a mask, LPS, shape (n, 3): nothing lies further out."""
    z, y = np.nonzero(inside.any(axis=2))
    first, last = inside[z, y].argmax(axis=1), inside.shape[2] - 1 - inside[z, y, ::-1].argmax(axis=1)
    index = np.concatenate([np.stack([x, y, z], axis=1) for x in (first, last)])
    direction = np.array(mask.GetDirection()).reshape(3, 3)
    return np.asarray((index * mask.GetSpacing()) @ direction.T + np.array(mask.GetOrigin()))


def _on_grid(mask: sitk.Image, ct: sitk.Image) -> sitk.Image:
    placed = sitk.Image(mask)
    placed.CopyInformation(ct)
    return placed


def _check_has_place(mask: sitk.Image, ct: sitk.Image, source: Path) -> None:
    """Refuse a mask of another size whose place is a default, or copied from the CT: tools lose it."""
    sizes = f"it has {mask.GetSize()} voxels, the CT {ct.GetSize()}"
    hint = "export the mask on the grid of the CT"
    if (mask.GetSpacing(), mask.GetOrigin(), mask.GetDirection()) == _NO_PLACE:
        raise OutlineError(source, f"does not say where it lies, and {sizes}", hint)
    alike = all(
        np.allclose(a, b, atol=1e-3)
        for a, b in (
            (mask.GetSpacing(), ct.GetSpacing()),
            (mask.GetOrigin(), ct.GetOrigin()),
            (mask.GetDirection(), ct.GetDirection()),
        )
    )
    if alike:
        raise OutlineError(source, f"starts at the CT's corner with its spacing, but {sizes}", hint)
