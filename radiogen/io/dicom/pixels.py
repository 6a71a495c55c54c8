"""Turn the stored numbers of CT slices into HU."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radiogen.errors import SeriesError
from radiogen.io.dicom.decode import Decoders
from radiogen.io.dicom.slice_header import BIG_ENDIAN, SliceFile, StoredPixels

HuArray = npt.NDArray[np.int16]
LOWEST_HU = -1024  # below air nothing is measured
HIGHEST_HU = 32767  # the end of int16
_BODY_HU = (-1000, 3000)  # a padding value between these would erase body or lung, and is not believed


@dataclass
class HuCounts:
    """What was done to the values of a series, counted in voxels or slices."""

    raised: int = 0
    lowered: int = 0
    padding: int = 0
    rounded: int = 0
    without_rescale: int = 0
    lossy: int = 0
    inverted: int = 0

    def decisions(self) -> list[str]:
        """Return one sentence for each thing that happened."""
        floor = LOWEST_HU
        sentences = (
            (self.raised, f"voxels below {floor} HU (outside the reconstruction) set to {floor}"),
            (self.lowered, f"voxels above {HIGHEST_HU} HU set to {HIGHEST_HU}"),
            (self.padding, f"voxels of the padding value set to {floor}"),
            (self.rounded, "slices have HU rounded to whole numbers"),
            (self.without_rescale, "slices have no rescale slope or intercept; taken as 1 and 0"),
            (self.lossy, "slices were once compressed with loss"),
            (self.inverted, "slices are MONOCHROME1: shown inverted, their HU are taken as stored"),
        )
        return [f"{count} {sentence}" for count, sentence in sentences if count]


def stored_numbers(slices: Sequence[SliceFile]) -> Generator[npt.NDArray[Any], None, None]:
    """Read the stored numbers of each slice in turn, shape (rows, columns), valid until the next is read.

    Uncompressed slices are read from the byte their header gave; others are decoded in processes of
    their own.

    Raises:
        SeriesError: A file is truncated, cannot be decoded, or has another size.
    """
    with Decoders() as decoders:
        buffer = bytearray(max(_bytes(item) for item in slices))
        decoded = decoders.decode([item for item in slices if item.pixels.offset < 0])
        for item in slices:
            stored = _native(item, buffer) if item.pixels.offset >= 0 else next(decoded)
            if stored.shape != item.size[::-1]:
                where = item.path.with_name(item.name)
                raise SeriesError(
                    where, f"holds {stored.shape} pixels, not {item.size[::-1]}", "copy it again"
                )
            yield stored


def _native(item: SliceFile, buffer: bytearray) -> npt.NDArray[Any]:
    """Read into a buffer that is kept from slice to slice: fresh memory costs more than the reading."""
    storage = item.pixels
    columns, rows = item.size
    byte_order = ">" if storage.syntax == BIG_ENDIAN else "<"
    kind = f"{byte_order}{'i' if storage.is_signed else 'u'}{storage.bits[0] // 8}"
    wanted = _bytes(item)
    try:
        with item.path.open("rb", buffering=0) as file:
            file.seek(storage.offset)
            count = file.readinto(memoryview(buffer)[:wanted])
    except OSError as error:
        raise SeriesError(item.path, f"cannot be read: {error.strerror}", "copy it again") from error
    if count < wanted:
        raise SeriesError(item.path, "is truncated: its pixel data ends early or is missing", "copy it again")
    return np.frombuffer(buffer, kind, rows * columns).reshape(rows, columns)


def _bytes(item: SliceFile) -> int:
    return item.size[0] * item.size[1] * item.pixels.bits[0] // 8


def convert_to_hu(stored: npt.NDArray[Any], storage: StoredPixels, counts: HuCounts, out: HuArray) -> None:
    """Apply rescale slope and intercept; padding and what lies below air become -1024.

    Args:
        stored: Stored numbers, shape (rows, columns).
        storage: What they mean.
        counts: Added to.
        out: Receives HU, same shape.
    """
    stored = _within_bits(stored, storage)
    slope = 1.0 if storage.slope is None else storage.slope
    intercept = 0.0 if storage.intercept is None else storage.intercept
    counts.without_rescale += storage.slope is None or storage.intercept is None
    counts.lossy += storage.is_lossy
    # A way of display (PS3.3, C.7.6.3.1.2): HU are taken as stored, the corners are checked later.
    counts.inverted += storage.photometric == "MONOCHROME1"
    low, high = int(stored.min()), int(stored.max())
    # Nearly every CT has slope 1 and a whole intercept: one addition in int16 instead of arithmetic in
    # float64.
    fits = min(low, low + intercept) >= -32768 and max(high, high + intercept) <= 32767
    if slope == 1 and intercept.is_integer() and abs(intercept) < 32768 and fits:
        same = stored.view(np.int16) if stored.itemsize == 2 else stored.astype(np.int16)
        np.add(same, np.int16(intercept), out=out)
    else:
        # A damaged slope gives infinite values, which are clipped and counted below.
        with np.errstate(over="ignore"):
            exact = stored.astype(np.float64) * slope + intercept
        whole = np.rint(exact)
        counts.rounded += bool(np.any(whole != exact))
        counts.lowered += int((whole > HIGHEST_HU).sum())
        np.clip(whole, -32768, HIGHEST_HU, out=whole)
        out[...] = whole
    padded = _padding(stored, storage, slope, intercept, low, high)
    if padded is not None:
        counts.padding += int(np.count_nonzero(padded & (out > LOWEST_HU)))
        out[padded & (out > LOWEST_HU)] = LOWEST_HU
    if low * slope + intercept < LOWEST_HU or high * slope + intercept < LOWEST_HU:
        counts.raised += int(np.count_nonzero(out < LOWEST_HU))
        np.maximum(out, LOWEST_HU, out=out)


def _within_bits(stored: npt.NDArray[Any], storage: StoredPixels) -> npt.NDArray[Any]:
    """Drop what lies above the highest bit (old overlays) or below the lowest, and extend the sign."""
    allocated, bits, high = storage.bits
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if bits == allocated:
        return native
    limits = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if storage.is_signed else (0, (1 << bits) - 1)
    if high == bits - 1 and limits[0] <= int(native.min()) and int(native.max()) <= limits[1]:
        return native
    kind = np.dtype(f"{'i' if storage.is_signed else 'u'}{native.dtype.itemsize}")
    width = 8 * native.dtype.itemsize
    # Left until the sign bit stands at the top, then back: an arithmetic shift extends the sign.
    return (native.view(kind) << (width - 1 - high)) >> (width - bits)


def _padding(
    stored: npt.NDArray[Any], storage: StoredPixels, slope: float, intercept: float, low: int, high: int
) -> npt.NDArray[np.bool_] | None:
    """Return the pixels from the padding value to its limit; None where there are none to believe."""
    if not storage.padding:
        return None
    # PixelPaddingRangeLimit may lie on either side of PixelPaddingValue.
    ends = sorted(_as_stored(value, storage) for value in storage.padding)
    hu = [end * slope + intercept for end in (ends[0], ends[-1])]
    if any(_BODY_HU[0] < value < _BODY_HU[1] for value in hu) or (hu[0] < 0) != (hu[1] < 0):
        return None
    if ends[-1] < low or ends[0] > high:
        return None
    return np.asarray((stored >= ends[0]) & (stored <= ends[-1]))


def _as_stored(value: int, storage: StoredPixels) -> int:
    """Return a padding value in the signedness of the pixels; writers confuse the two."""
    bits = storage.bits[0]
    value &= (1 << bits) - 1
    return value - (1 << bits) if storage.is_signed and value >= 1 << (bits - 1) else value
