"""What a training tells of itself while it runs: metrics.jsonl, a line an epoch and a validated case."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from radiogen.provenance import write_text

METRICS_LINES = "metrics.jsonl"


class TrainingLog:
    """metrics.jsonl of a model folder; after a kill it begins with what the checkpoint knows."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS_LINES

    def begin(self, epochs: Iterable[Mapping[str, Any]], validation: Iterable[Mapping[str, Any]]) -> None:
        """Write anew what is known: lines of steps that will be done again are gone."""
        rows = [("epoch", row) for row in epochs] + [("validation", row) for row in validation]
        rows.sort(key=lambda kind_row: kind_row[1]["epoch"])  # stable: an epoch before its validation
        write_text(self.path, "".join(_line(kind, row) for kind, row in rows))

    def add(self, kind: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows of a kind, `epoch` or `validation`."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(_line(kind, row) for row in rows))


def _line(kind: str, row: Mapping[str, Any]) -> str:
    return json.dumps({"kind": kind, **row}) + "\n"
