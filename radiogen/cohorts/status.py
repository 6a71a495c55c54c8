"""How far a run is: read from its folder alone, while it runs or after."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from radiogen.cohorts.ledger import Ledger
from radiogen.cohorts.split import changes_since_split, twins
from radiogen.locks import is_held


@dataclass(frozen=True)
class Status:
    """Counts of the cases of a run, who is being worked on, and what has to be said."""

    run: str
    is_running: bool
    counts: dict[str, int]
    working: tuple[str, ...]
    failures: tuple[dict[str, str], ...]
    seconds_a_case: float | None
    peak_mb: float
    hours_left: float | None  # while it runs, by the pace and the number of those at work
    twins: tuple[tuple[str, ...], ...]
    changed: tuple[str, ...]  # since the split was drawn


def cohort_status(run: Path) -> Status:
    """Count what is done, failed, being worked on and waiting; writes nothing.

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
            if entry.outcome == "failed":
                why = {"step": entry.step, "reason": entry.reason, "way_out": entry.hint}
                failures.append({"case_id": name, **why})
        elif is_held(ledger.lock_of(name)):
            counts["working"] += 1
            working.append(name)
        else:
            counts["waiting"] += 1
    folder = run / "cases" if "ingest" in settings["steps"] else Path(settings["source"])
    pace = sum(seconds) / len(seconds) if seconds else None
    left = counts["waiting"] + counts["working"] / 2
    return Status(
        run=str(run),
        is_running=ledger.is_running(),
        counts=dict(counts),
        working=tuple(working),
        failures=tuple(failures),
        seconds_a_case=None if pace is None else round(pace, 2),
        peak_mb=peak,
        hours_left=round(left * pace / len(working) / 3600, 2) if pace and working else None,
        twins=twins(folder),
        changed=changes_since_split(folder) if (folder / "manifest.csv").is_file() else (),
    )
