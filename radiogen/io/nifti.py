"""Read and write volumes as NIfTI (and read NRRD and MetaImage); where RAS meets LPS."""

import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from isal import igzip
from isal.igzip_lib import IsalError

from radiogen.errors import VolumeError
from radiogen.io.itk import read_itk
from radiogen.io.nifti_header import NiftiHeader, UprightGrid, read_nifti_header, upright_grid
from radiogen.provenance import whole_file, write_text

# Nearly all the time of writing a CT is gzip. ISA-L at level 2 of 0 to 3 takes 0.10 s for a chest CT of
# 52 MB, zlib-ng 0.36 s, SimpleITK 0.87 s, for a file that is 7 % larger than that of SimpleITK.
LEVEL = 2
BLOCK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
NIFTI_ENDINGS = (".nii.gz", ".nii")
LPS_SIGNS = np.array([-1.0, -1.0, 1.0])  # of x, y, z between RAS and LPS, either way
SCANNER = 1  # the code of a qform and sform that are those of the scanner
# What reading a damaged file raises; a damaged header can ask for more memory than there is.
UNREADABLE: tuple[type[Exception], ...] = (EOFError, OSError, MemoryError, cast(type[Exception], IsalError))


@dataclass(frozen=True)
class VolumeFile:
    """A volume and what was decided when it was read, in sentences."""

    volume: sitk.Image
    decisions: tuple[str, ...]


def is_volume_file(path: Path) -> bool:
    """Return whether the name ends like a volume file."""
    return path.name.lower().endswith(VOLUME_ENDINGS)


def read_volume(path: Path) -> sitk.Image:
    """Read a volume; the RAS of NIfTI becomes LPS.

    Raises:
        VolumeError: The file is missing, damaged, not 3D, or holds values or a place that are not usable.
    """
    return read_volume_file(path).volume


def read_volume_file(path: Path) -> VolumeFile:
    """Read a volume with the decisions about its place.

    Of NIfTI, the sform counts where its code is set, else the qform. Scaling is applied: then, and from
    doubles, the values are float32; else they keep their type.

    Raises:
        VolumeError: As `read_volume`.
    """
    _check_there(path)
    is_nifti = path.name.lower().endswith(NIFTI_ENDINGS)
    volume, decisions = _read_nifti(path) if is_nifti else read_itk(path)
    values = sitk.GetArrayViewFromImage(volume)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise VolumeError(path, "holds values that are not finite", "export it again without NaN")
    return VolumeFile(volume, decisions)


def read_grid(path: Path) -> sitk.Image:
    """Return size and place of a NIfTI file: an image of one byte a voxel; the voxels are not read.

    Raises:
        VolumeError: The file is missing, its header is damaged, or its place is not usable.
    """
    _check_there(path)
    try:
        with open_unpacked(path) as file:
            grid = _grid(path, read_nifti_header(file, path))
    except UNREADABLE as error:
        raise VolumeError(path, "is truncated or damaged", "copy it again") from error
    return grid.place(sitk.Image(grid.size, sitk.sitkUInt8))


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise VolumeError(path, "is not a file", "give a NIfTI, NRRD or MHA file")


def _read_nifti(path: Path) -> tuple[sitk.Image, tuple[str, ...]]:
    try:
        with open_unpacked(path) as file:
            header = read_nifti_header(file, path)
            grid = _grid(path, header)
            values = _read_voxels(file, header)
    except UNREADABLE as error:
        raise VolumeError(path, "is truncated or damaged", "copy it again") from error
    is_scaled = header.slope != 1 or header.intercept != 0
    if is_scaled:
        values = values * header.slope + header.intercept
    if is_scaled or values.dtype == np.float64:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused as such
            values = values.astype(np.float32)
    volume = sitk.GetImageFromArray(values.reshape(header.size[::-1]))
    return grid.place(volume), grid.decisions


def _read_voxels(file: Any, header: NiftiHeader) -> npt.NDArray[Any]:
    """Return the numbers as they are stored, in the file's order: the first axis runs fastest."""
    read_exactly(file, header.offset - file.tell())
    count = int(np.prod(header.size, dtype=np.int64))
    stored = read_exactly(file, count * header.dtype.itemsize).view(header.dtype)
    file.read(BLOCK)  # gzip compares its checksum when it comes to the end
    # ITK takes native byte order only.
    return stored.astype(header.dtype.newbyteorder("="), copy=False)


def _grid(path: Path, header: NiftiHeader) -> UprightGrid:
    axes, origin = LPS_SIGNS[:, None] * header.affine[:3, :3], LPS_SIGNS * header.affine[:3, 3]
    grid = upright_grid(path, header.size, axes, origin)
    return replace(grid, decisions=(*header.decisions, *grid.decisions))


