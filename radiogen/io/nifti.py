"""Read and write volumes as NIfTI (and read NRRD and MetaImage); where RAS meets LPS."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from radiogen.errors import VolumeError
from radiogen.provenance import whole_file

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


def is_volume_file(path: Path) -> bool:
    """Whether the name ends like a volume file."""
    return path.name.lower().endswith(VOLUME_ENDINGS)


def read_volume(path: Path) -> sitk.Image:
    """Read a volume; ITK turns the RAS of NIfTI into LPS.

    Raises:
        VolumeError: The file is missing, damaged, not 3D, or holds values or a place that are not finite.
    """
    if not path.is_file():
        raise VolumeError(path, "is not a file", "give a NIfTI, NRRD or MHA file")
    _check_whole(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK writes to stderr of what it then raises or mends
    try:
        volume = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise VolumeError(path, "cannot be read as a volume", "copy it again or convert it") from error
    if volume.GetDimension() == 4 and volume.GetSize()[3] == 1:
        volume = volume[:, :, :, 0]
    if volume.GetDimension() != 3 or volume.GetNumberOfComponentsPerPixel() != 1:
        raise VolumeError(path, f"is not one 3D volume but {volume.GetSize()}", "give one time point")
    place = [*volume.GetOrigin(), *volume.GetSpacing(), *volume.GetDirection()]
    if not np.isfinite(place).all():
        raise VolumeError(path, "has a header with values that are not finite", "export it again")
    if not _is_finite(path, volume):
        raise VolumeError(path, "holds values that are not finite", "export it again without NaN")
    return volume


def _check_whole(path: Path) -> None:
    """Refuse a NIfTI file that ends early: ITK reads what is missing as 0 and says nothing."""
    name = path.name.lower()
    try:
        there = _unpacked_bytes(path) if name.endswith(".gz") else path.stat().st_size
    except (EOFError, OSError, zlib.error) as error:
        raise VolumeError(path, "is truncated or damaged", "copy it again") from error
    if name.endswith((".nii", ".nii.gz")) and there < _needed_bytes(path):
        raise VolumeError(path, "is truncated", "copy it again")


def _unpacked_bytes(path: Path) -> int:
    with gzip.open(path) as file:
        return sum(len(block) for block in iter(lambda: file.read(1 << 24), b""))


def _needed_bytes(path: Path) -> int:
    """How long a NIfTI file must be by its header; 0 where that is for ITK to judge."""
    import nibabel

    try:
        voxels = nibabel.load(path).dataobj
        return int(voxels.offset + np.prod(voxels.shape, dtype=np.int64) * voxels.dtype.itemsize)
    except Exception:  # damaged headers make nibabel raise nearly anything
        return 0


def _is_finite(path: Path, volume: sitk.Image) -> bool:
    """Whether all values are numbers. The library below ITK turns NaN in NIfTI into 0, which is water."""
    values = sitk.GetArrayViewFromImage(volume)
    if values.dtype.kind != "f":
        return True
    if path.name.lower().endswith((".nii", ".nii.gz")):
        import nibabel

        try:
            values = np.asanyarray(nibabel.load(path).dataobj)
        except Exception as error:  # damaged headers make nibabel raise nearly anything
            raise VolumeError(path, "cannot be read as a volume", "copy it again or convert it") from error
    return bool(np.isfinite(values).all())


def read_mask(path: Path) -> sitk.Image:
    """Read a mask of labels 0..255 as uint8.

    Raises:
        VolumeError: As `read_volume`, or the values are not whole numbers from 0 to 255.
    """
    volume = read_volume(path)
    values = sitk.GetArrayViewFromImage(volume)
    if values.min() < 0 or values.max() > 255 or np.any(values != np.round(values)):
        raise VolumeError(path, "is not a mask of whole numbers from 0 to 255", "give a label mask")
    return sitk.Cast(volume, sitk.sitkUInt8)


def write_volume(volume: sitk.Image, path: Path) -> None:
    """Write a volume whole, compressed if the name ends in .gz."""
    with whole_file(path) as draft:
        sitk.WriteImage(volume, str(draft), useCompression=path.name.endswith(".gz"))
