"""Certify the geometry of a case: where an independent reader finds what the source placed, in mm.

nibabel had no part in writing the voxels or in reading the source. A case that fails is not kept.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import OutputError
from radiogen.volume import corners_mm

FloatArray = npt.NDArray[np.float64]

MOST_MM = 0.01  # single precision of a header leaves some millionths
QFORM_TURN = 1.5e-3  # radians: the error of a quaternion near half a turn in single precision
OFF_PLACE = 0.1  # of the slice spacing: how far a slice of an even series may lie off its place
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def certify(
    files: Sequence[Path], ct: sitk.Image, slice_positions: Iterable[Sequence[float]] = ()
) -> dict[str, Any]:
    """Read written files back with nibabel and compare where their corners lie with the CT in memory.

    Where the positions of the DICOM slices form one even, upright stack, they are looked up in the first
    file too: straight from the headers of the source, past all that made the volume.

    Args:
        files: NIfTI files that must lie on the grid of the CT; the CT's own first.
        ct: The volume that was to be written.
        slice_positions: ImagePositionPatient of the slices it was made of, any order, LPS millimetres.

    Returns:
        The largest errors in mm, by what was compared.

    Raises:
        OutputError: A file has another size, or lies beside its place.
    """
    import nibabel

    headers = [_header(path, ct) for path in files]
    expected, indices = corners_mm(ct), _corner_indices(ct.GetSize())
    # An error of angle moves the farthest corner by the angle times the diagonal of the volume.
    turned_mm = QFORM_TURN * float(np.linalg.norm(np.ptp(expected, axis=0)))
    sform_mm, qform_mm = 0.0, 0.0
    for path, header in zip(files, headers, strict=True):
        by_sform, by_qform = (
            float(np.linalg.norm(_lps(affine, indices) - expected, axis=1).max())
            for affine in (header.get_sform(), header.get_qform())
        )
        for error_mm, most_mm in ((by_sform, MOST_MM), (by_qform, MOST_MM + turned_mm)):
            if not error_mm <= most_mm:  # not a number either
                raise _beside(path, f"was written {error_mm:.3f} mm beside its place")
        sform_mm, qform_mm = max(sform_mm, by_sform), max(qform_mm, by_qform)
    positions = np.array([tuple(position) for position in slice_positions], float)
    return {
        "reader": f"nibabel {nibabel.__version__}",
        "files": [path.name for path in files],
        "corners_error_mm": _rounded(sform_mm),
        "corners_error_qform_mm": _rounded(qform_mm),
        "slices_error_mm": _slices_error(files[0], headers[0].get_sform(), ct, positions),
        "limit_mm": MOST_MM,
    }


def _header(path: Path, ct: sitk.Image) -> Any:
    import nibabel

    image = nibabel.load(path)
    if image.shape != ct.GetSize():
        raise _beside(path, f"was written with {image.shape} voxels instead of {ct.GetSize()}")
    return image.header


def _slices_error(path: Path, affine: FloatArray, ct: sitk.Image, positions: FloatArray) -> float | None:
    """Return how far slices lie from their DICOM positions at most; None where they were resampled."""
    step = np.array(ct.GetDirection()).reshape(3, 3)[:, 2] * ct.GetSpacing()[2]
    # An even series may hold slices a tenth of the spacing off; the volume places them evenly.
    limit_mm = MOST_MM + OFF_PLACE * float(np.linalg.norm(step))
    # Resampled: slices of the volume are no slices of the series.
    if len(positions) != ct.GetSize()[2]:
        return None
    positions = positions[np.argsort(positions @ step)]
    places = np.arange(len(positions))[:, None] * step
    if np.linalg.norm(positions - positions[0] - places, axis=1).max() > limit_mm:
        return None  # uneven or tilted: no slice of the volume is one of the source
    indices = np.zeros((len(positions), 3))
    indices[:, 2] = np.arange(len(positions))
    error_mm = float(np.linalg.norm(_lps(affine, indices) - positions, axis=1).max())
    if error_mm > limit_mm:
        raise _beside(path, f"was written {error_mm:.3f} mm beside the slices of its series")
    return _rounded(error_mm)


def _corner_indices(size: Sequence[int]) -> FloatArray:
    """Return the corners in the order of `corners_mm`."""
    x, y, z = (n - 1 for n in size)
    return np.array([(i, j, k) for k in (0, z) for j in (0, y) for i in (0, x)], float)


def _lps(affine: FloatArray, indices: FloatArray) -> FloatArray:
    return np.asarray((indices @ affine[:3, :3].T + affine[:3, 3]) * RAS_TO_LPS)


def _beside(path: Path, wrong: str) -> OutputError:
    return OutputError(path, wrong, "this is a fault of radiogen; report it with the scan's geometry")


def _rounded(error_mm: float) -> float:
    """Round to a nanometre, so that a record does not depend on the last bit."""
    return round(error_mm, 6)
