"""Train in processes that SIGKILL themselves, each at a moment of its own, and once more to the end."""

import os
import signal
import sys
from pathlib import Path

import torch
from training.tiny_run import tiny_settings

from radiogen import provenance
from radiogen.training import loop as training_module
from radiogen.training.settings import TrainOptions
from radiogen.training.train import train

EVERY_STEP = tiny_settings(
    *("training.checkpoint_minutes=0", "training.ema_decay=0.9"),
    *("training.validate_every=1", "training.patience=3"),
)
FOLDS = TrainOptions(preset="small", folds=2)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str) -> None:
    """Arrange the end: `writing N` within the N-th checkpoint, `saved N` right after it."""
    kind, number = moment.split()
    saved, count = training_module.save_checkpoint, [0]

    def half_written(path: Path, *rest: object) -> None:
        count[0] += 1
        if kind == "writing" and count[0] == int(number):
            provenance.os.fsync = lambda _file: die()  # the draft is there, its name is not yet
        saved(path, *rest)
        if kind == "saved" and count[0] == int(number):
            die()

    training_module.save_checkpoint = half_written


def main(cases: Path, out: Path, moments: list[str]) -> None:
    torch.set_num_threads(1)
    for moment in moments:
        child = os.fork()
        if child == 0:
            die_at(moment)
            train(cases, out, EVERY_STEP, FOLDS, torch.device("cpu"))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise SystemExit(f"{moment}: it came to its end")
    train(cases, out, EVERY_STEP, FOLDS, torch.device("cpu"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
