"""Turn the stored numbers of CT slices into HU."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread

from radiogen.errors import SeriesError

HuArray = npt.NDArray[np.int16]
LOWEST_HU, HIGHEST_HU = -1024, 32767  # below air nothing is measured; above is the end of int16
_PADDING_LIKE = (-1000, 3000)  # a padding value between these is body or lung and is not believed


@dataclass
class HuNotes:
    """What was done to the values of a series, counted in voxels or slices."""

    raised: int = 0
    lowered: int = 0
    padding: int = 0
    rounded: int = 0
    without_rescale: int = 0

    def decisions(self) -> list[str]:
        """One sentence for each thing that happened."""
        floor = LOWEST_HU
        said = (
            (self.raised, f"voxels below {floor} HU (outside the reconstruction) set to {floor}"),
            (self.lowered, f"voxels above {HIGHEST_HU} HU set to {HIGHEST_HU}"),
            (self.padding, f"voxels of the padding value set to {floor}"),
            (self.rounded, "slices have HU rounded to whole numbers"),
            (self.without_rescale, "slices have no rescale slope or intercept; taken as 1 and 0"),
        )
        return [f"{count} {what}" for count, what in said if count]


def read_slice_hu(path: Path, size: tuple[int, int], notes: HuNotes) -> HuArray:
    """The HU of one slice file, shape (rows, columns).

    Args:
        path: A DICOM file of one CT slice, in any transfer syntax with a decoder.
        size: Columns and rows that are expected.
        notes: Is added to.

    Raises:
        SeriesError: The file is truncated, cannot be decoded, or has another size.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values that are not used here
        try:
            dataset = dcmread(path, force=True)
            stored = dataset.pixel_array
        except Exception as error:  # decoders raise nearly anything
            raise SeriesError(path, _why_unreadable(error), "copy the file again, or leave it out") from error
    if stored.shape != size[::-1]:
        raise SeriesError(path, f"holds {stored.shape} voxels, not {size[::-1]}", "copy the file again")
    try:
        return hu_of(stored, dataset, notes)
    except Exception as error:  # pydicom converts a value only now, and raises nearly anything
        raise SeriesError(path, f"its rescale values are damaged: {error}", "copy the file again") from error


def _why_unreadable(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "less than expected" in text or isinstance(error, (EOFError, AttributeError)):
        return "is truncated: its pixel data ends early or is missing"
    return f"its pixel data cannot be decoded: {text[:200]}"


def hu_of(stored: npt.NDArray[Any], dataset: Dataset, notes: HuNotes) -> HuArray:
    """Apply rescale slope and intercept, take padding and what lies below air as -1024; int16."""
    given = [dataset.get(key) not in (None, "") for key in ("RescaleSlope", "RescaleIntercept")]
    slope = float(dataset.RescaleSlope) if given[0] else 1.0
    intercept = float(dataset.RescaleIntercept) if given[1] else 0.0
    notes.without_rescale += not all(given)
    hu: npt.NDArray[Any]
    if slope == 1.0 and intercept.is_integer():
        hu = stored.astype(np.int32) + int(intercept)
    else:
        exact = stored * slope + intercept
        hu = np.rint(exact)
        notes.rounded += bool(np.any(hu != exact))
    padding = _padding_value(dataset)
    if padding is not None and not _PADDING_LIKE[0] < padding * slope + intercept < _PADDING_LIKE[1]:
        padded = (stored == padding) & (hu > LOWEST_HU)
        notes.padding += int(padded.sum())
        hu[padded] = LOWEST_HU
    notes.raised += int((hu < LOWEST_HU).sum())
    notes.lowered += int((hu > HIGHEST_HU).sum())
    return np.clip(hu, LOWEST_HU, HIGHEST_HU).astype(np.int16)


def _padding_value(dataset: Dataset) -> int | None:
    """PixelPaddingValue in the signedness of the voxels; writers confuse the two."""
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    bits = int(dataset.BitsAllocated)
    value &= (1 << bits) - 1
    if dataset.PixelRepresentation == 1 and value >= 1 << (bits - 1):
        value -= 1 << bits
    return value
