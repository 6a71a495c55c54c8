"""Read and check the header of a NIfTI file, and place voxels on perpendicular axes.

Left and right cannot be told from a file without qform and sform, and a volume with its shear dropped can be
centimetres wrong at the corners: both are refused.
"""

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import VolumeError

FloatArray = npt.NDArray[np.float64]

FIRST_BYTES = {348: "Nifti1Header", 540: "Nifti2Header"}
MAGIC = {348: b"n+1", 540: b"n+2"}
UNITS_IN_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units: unknown, metre, millimetre, micrometre
HINT = "copy it again or convert it from DICOM again"
MOST_MOVED = 0.1  # of the smallest spacing: how far a corner may move when axes are made perpendicular
NOTED_ABOVE_MM = 0.01
# A spacing or an origin beyond these is a damaged header.
NEAREST_MM = 1e-6
FARTHEST_MM = 1e6
FLAT = 1e-3  # volume that three axes of length 1 enclose; a shear of a real scanner leaves 0.8 or more
NOISE = 1e-7  # of a direction cosine stored with single precision


@dataclass(frozen=True)
class NiftiHeader:
    """Where the voxels lie in the file and in space.

    Attributes:
        size: Voxels along the first, second and third axis.
        dtype: Of the stored numbers, with their byte order.
        offset: First byte of the voxels.
        slope: What a stored number is multiplied with; 1 where the header names none.
        intercept: What is added after that.
        affine: From voxel indices to RAS millimetres, shape (4, 4).
        decisions: What was decided, in sentences.
    """

    size: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: FloatArray
    decisions: tuple[str, ...] = ()


def read_nifti_header(file: IO[bytes], path: Path) -> NiftiHeader:
    """Read the header at the start of a file.

    The sform places the voxels where its code is set, as in nibabel and FSL; else the qform; a file with
    neither does not say where the patient lies.

    Args:
        file: Opened, unpacked, at its first byte.
        path: Named in errors.

    Raises:
        VolumeError: It is no NIfTI file, not one 3D volume of numbers, or its place is not usable.
    """
    header = _raw_header(file, path)
    size = _size(header, path)
    with np.errstate(all="ignore"):  # numpy warns of numbers that are none; what they spoil is refused
        affine, decisions = _affine(header, size, path)
        dtype, offset, slope, intercept = _storage(header, path)
        return NiftiHeader(size, dtype, offset, slope, intercept, affine, decisions)


def _raw_header(file: IO[bytes], path: Path) -> Any:
    import nibabel

    start = file.read(4)
    # The header has no mark of byte order: its own length, 348 or 540, must come out right.
    for order in "<>":
        length = struct.unpack(f"{order}i", start)[0] if len(start) == 4 else 0
        if length in FIRST_BYTES:
            block = start + file.read(length - 4)
            break
    else:
        raise VolumeError(path, "cannot be read as a volume, it is no NIfTI file", HINT)
    if len(block) < length:
        raise VolumeError(path, "is truncated", "copy it again")
    # check=False: nibabel would repair some damage in silence.
    header = getattr(nibabel, FIRST_BYTES[length])(block, endianness=order, check=False)
    magic = bytes(header["magic"])[:3]
    if magic != MAGIC[length]:
        wrong = "is the header of a pair of files" if magic.startswith(b"ni") else "is an Analyze file"
        raise VolumeError(path, f"{wrong}, without a place in space", "convert it to one NIfTI file")
    return header


def _size(header: Any, path: Path) -> tuple[int, int, int]:
    axes, *sizes = (int(n) for n in header["dim"])
    shape = tuple(sizes[: max(0, min(axes, 7))])
    hint = "give one time point" if axes == 4 else "give one 3D volume"
    if axes not in (3, 4) or (axes == 4 and shape[3] != 1):
        raise VolumeError(path, f"is not one 3D volume but {shape}", hint)
    if min(shape) < 1:
        raise VolumeError(path, f"has a damaged header, its size is {shape}", HINT)
    return shape[0], shape[1], shape[2]


