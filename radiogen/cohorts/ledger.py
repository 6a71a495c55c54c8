"""Keep what became of each case of a run, one small file a case, and say from these how far the run is.

The results are judged by their own run records. The ledger only notes, by size and time of the files, that
they were judged, so that a run that is done need not read its volumes again.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from radiogen.cohorts.split import changes_since_split, twins
from radiogen.errors import ConfigError
from radiogen.io.cases import MANIFEST
from radiogen.locks import is_held
from radiogen.provenance import short_hash, write_json

HOME, SETTINGS, PLANNED, LOCK = ".cohort", "settings.json", "cases.json", "lock"
TRIES = 3  # once, and twice again after the worker died
Outcome = Literal["done", "failed", "stopped"]


@dataclass(frozen=True)
class LedgerEntry:
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
        worker: Process that did it; 0 if it died and the head writes for it.
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
    """Return a hash that stands for files as they are now: path, size and time of each."""
    lines = []
    for path in sorted(set(paths)):
        try:
            stat = path.stat()
            lines.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
        except OSError:
            lines.append(f"{path} absent")
    return short_hash("\n".join(lines))


class Ledger:
    """The hidden folder of a run."""

    def __init__(self, run: Path) -> None:
        self.run, self.home = run, run / HOME

    def read(self, case_id: str) -> LedgerEntry | None:
        """Read what became of a case; None where nothing is known."""
        content = self._content(f"cases/{case_id}.json")
        if content is None:
            return None
        try:
            content["hint"] = content.pop("way_out", content.get("hint", ""))
            return LedgerEntry(**content)
        except (TypeError, AttributeError):
            return None

    def write(self, entry: LedgerEntry) -> None:
        """Write what became of a case; the hint under the key `way_out`, which older versions wrote too."""
        content = {"way_out" if key == "hint" else key: value for key, value in asdict(entry).items()}
        write_json(self.home / "cases" / f"{entry.case_id}.json", content)

    def lock_of(self, case_id: str) -> Path:
        """Return the lock that the worker holds that has the case."""
        return self.home / "working" / case_id

    def tries(self, case_id: str, token: str) -> list[Path]:
        """Return the marks of workers that began this case since `token` and did not come to an end."""
        return sorted((self.home / "tries").glob(f"{case_id}.{token}.*"))

    def still_stands(self, entry: LedgerEntry) -> bool:
        """Return whether what came of a case is as it was left."""
        made = [self.run.absolute() / name for name in entry.made]
        return entry.outcome == "failed" or (entry.outcome == "done" and entry.outputs == stamp(made))

    def is_running(self) -> bool:
        """Return whether somebody works on the run now: a head, or a part of a job array."""
        return any(is_held(lock) for lock in self.home.glob(f"{LOCK}*"))

    def settings(self) -> dict[str, Any]:
        """Read the settings of the run, as JSON.

        Raises:
            ConfigError: The folder holds no run, or one whose head has not got so far.
        """
        settings = self._content(SETTINGS)
        if settings is None and self.is_running():
            raise ConfigError(self.run, "is still looking through its source", "ask again in a while")
        if settings is None:
            raise ConfigError(self.run, "holds no cohort run", "give the folder of radiogen cohort run -o")
        return settings

    def planned(self) -> dict[str, str]:
        """Read the cases of the run as its last head planned them: the hash of the settings by case id."""
        return self._content(PLANNED) or {}

    def store_plan(self, settings: dict[str, Any], planned: dict[str, str]) -> None:
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


@dataclass(frozen=True)
class CohortStatus:
    """How far a run is: counts of its cases, who is being worked on, and what has to be reported.

    Attributes:
        counts: Cases by `done`, `failed`, `working` and `waiting`.
        working: Ids of the cases that a worker has now.
        failures: Rows of case_id, step, reason and way_out.
        hours_left: While it runs, by the mean time of a case and the number of those at work.
        twins: Ids of different patients that hold one scan.
        changed: What changed since the split was drawn, in sentences.
    """

    run: str
    is_running: bool
    counts: dict[str, int]
    working: tuple[str, ...]
    failures: tuple[dict[str, str], ...]
    seconds_a_case: float | None
    peak_mb: float
    hours_left: float | None
    twins: tuple[tuple[str, ...], ...]
    changed: tuple[str, ...]


def cohort_status(run: Path) -> CohortStatus:
    """Count what is done, failed, being worked on and waiting; writes nothing.

    It reads the folder of the run alone: looking through a source of a hundred thousand files would be no
    glance. A source that changed since is noticed by the next run.

    Raises:
        ConfigError: The folder holds no run.
    """
    ledger = Ledger(run)
    settings = ledger.settings()
    counts: Counter[str] = Counter(dict.fromkeys(("done", "failed", "working", "waiting"), 0))
    working, failures, seconds, peak = [], [], [], 0.0
    for name, key in ledger.planned().items():
        entry = ledger.read(name)
        if entry is not None and entry.settings == key and ledger.still_stands(entry):
            counts[entry.outcome] += 1
            peak = max(peak, entry.peak_mb)
            if entry.outcome == "done":
                seconds.append(sum(entry.seconds.values()))
            else:
                cells = {"step": entry.step, "reason": entry.reason, "way_out": entry.hint}
                failures.append({"case_id": name, **cells})
        elif is_held(ledger.lock_of(name)):
            counts["working"] += 1
            working.append(name)
        else:
            counts["waiting"] += 1
    folder = run / "cases" if "ingest" in settings["steps"] else Path(settings["source"])
    mean = sum(seconds) / len(seconds) if seconds else None
    left = counts["waiting"] + counts["working"] / 2  # a case at work is half done on average
    return CohortStatus(
        run=str(run),
        is_running=ledger.is_running(),
        counts=dict(counts),
        working=tuple(working),
        failures=tuple(failures),
        seconds_a_case=None if mean is None else round(mean, 2),
        peak_mb=peak,
        hours_left=round(left * mean / len(working) / 3600, 2) if mean and working else None,
        twins=twins(folder),
        changed=changes_since_split(folder) if (folder / MANIFEST).is_file() else (),
    )
