"""The folder of a benchmark: what it is of, which runs are done, and what to do with what is there."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from radiogen.errors import OutputError
from radiogen.provenance import clear_drafts, record_path, write_json

ABOUT, RUNS = "benchmark.json", "runs"
Existing = Literal["skip", "overwrite", "fail"]


def open_benchmark(out: Path, about: Mapping[str, Any], existing: Existing) -> Path:
    """Make the folder of a benchmark, or go on with one of the same kind.

    Args:
        out: Its folder.
        about: What decides every number of it; a folder made with something else is refused.
        existing: What happens to a benchmark that is there; `skip` goes on with it.

    Returns:
        The folder of its runs.

    Raises:
        OutputError: The folder holds something else, or a benchmark and `existing` is fail.
    """
    wanted = json.loads(json.dumps(about, default=str))
    if out.is_dir() and any(out.iterdir()):
        if not (out / ABOUT).is_file():
            raise OutputError(out, "holds something else", "choose another folder")
        if existing == "fail":
            raise OutputError(out, "holds a benchmark", "choose another folder or --existing overwrite")
        if existing == "overwrite":
            shutil.rmtree(out)
        elif (there := _read(out / ABOUT)) != wanted:
            changed = ", ".join(name for name in wanted if there.get(name) != wanted[name])
            way_out = "choose another folder or --existing overwrite"
            raise OutputError(out, f"holds a benchmark with another {changed}", way_out)
    clear_drafts(out / RUNS)
    if out.is_dir():
        record_path(out).unlink(missing_ok=True)
    write_json(out / ABOUT, wanted)
    (out / RUNS).mkdir(exist_ok=True)
    return out / RUNS


def _read(path: Path) -> dict[str, Any]:
    try:
        there: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return dict(there)
    except (OSError, ValueError, TypeError) as error:
        raise OutputError(path, "cannot be read", "take --existing overwrite") from error
