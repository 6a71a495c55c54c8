"""Write whole files, and beside each result a run record of what made it.

A batch can be killed at any moment: a file is there whole or not at all, and a result counts as done only
once its record, which is written last, says so.
"""

import csv
import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radiogen import __version__
from radiogen.errors import OutputError, RadiogenError
from radiogen.runtime import package_versions, peak_memory_mb

DRAFT = ".writing-"  # prefix of files and folders that are not whole yet


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Write a draft beside the target, flush it to disk and rename it.

    Yields:
        A path in the target's folder, with the target's endings, to write to.

    Raises:
        OutputError: The place cannot be written to.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=DRAFT, suffix="".join(target.suffixes), dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(target, f"cannot be written: {error.strerror}", "choose another place") from error
    draft = Path(name)
    try:
        yield draft
        mask = os.umask(0)  # it can only be read by setting it
        os.umask(mask)
        draft.chmod(0o666 & ~mask)  # mkstemp gives 0600, which no colleague could read
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        raise OutputError(
            target, f"cannot be written: {error.strerror or error}", "free some space"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def clear_drafts(folder: Path) -> None:
    """Remove the drafts that killed processes left: ours, and those of safetensors (`.tmp??????`)."""
    for pattern in (f"{DRAFT}*", ".tmp??????"):
        for draft in folder.glob(pattern):
            draft.unlink()


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Make a draft of a folder beside it, renamed when it is whole.

    Raises:
        OutputError: The folder is there and not empty, or cannot be written.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(out, "is there already", "choose a new folder")
    draft = out.with_name(f"{DRAFT}{out.name}")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        if out.is_dir():
            out.rmdir()
        draft.rename(out)
    except OSError as error:
        raise OutputError(out, f"cannot be written: {error.strerror or error}", "free some space") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def remove_if_refused(folder: Path) -> Iterator[None]:
    """If the input is refused, remove the folder and those above it that were not there before.

    An interruption or a bug removes nothing: the same command goes on with what it finds.
    """
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except RadiogenError:
        if absent:
            shutil.rmtree(absent[-1], ignore_errors=True)
        raise


def write_text(target: Path, text: str) -> None:
    """Write a text file whole."""
    with whole_file(target) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(target: Path, content: Any) -> None:
    """Write a JSON file whole, with stable order and a last newline."""
    write_text(target, json.dumps(content, indent=2, sort_keys=False, default=str) + "\n")


def write_csv(target: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table whole; a column that a row does not have is an empty cell."""
    with whole_file(target) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


FAILURE_COLUMNS = ("case_id", "step", "reason", "way_out")


def write_failures(target: Path, step: str, failures: Iterable[tuple[str, str, str]]) -> None:
    """Write the cases (case_id, reason, hint) that a step failed on; without any, remove the table."""
    cells = [(case_id, step, reason, hint) for case_id, reason, hint in failures]
    rows = [dict(zip(FAILURE_COLUMNS, row, strict=True)) for row in cells]
    if rows:
        write_csv(target, FAILURE_COLUMNS, rows)
    else:
        target.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(text: str) -> str:
    """Return twelve hexadecimal digits that stand for a text, for ids that must not show it."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def files_hash(*paths: Path) -> str:
    """Return twelve hexadecimal digits that stand for the content of files, in their order."""
    return short_hash("".join(file_sha256(path) for path in paths))


def record_path(result: Path) -> Path:
    """Return the path of a result's run record: `lesion.nii.gz` -> `lesion.run.json`; a folder holds its own.

    >>> record_path(Path("out/lesion.nii.gz")).as_posix()
    'out/lesion.run.json'
    """
    if result.is_dir():
        return result / f"{result.resolve().name}.run.json"
    return result.with_name(result.name.split(".")[0] + ".run.json")


@dataclass
class RunRecord:
    """What made a result. Start it before the work, `finish` it when the result is written."""

    verb: str
    options: Mapping[str, Any]
    seed: int | None = None
    inputs: Sequence[Path] = ()
    decisions: list[str] = field(default_factory=list)
    model_hash: str | None = None
    device: str | None = None
    started: float = field(default_factory=time.time)

    def finish(self, result: Path, outputs: Sequence[Path] = ()) -> Path:
        """Write the record beside `result`, last of all; `outputs` are hashed (default: `result` itself)."""
        files = list(outputs) or ([result] if result.is_file() else [])
        record = {
            "radiogen": __version__,
            "verb": self.verb,
            "options": dict(self.options),
            "seed": self.seed,
            "inputs": {path.name: file_sha256(path) for path in self.inputs if path.is_file()},
            "outputs": {path.name: file_sha256(path) for path in files},
            "model_hash": self.model_hash,
            "decisions": list(self.decisions),
            "device": self.device,
            "packages": package_versions(),
            "python": platform.python_version(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
            "wall_s": round(time.time() - self.started, 3),
            "peak_memory_mb": round(peak_memory_mb(), 1),
            "note": "not for clinical use",
        }
        target = record_path(result)
        write_json(target, record)
        return target


def is_done(result: Path, options: Mapping[str, Any], inputs: Sequence[Path], model_hash: str | None) -> bool:
    """Return whether `result` is as its run record says, and made with the same options, inputs and model."""
    folder = result if result.is_dir() else result.parent
    try:
        record = json.loads(record_path(result).read_text(encoding="utf-8"))
        if any(file_sha256(folder / name) != digest for name, digest in record["outputs"].items()):
            return False
        same_inputs = record["inputs"] == {path.name: file_sha256(path) for path in inputs}
        same_options = record["options"] == json.loads(json.dumps(dict(options), default=str))
        return bool(same_inputs and same_options and record["model_hash"] == model_hash)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
