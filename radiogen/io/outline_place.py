"""Where an outline lies on a CT: voxel indices of its points, frames of reference, and what is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.io.polygons import Points

EDGE_VOXELS = 1.0  # how far an outline may run over the edge of the image within a slice
FARTHEST_MM = 1e5  # no scanner places anything further away


@dataclass(frozen=True)
class CtReference:
    """What a DICOM outline may name of its CT; empty for a CT that is a volume file.

    Attributes:
        frame_uids: FrameOfReferenceUIDs of the CT.
        slice_positions: Position in LPS millimetres by SOPInstanceUID.
    """

    frame_uids: frozenset[str] = frozenset()
    slice_positions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedPlane:
    """A plane of an outline: a point of it in LPS millimetres, and the slices it says it was drawn on."""

    point_mm: Points
    slice_uids: tuple[str, ...]


def indices_of(points_mm: Points, ct: sitk.Image) -> Points:
    """Continuous voxel indices (x, y, z) of points in LPS millimetres, both of shape (n, 3)."""
    direction = np.array(ct.GetDirection()).reshape(3, 3)
    steps = np.linalg.solve(direction, (points_mm - np.array(ct.GetOrigin())).T).T
    return np.asarray(steps / np.array(ct.GetSpacing()))


def check_numbers(points_mm: Points, source: Path) -> None:
    """Refuse coordinates that are no place in a scanner: not finite, or 100 m away.

    Raises:
        OutlineError: There is one.
    """
    if not np.all(np.abs(points_mm) <= FARTHEST_MM):  # NaN fails too
        raise OutlineError(source, "has coordinates that are no millimetres of a scanner", "export it anew")


def check_inside(index: Points, ct: sitk.Image, source: Path) -> None:
    """Refuse points that lie off a CT.

    Args:
        index: Continuous voxel indices (x, y, z), shape (n, 3).
        ct: The grid.
        source: The file, for messages.

    Raises:
        OutlineError: A point lies more than a voxel off the edge within a slice, or beyond the last slice.
    """
    allowed = np.array([EDGE_VOXELS, EDGE_VOXELS, 1e-3])
    over = np.maximum(-0.5 - index, index - (np.array(ct.GetSize()) - 0.5))
    if np.any(over > allowed):
        distance = float((np.maximum(over, 0) * np.array(ct.GetSpacing())).max())
        raise OutlineError(
            source,
            f"lies outside the CT by {distance:.1f} mm",
            "give the outline of this CT, or the whole CT",
        )


def check_frame(
    frame_uid: str, planes: Sequence[NamedPlane], ct: sitk.Image, reference: CtReference, source: Path
) -> list[str]:
    """Check that the millimetres of a DICOM outline are those of the CT.

    Millimetres of two frames of reference have nothing to do with each other. An outline of another frame is
    taken only if every plane of it names a slice of this CT and lies on that slice.

    Args:
        frame_uid: Frame of reference of the outline, empty if it names none.
        planes: Planes of the outline that are not empty.
        ct: The grid.
        reference: The CT's frames of reference and slices.
        source: The file, for messages.

    Returns:
        What was decided.

    Raises:
        OutlineError: It belongs to another frame of reference, and nothing proves the same place.
    """
    if not reference.slice_positions:
        return ["the CT does not say its frame of reference: the outline is placed by its millimetres"]
    off = [_off_named_slice(plane, ct, reference) for plane in planes]
    known = [mm for mm in off if mm is not None]
    away = max(known, default=0.0)
    is_on = away <= 0.5 * ct.GetSpacing()[2] + 1e-3
    if not frame_uid or not reference.frame_uids or frame_uid in reference.frame_uids:
        wrong = f"planes of the outline lie up to {away:.1f} mm off the slices they name"
        return [] if is_on else [f"{wrong}: their millimetres count"]
    if known and len(known) == len(off) and is_on:
        return ["the outline has another frame of reference, but each plane lies on the CT slice it names"]
    why = f"lies {away:.1f} mm off the slices it names" if not is_on else "does not name the CT's slices"
    raise OutlineError(
        source, f"has another frame of reference than the CT and {why}", "give the outline of this CT"
    )


def _off_named_slice(plane: NamedPlane, ct: sitk.Image, reference: CtReference) -> float | None:
    """Distance in mm, along the slices' normal, from the nearest slice it names; None if it names none."""
    normal = np.array(ct.GetDirection()).reshape(3, 3)[:, 2]
    named = [reference.slice_positions[uid] for uid in plane.slice_uids if uid in reference.slice_positions]
    return min((abs(float((plane.point_mm - np.array(at)) @ normal)) for at in named), default=None)
