"""Read a whole DICOM file that holds an outline, without letting a crafted one fill the memory."""

import zlib
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

MOST_BYTES = 4_000_000_000
MOST_INFLATED_BYTES = 1_000_000_000
_CHUNK = 1 << 20


def read_whole(path: Path) -> Dataset:
    """Read a DICOM file with all it holds.

    Raises:
        ValueError: It is larger than an outline can be, packed or unpacked.
        Exception: It is damaged; pydicom raises nearly anything.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES} bytes")
    _check_deflated(path)
    return dcmread(path, force=True)


def _check_deflated(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        file.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
        inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while size <= MOST_INFLATED_BYTES and (packed := inflate.unconsumed_tail or file.read(_CHUNK)):
            size += len(inflate.decompress(packed, _CHUNK))
    if size > MOST_INFLATED_BYTES:
        raise ValueError(f"unpacks to more than {MOST_INFLATED_BYTES} bytes")