def _storage(header: Any, path: Path) -> tuple[np.dtype[Any], int, float, float]:
    """Return how the numbers are stored: their type, the first byte, slope and intercept."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):  # by the standard: not scaled
        slope, intercept = 1.0, 0.0
    if not np.isfinite(intercept):
        raise VolumeError(path, f"has a damaged header, its scl_inter is {intercept}", HINT)
    code = int(header["datatype"])
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except Exception as error:  # of an unknown code nibabel raises several kinds
        raise VolumeError(path, f"has a damaged header, its datatype is {code}", HINT) from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise VolumeError(path, f"holds no plain numbers but {dtype}", "export it as int16 or float32")
    first = 4 + int(header["sizeof_hdr"])
    offset = float(header["vox_offset"]) or first
    if not first <= offset < 2**40:
        raise VolumeError(path, f"has a damaged header, its voxels begin at byte {offset}", HINT)
    return dtype, int(offset), slope, intercept


def _affine(header: Any, size: tuple[int, int, int], path: Path) -> tuple[FloatArray, tuple[str, ...]]:
    sform = np.asarray(header.get_sform(), float) if header["sform_code"] > 0 else None
    qform = None
    if header["qform_code"] > 0:
        try:
            qform = _qform(header, path)
        except VolumeError:
            if sform is None:
                raise
    # As in nibabel and FSL.
    affine = sform if sform is not None else qform
    if affine is None:
        wrong = "does not say where the patient lies: qform_code and sform_code are 0"
        raise VolumeError(path, wrong, "convert it from DICOM again, for example with dcm2niix")
    decisions = []
    if sform is not None and qform is not None:
        apart = _corners_apart(sform, qform, size)
        # A tenth of a voxel: a qform in single precision is never exact.
        if apart > 0.1 * np.linalg.norm(sform[:3, :3], axis=0).min():
            decisions.append(
                f"qform and sform place the corners up to {apart:.1f} mm apart; the sform was taken"
            )
    units = int(header["xyzt_units"]) & 7
    if units not in UNITS_IN_MM:
        raise VolumeError(path, f"has a damaged header, its xyzt_units are {units}", HINT)
    if UNITS_IN_MM[units] != 1:
        decisions.append(
            f"its header is in {'metres' if units == 1 else 'micrometres'}, turned into millimetres"
        )
        affine[:3] *= UNITS_IN_MM[units]
    return affine, tuple(decisions)


def _qform(header: Any, path: Path) -> FloatArray:
    """Return the affine of the quaternion; its handedness, pixdim 0, counts as 1 where it is not -1 or 1."""
    spacing = np.asarray(header["pixdim"][1:4], float)
    if not (np.isfinite(spacing).all() and spacing.min() > 0):
        raise VolumeError(path, f"has a spacing of {_numbers(spacing)}", HINT)
    # By the NIfTI-1 standard 0 counts as 1; nibabel would refuse it.
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(header.get_qform(), float)
    except ValueError as error:
        raise VolumeError(path, "has a qform that is no rotation", HINT) from error


def _numbers(values: FloatArray) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _corners_apart(a: FloatArray, b: FloatArray, size: tuple[int, int, int]) -> float:
    x, y, z = (n - 1 for n in size)
    corners = np.array([(i, j, k, 1) for i in (0, x) for j in (0, y) for k in (0, z)])
    return float(np.linalg.norm((corners @ (a - b).T)[:, :3], axis=1).max())


@dataclass(frozen=True)
class UprightGrid:
    """Size and place of a volume in LPS millimetres, and what was decided about it."""

    size: tuple[int, int, int]
    origin: tuple[float, ...]
    spacing: tuple[float, ...]
    direction: tuple[float, ...]
    decisions: tuple[str, ...] = ()

    def place(self, volume: sitk.Image) -> sitk.Image:
        """Place a volume here, and return it."""
        volume.SetOrigin(self.origin)
        volume.SetSpacing(self.spacing)
        volume.SetDirection(self.direction)
        return volume


def upright_grid(path: Path, size: Sequence[int], axes_mm: FloatArray, origin_mm: FloatArray) -> UprightGrid:
    """Place voxels on perpendicular axes, the nearest to the given ones.

    Args:
        path: Named in errors.
        size: Voxels along each axis.
        axes_mm: Step from voxel to voxel in LPS millimetres, one axis a column, shape (3, 3).
        origin_mm: Centre of the first voxel.

    Raises:
        VolumeError: A number is not finite, a spacing is 0, the axes lie in a plane, or they are sheared
            so much that a corner would move by more than a tenth of the smallest spacing.
    """
    if not (np.isfinite(axes_mm).all() and np.isfinite(origin_mm).all()):
        raise VolumeError(path, "has a header with values that are not finite", "export it again")
    spacing = np.linalg.norm(axes_mm, axis=0)
    farthest = max(spacing.max(), np.abs(origin_mm).max())
    if spacing.min() < NEAREST_MM or farthest > FARTHEST_MM:
        wrong = f"has a damaged place, with a spacing of {_numbers(spacing)} mm"
        raise VolumeError(path, wrong, "correct its header or export it again")
    cosines = axes_mm / spacing
    if abs(np.linalg.det(cosines)) < FLAT:
        raise VolumeError(path, "has axes that lie in one plane (a singular affine)", "export it again")
    # The orthogonal Procrustes solution: the factor U V^T of the singular value decomposition.
    left, _, right = np.linalg.svd(cosines)
    direction = left @ right  # the nearest rotation, with the handedness of the axes
    whole = np.round(direction)  # cosines of an axial scan become exactly 0 and 1
    direction = np.where(np.abs(direction - whole) < NOISE, whole + 0.0, direction)
    # An upper bound: the deviations of the three axes, added up over the whole volume.
    moved = np.abs((direction - cosines) * spacing * (np.array(size) - 1)).sum(axis=1)
    moved_mm = float(np.linalg.norm(moved))
    if moved_mm > MOST_MOVED * spacing.min():
        wrong = f"has sheared axes: made perpendicular, its corners would move by {moved_mm:.1f} mm"
        hint = "resample it to upright axes, for example with nibabel.processing.resample_to_output"
        raise VolumeError(path, wrong, hint)
    moved_note = (f"axes made perpendicular, corners moved by at most {moved_mm:.2f} mm",)
    return UprightGrid(
        size=(int(size[0]), int(size[1]), int(size[2])),
        origin=tuple(float(value) for value in origin_mm),
        spacing=tuple(spacing.tolist()),
        direction=tuple(direction.ravel().tolist()),
        decisions=moved_note if moved_mm > NOTED_ABOVE_MM else (),
    )
