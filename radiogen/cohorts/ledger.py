"""What became of each case: one small file a case, in the hidden folder of a run.

The results are judged by their own run records. The ledger only remembers, by size and time of the files,
that they were judged, so that a run that is done need not read its volumes again.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from radiogen.errors import ConfigError
from radiogen.locks import is_held
from radiogen.provenance import short_hash, write_json

HOME, SETTINGS, PLANNED, LOCK = ".cohort", "settings.json", "cases.json", "lock"
TRIES = 3  # once, and twice again after the worker died
Outcome = Literal["done", "failed", "stopped"]


@dataclass(frozen=True)
class Entry:
    """What became of one case.

    Attributes:
        case_id: The case.
        outcome: `stopped`: nothing can be written, so the whole run ends.
        settings: Hash of all that decides its results.
        inputs, outputs: Stamps of its files.
        made: The files of `outputs`, relative to the run.
        step, reason, hint: Of a failure.
        seconds: By step, of what was computed now.
        peak_mb: The largest size of the worker so far.
        worker: Process that did it.
    """

    case_id: str
    outcome: Outcome
    settings: str
    inputs: str = ""
    outputs: str = ""
    made: tuple[str, ...] = ()
    step: str = ""
    reason: str = ""
    hint: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0
    worker: int = 0


def stamp(paths: Iterable[Path]) -> str:
    """Stands for files as they are now: path, size and time of each."""
    said = []
    for path in sorted(set(paths)):
        try:
            about = path.stat()
            said.append(f"{path} {about.st_size} {about.st_mtime_ns}")
        except OSError:
            said.append(f"{path} absent")
    return short_hash("\n".join(said))


class Ledger:
    """The hidden folder of a run."""

    def __init__(self, run: Path) -> None:
        self.run, self.home = run, run / HOME

    def read(self, case_id: str) -> Entry | None:
        """What became of a case; None where nothing is known."""
        try:
            return Entry(**json.loads(self._place(case_id).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, entry: Entry) -> None:
        """Remember what became of a case."""
        write_json(self._place(entry.case_id), asdict(entry))

    def forget(self, case_id: str) -> None:
        """As if the case had never been tried."""
        self._place(case_id).unlink(missing_ok=True)

    def lock_of(self, case_id: str) -> Path:
        """Held by the worker that has the case."""
        return self.home / "working" / case_id

    def tries(self, case_id: str, token: str) -> list[Path]:
        """Marks of workers that began this case in this run and did not come to an end."""
        return sorted((self.home / "tries").glob(f"{case_id}.{token}.*"))

    def still_stands(self, entry: Entry) -> bool:
        """Whether what came of a case is as it was left."""
        made = [self.run.absolute() / name for name in entry.made]
        return entry.outcome == "failed" or (entry.outcome == "done" and entry.outputs == stamp(made))

    def is_running(self) -> bool:
        """Whether somebody works on the run now: a head, or a part of a job array."""
        return any(is_held(lock) for lock in self.home.glob(f"{LOCK}*"))

    def settings(self) -> dict[str, Any]:
        """The settings of the run, as JSON.

        Raises:
            ConfigError: The folder holds no run, or one whose head has not got so far.
        """
        said = self._content(SETTINGS)
        if said is None and self.is_running():
            raise ConfigError(self.run, "is still looking through its source", "ask again in a while")
        if said is None:
            raise ConfigError(self.run, "holds no cohort run", "give the folder of radiogen cohort run -o")
        return said

    def planned(self) -> dict[str, str]:
        """The cases of the run as its last head saw them: the hash of the settings by case id."""
        return self._content(PLANNED) or {}

    def remember(self, settings: dict[str, Any], planned: dict[str, str]) -> None:
        """Write settings and cases for `retry` and `status`, unless they are there."""
        if self.planned() != planned:
            write_json(self.home / PLANNED, planned)
        if self._content(SETTINGS) != settings:
            write_json(self.home / SETTINGS, settings)

    def _content(self, name: str) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = json.loads((self.home / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content

    def _place(self, case_id: str) -> Path:
        return self.home / "cases" / f"{case_id}.json"