def read_mask(path: Path) -> sitk.Image:
    """Read a mask of labels 0..255 as uint8.

    Raises:
        VolumeError: As `read_volume`, or the values are not whole numbers from 0 to 255.
    """
    volume = read_volume(path)
    values = sitk.GetArrayViewFromImage(volume)
    if values.dtype != np.uint8 and (
        values.min() < 0 or values.max() > 255 or np.any(values != np.round(values))
    ):
        raise VolumeError(path, "is not a mask of whole numbers from 0 to 255", "give a label mask")
    return sitk.Cast(volume, sitk.sitkUInt8)


def write_volume(volume: sitk.Image, path: Path, scale: float = 1.0) -> None:
    """Write a volume whole, compressed if the name ends in .gz; the same volume gives the same bytes.

    NIfTI is written without a copy of the voxels, with qform and sform alike, in millimetres. Other
    endings are left to ITK.

    Args:
        volume: What is written.
        path: File to write.
        scale: NIfTI only: what readers multiply the stored values with (`scl_slope`).
    """
    with whole_file(path) as draft:
        if not path.name.lower().endswith(NIFTI_ENDINGS):
            sitk.WriteImage(volume, str(draft))
            return
        voxels = np.asarray(sitk.GetArrayViewFromImage(volume))
        parts: tuple[Any, ...] = (_header_bytes(volume, voxels.dtype, scale), voxels)
        if path.name.lower().endswith(".gz"):
            write_gzip(draft, parts)
        else:
            with draft.open("wb") as file:
                file.writelines(memoryview(part).cast("B") for part in parts)


def affine_of(volume: sitk.Image) -> npt.NDArray[np.float64]:
    """Return the affine from voxel indices to RAS millimetres, shape (4, 4)."""
    affine = np.eye(4)
    direction = np.array(volume.GetDirection()).reshape(3, 3)
    affine[:3, :3] = LPS_SIGNS[:, None] * direction * volume.GetSpacing()
    affine[:3, 3] = LPS_SIGNS * volume.GetOrigin()
    return affine


def _header_bytes(volume: sitk.Image, dtype: np.dtype[Any], scale: float) -> bytes:
    from nibabel import Nifti1Header

    header = Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(volume.GetSize())
    affine = affine_of(volume).astype(np.float32) + np.float32(0)  # no negative zeros
    header.set_sform(affine, SCANNER)
    # Both forms alike, so that readers of either agree; the qform is less exact in single precision.
    header.set_qform(affine, SCANNER)
    header.set_xyzt_units("mm")
    header.set_slope_inter(scale, 0.0)
    # 348 bytes of header and 4 that announce no extension.
    header["vox_offset"] = 352
    return bytes(header.binaryblock) + bytes(4)


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file for reading, through gzip if it is packed, whatever it is called."""
    with path.open("rb") as file:
        # Some files named .nii.gz are not packed, and some named .nii are.
        is_packed = file.read(2) == GZIP_MAGIC
    opened: IO[bytes] = igzip.open(path, "rb") if is_packed else path.open("rb")
    return opened


def read_exactly(file: IO[bytes], count: int) -> npt.NDArray[np.uint8]:
    """Return the next bytes of a file; memory is used only as far as there are bytes.

    Raises:
        EOFError: There are fewer than `count`.
    """
    buffer = np.empty(count, np.uint8)
    view = buffer.data
    filled = 0
    while filled < count:
        read = file.readinto(view[filled : filled + BLOCK])  # type: ignore[attr-defined]
        if not read:
            raise EOFError(f"{filled} bytes where {count} are needed")
        filled += read
    return buffer


def write_gzip(path: Path, parts: Iterable[Any]) -> None:
    """Write buffers one after the other as one gzip member without name and date.

    The packed bytes depend on the content, on `LEVEL`, and on the release of ISA-L.
    """
    with path.open("wb") as file:
        # No name and no date in the gzip header: the same volume gives the same bytes.
        packer = igzip.IGzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0)
        with closing(packer) as packed:
            for part in parts:
                view = memoryview(part).cast("B")
                for start in range(0, len(view), BLOCK):
                    packed.write(view[start : start + BLOCK])


# The first six of the NPG palette of the R package ggsci.
COLOURS = ((230, 75, 53), (77, 187, 213), (0, 160, 135), (60, 84, 136), (243, 155, 127), (132, 145, 180))


def label_colour(label: int) -> tuple[int, int, int]:
    """Return red, green, blue of a label from 1; the same in every format."""
    return COLOURS[(label - 1) % len(COLOURS)]


def write_colour_table(names: Mapping[int, str], path: Path) -> None:
    """Write the colour table of a mask, a `.ctbl` of 3D Slicer: number, name, RGB and opacity a line.

    Args:
        names: By label, from 1; what is no word character becomes an underscore, as Slicer wants it.
        path: The file.
    """
    lines = [
        f"# Color table file {path.name}",
        f"# {max(names, default=0) + 1} values",
        "0 background 0 0 0 0",
    ]
    for label, name in sorted(names.items()):
        word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or f"label_{label}"
        lines.append(f"{label} {word} {' '.join(map(str, label_colour(label)))} 255")
    write_text(path, "\n".join(lines) + "\n")
