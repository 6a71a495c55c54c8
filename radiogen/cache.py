"""Cache finished results on disk by what decides them, so that a killed run goes on where it stopped.

A result is written whole or not at all (`provenance.whole_file`), and one that is damaged, or was made of
something else, counts as absent: it is computed again. Nothing is ever unpickled.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radiogen import __version__
from radiogen.provenance import file_sha256, whole_file, write_json

Arrays = tuple[NDArray[Any], ...]


def key_of(*parts: Any) -> str:
    """Return the hexadecimal key of a result.

    Args:
        parts: All that decides the result. Arrays count by shape and bytes, paths by the content of their
            file, everything else by its `repr`. The version of radiogen counts too: another one may compute
            something else.
    """
    digest = hashlib.sha256(__version__.encode())
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(part.tobytes() + str(part.shape).encode())
        elif isinstance(part, Path):
            digest.update(file_sha256(part).encode())
        else:
            digest.update(repr(part).encode())
        digest.update(b"|")
    return digest.hexdigest()


def cached_arrays(folder: Path | None, key: str, compute: Callable[[], Arrays]) -> Arrays:
    """Return the arrays that were kept under a key, or compute and keep them; without a folder, compute."""
    if folder is None:
        return compute()
    path = folder / f"{key}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            return tuple(kept[f"arr_{number}"] for number in range(len(kept.files)))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        pass
    arrays = compute()
    with whole_file(path) as draft:
        np.savez(draft, *arrays)
    return arrays


def read_cached(path: Path, key: str) -> Any | None:
    """Read the value that a JSON file keeps under this key; None if it keeps none, or another key's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["value"] if content["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_cached(path: Path, key: str, value: Any) -> None:
    """Keep a value, such as JSON can hold, under this key; what the file kept before is replaced."""
    write_json(path, {"key": key, "value": value})
