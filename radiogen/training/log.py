"""What a training tells of itself while it runs: metrics.jsonl, progress.png, events for TensorBoard."""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from radiogen.drawing.plots import draw_training_progress
from radiogen.optional import require
from radiogen.provenance import write_text

PICTURE = "progress.png"


def dice_of_epochs(validation: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Mean Dice of the cases of each validation, by prior with its prompt: (epoch, Dice).

    >>> row = {"epoch": 4, "prior": "box", "prompt": "oracle"}
    >>> dice_of_epochs([{**row, "dice": 0.5}, {**row, "dice": 0.75}])
    {'box (oracle)': [(4, 0.625)]}
    """
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in validation:
        found[f"{row['prior']} ({row['prompt']})"][row["epoch"]].append(row["dice"])
    return {
        name: [(epoch, mean(dice)) for epoch, dice in sorted(rows.items())] for name, rows in found.items()
    }


METRICS_LINES, EVENTS = "metrics.jsonl", "tensorboard"
EVENT_FILE = "events.out.tfevents"
DRAW_AFTER_S = 60.0
Row = dict[str, Any]


class TrainingLog:
    """The rows of a training in a model folder; after a kill they begin with what the checkpoint knows.

    Args:
        folder: Of the model.
        tensorboard: Whether to write events too.

    Raises:
        MissingPackageError: TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, tensorboard: bool) -> None:
        self.folder = folder
        self.epochs: list[Row] = []
        self.validation: list[Row] = []
        self.drawn_at = 0.0
        self.events: Any = None
        if tensorboard:
            require("tensorboard", "track")
            from torch.utils.tensorboard import SummaryWriter

            shutil.rmtree(folder / EVENTS, ignore_errors=True)
            self.events = SummaryWriter(str(folder / EVENTS))

    def begin(self, epochs: Sequence[Row], validation: Sequence[Row]) -> None:
        """Write anew what is known: rows of steps that will be done again are gone."""
        self.epochs, self.validation = list(epochs), list(validation)
        rows = [("epoch", row) for row in epochs] + [("validation", row) for row in validation]
        rows.sort(key=lambda kind_row: kind_row[1]["epoch"])  # stable: an epoch before its validation
        write_text(self.folder / METRICS_LINES, "".join(_line(kind, row) for kind, row in rows))
        self._track(epochs, validation)

    def add_epoch(self, row: Row) -> None:
        """Append the row of an epoch."""
        self.epochs.append(row)
        self._append("epoch", [row])
        self._track([row], [])
        if time.monotonic() - self.drawn_at > DRAW_AFTER_S:
            self._draw()

    def add_validation(self, rows: Sequence[Row]) -> None:
        """Append the rows of a validation, one a case and prior."""
        self.validation += rows
        self._append("validation", rows)
        self._track([], rows)
        self._draw()

    def end(self) -> None:
        """Draw the last picture and close what is open."""
        self._draw()
        if self.events:
            self.events.close()
            for path in (self.folder / EVENTS).glob(f"{EVENT_FILE}.*"):  # its name tells this machine's
                path.rename(self.folder / EVENTS / f"{EVENT_FILE}.training")

    def _append(self, kind: str, rows: Iterable[Row]) -> None:
        with (self.folder / METRICS_LINES).open("a", encoding="utf-8") as file:
            file.write("".join(_line(kind, row) for row in rows))

    def _draw(self) -> None:
        self.drawn_at = time.monotonic()
        loss = [(row["epoch"], row["loss"]) for row in self.epochs]
        draw_training_progress(loss, dice_of_epochs(self.validation), self.folder / PICTURE)

    def _track(self, epochs: Sequence[Row], validation: Sequence[Row]) -> None:
        if not self.events:
            return
        for row in epochs:
            for name in ("loss", "learning_rate"):
                self.events.add_scalar(name, row[name], row["epoch"])
        for prompt, points in dice_of_epochs(validation).items():
            for epoch, dice in points:
                self.events.add_scalar(f"dice/{prompt}", dice, epoch)
        self.events.flush()


def _line(kind: str, row: Row) -> str:
    return json.dumps({"kind": kind, **row}) + "\n"
