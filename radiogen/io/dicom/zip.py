"""Unpack the DICOM files of a zip archive under names of our own, within limits.

Sizes are counted as members come out, not as the archive claims. Other archives are refused: they have no
index that could be checked before unpacking.
"""

import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from radiogen.errors import OutputError, RadiogenError, SeriesError
from radiogen.io.dicom.file_kind import looks_like_dicom
from radiogen.io.dicom.lidc import is_lidc_xml
from radiogen.provenance import short_hash

# Limits against archives that are built to fill a disk.
MOST_MEMBERS = 100_000
MOST_BYTES = 50 << 30  # unpacked
_BLOCK = 1 << 20  # bytes unpacked at once
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
    ValueError, RuntimeError, OSError,
)  # fmt: skip
_BY_HAND = "unpack it yourself and give the folder"


@contextmanager
def unpacked(source: Path, home: Path) -> Iterator[Path]:
    """Give the folder to read: the source itself, or for a zip archive its members, while the block lasts.

    Args:
        source: A folder, or any file; a zip archive is known by its content.
        home: The folder of results; members are unpacked into a hidden folder of it, which is removed.

    Raises:
        SeriesError: The archive is damaged, encrypted, or larger than the limits.
        OutputError: The folder of results cannot be written to.
        RadiogenError: What is raised within the block, with the archive in place of that folder.
    """
    if not (source.is_file() and zipfile.is_zipfile(source)):
        yield source
        return
    folder = home / f".unpacked-{short_hash(str(source.resolve()))}"
    # Remembered first: a refused archive must leave no empty folder behind.
    absent = [path for path in (home, *home.parents) if not path.exists()]
    try:
        _make_room(folder)
        _unpack(source, folder)
        yield folder
    except RadiogenError as error:
        error.thing = in_archive(Path(error.thing), folder, source)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for path in absent:  # created for the archive; they stay if the block wrote something there
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _make_room(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(
            folder.parent, f"cannot be written: {error.strerror}", "choose another place"
        ) from error


def in_archive(path: Path, folder: Path, archive: Path) -> str:
    """Return what a message calls a path: of an unpacked member the archive and our name of the member."""
    if path == folder:
        return str(archive)
    return f"{archive}: {path.name}" if folder in path.parents else str(path)


def _unpack(source: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > MOST_MEMBERS:
                raise SeriesError(
                    source, f"holds {len(members)} files, at most {MOST_MEMBERS} are read", _BY_HAND
                )
            if any(member.flag_bits & 1 for member in members):
                raise SeriesError(source, "is encrypted", _BY_HAND)
            # Names inside an archive are never used as paths: "../" would lead out of the folder.
            folders: dict[PurePosixPath, Path] = {}
            bytes_left = MOST_BYTES
            for n, member in enumerate(members, start=1):
                parent = PurePosixPath(member.filename).parent
                home = folders.setdefault(parent, folder / f"folder-{len(folders) + 1:05d}")
                # Sizes in the index of an archive may lie: bytes are counted as they come out.
                bytes_left -= _unpack_one(archive, member, home / f"member-{n:06d}", bytes_left)
                if bytes_left < 0:
                    wrong = f"unpacks to more than {MOST_BYTES >> 30} GiB"
                    raise SeriesError(source, wrong, "give it in parts, or unpacked")
            if bytes_left == MOST_BYTES:
                wrong = f"holds no CT: none of its {len(members)} files is DICOM"
                raise SeriesError(source, wrong, "give a zip of DICOM, or volume files as they are")
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SeriesError(source, f"cannot be unpacked: {reason}", "copy it again, or " + _BY_HAND) from error


def _unpack_one(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, bytes_left: int) -> int:
    """Write one member if it starts like DICOM or a LIDC reading; the number of bytes written."""
    with archive.open(member) as file:
        # The first bytes decide: reports, pictures and programs inside an archive never reach the disk.
        block = file.read(2048)
        if not looks_like_dicom(block) and not is_lidc_xml(block):
            return 0
        target.parent.mkdir(exist_ok=True)
        written = 0
        with target.open("wb") as out:
            while block and written <= bytes_left:
                out.write(block)
                written += len(block)
                block = file.read(_BLOCK)
        return written
