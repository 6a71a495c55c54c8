"""Read NRRD and MetaImage files with ITK, and refuse what ITK accepts in silence."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import SimpleITK as sitk

from radiogen.errors import VolumeError
from radiogen.io.nifti_header import upright_grid

HEADER_BYTES = 1 << 16  # of a MetaImage; its keys stand at the start
PLACE = re.compile(
    rb"^\s*(ElementSpacing|ElementSize|Offset|Origin|Position|TransformMatrix|Rotation|Orientation)\s*="
    rb"\s*(.+?)\s*$",
    re.MULTILINE,
)


def read_itk(path: Path) -> tuple[sitk.Image, tuple[str, ...]]:
    """Read an NRRD or MetaImage file.

    Returns:
        The volume and what was decided.

    Raises:
        VolumeError: It is damaged or truncated, not one 3D volume, or its place is not usable.
    """
    # ITK reads damaged numbers of a header as 0 or 1 without an error, so the text is checked first.
    _check_place(path)
    with _captured_stderr() as printed:
        try:
            volume = sitk.ReadImage(str(path))
        except RuntimeError as error:
            printed.seek(0)
            text = f"{error}{printed.read().decode(errors='replace')}"
            if "not read completely" in text or re.search(r"got only|but received", text):
                raise VolumeError(path, "is truncated", "copy it again") from error
            raise VolumeError(path, "cannot be read as a volume", "copy it again or convert it") from error
    # Some exporters write a 3D volume as one time point.
    if volume.GetDimension() == 4 and volume.GetSize()[3] == 1:
        volume = volume[:, :, :, 0]
    if volume.GetDimension() != 3 or volume.GetNumberOfComponentsPerPixel() != 1:
        raise VolumeError(path, f"is not one 3D volume but {volume.GetSize()}", "give one time point")
    direction = np.array(volume.GetDirection()).reshape(3, 3)
    axes, origin = direction * volume.GetSpacing(), np.array(volume.GetOrigin())
    grid = upright_grid(path, volume.GetSize(), axes, origin)
    return grid.place(volume), grid.decisions


def _check_place(path: Path) -> None:
    """Refuse a MetaImage with a place that is no number or a spacing that is not above 0.

    ITK takes 0 or 1 for the one, drops the sign of the other, and says nothing.
    """
    if path.suffix.lower() not in (".mha", ".mhd"):
        return
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES).partition(b"ElementDataFile")[0]
    except OSError as error:
        raise VolumeError(path, f"cannot be read: {error.strerror}", "copy it again") from error
    for key, text in PLACE.findall(head):
        try:
            values = np.array([float(word) for word in text.split()])
        except ValueError:
            values = np.array([np.nan])
        if not np.isfinite(values).all() or (key.startswith(b"Element") and values.min() <= 0):
            name, shown = key.decode(), text.decode(errors="replace")[:40]
            raise VolumeError(path, f"has {name} = {shown}", "correct its header or export it again")


@contextmanager
def _captured_stderr() -> Iterator[IO[bytes]]:
    """Catch what C libraries print about damaged files: an error stays the one line that radiogen raises."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    sys.stderr.flush()
    # The libraries write to file descriptor 2 themselves; replacing sys.stderr would not catch them.
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as printed:
            os.dup2(printed.fileno(), 2)
            try:
                yield printed
            finally:
                os.dup2(kept, 2)
    finally:
        os.close(kept)
