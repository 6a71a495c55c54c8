"""Read a whole DICOM file that holds an outline, without letting a crafted one fill the memory."""

from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from radiogen.io.dicom.decode import decode_frames
from radiogen.io.dicom.headers import inflated

MOST_BYTES = 4_000_000_000


def read_whole(path: Path) -> Dataset:
    """Read a DICOM file with all it holds.

    Raises:
        ValueError: It is larger than an outline can be.
        Exception: It is damaged; pydicom raises nearly anything.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES} bytes")
    with path.open("rb") as file:
        stream = inflated(file, file.read(2048))
        stream.seek(0)
        return dcmread(stream, force=True)


def is_compressed(dataset: Dataset) -> bool:
    """Whether its pixels need a decoder."""
    meta = getattr(dataset, "file_meta", None)
    return bool(meta is not None and "TransferSyntaxUID" in meta and meta.TransferSyntaxUID.is_compressed)


def decompress(dataset: Dataset, path: Path) -> None:
    """Replace compressed pixels by plain ones; the decoder runs in a process of its own.

    Raises:
        ValueError: A frame cannot be decoded, or its decoder died or took too long.
    """
    frames = range(int(dataset.get("NumberOfFrames") or 1))
    decoded = np.stack(list(decode_frames(path, frames)))
    if int(dataset.BitsAllocated) == 1:
        plain = np.packbits(decoded.astype(bool).ravel(), bitorder="little").tobytes()
    else:
        plain = decoded.astype(f"<u{int(dataset.BitsAllocated) // 8}").tobytes()
    put_pixels(dataset, plain)


def put_pixels(dataset: Dataset, plain: bytes) -> None:
    """Give a data set uncompressed pixels."""
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = plain + b"\0" * (len(plain) % 2)
    dataset["PixelData"].is_undefined_length = False
