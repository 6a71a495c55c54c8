"""The files of a run as evidence: a sentence is worth something only with the place where it can be read."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiogen.report.figures import figure
from radiogen.report.reading import Run

MOST_VALUES = 6  # that are counted one by one


@dataclass(frozen=True)
class Evidence:
    """One sentence, and where it can be read: a file of the run and a key or column in it."""

    sentence: str
    where: str


@dataclass(frozen=True)
class Files:
    """A run, the folder it was read from, and the `case.json` of its cases."""

    run: Run
    folder: Path
    cases: Sequence[dict[str, Any]] = ()

    def records(self, verb: str) -> list[tuple[str, dict[str, Any]]]:
        """Run records of a verb, with their places."""
        return [(path, record) for path, record in self.run.records if record.get("verb") == verb]

    @property
    def model(self) -> dict[str, Any]:
        """`config.json` of the segmentation model; empty where it is not at hand."""
        return self.run.training.config if self.run.training else {}


def at(content: Any, key: str) -> Any:
    """A value by its dotted key; None where there is none.

    >>> at({"a": {"b": 3}}, "a.b"), at({"a": 1}, "a.b")
    (3, None)
    """
    for name in key.split("."):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def counted(values: Iterable[Any]) -> str:
    """
    >>> counted(["a", "b", "a", ""])
    '2 a, 1 b, 1 not recorded'
    """
    found = Counter(str(value) if value not in (None, "") else "not recorded" for value in values)
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items(), key=lambda e: (-e[1], e[0])))


def spread(values: Iterable[Any]) -> str:
    """Counts of each value; of many different numbers their range.

    >>> spread([1.25, 2.5, 1.25]), spread([number / 10 for number in range(10)])
    ('2 1.25, 1 2.5', '0 to 0.9, 10 known')
    """
    every = list(values)
    numbers = [number for value in every if (number := figure(value)) is not None]
    if len(set(numbers)) <= MOST_VALUES:
        return counted(every)
    return f"{min(numbers):g} to {max(numbers):g}, {len(numbers)} known"


def named(content: Any) -> str:
    """Settings in one line, without those that are not set."""
    pairs = content.items() if isinstance(content, dict) else ()
    return ", ".join(f"{key} {value}" for key, value in pairs if value not in (None, "", [], {}))
