"""What a training will take, in words."""

from dataclasses import dataclass

from radiogen.errors import TrainingError


@dataclass(frozen=True)
class Forecast:
    """What a training takes, measured on one step and one case, and what is there."""

    device: str
    patches: str
    weights: int
    steps: int  # of an epoch
    epochs: int
    step_s: float
    draw_s: float
    prepare_s: float  # all cases
    train_s: float
    validate_s: float
    peak_mb: float
    free_mb: float
    disk_mb: float
    free_disk_mb: float
    folds: int = 1

    @property
    def total_s(self) -> float:
        """Seconds of the whole training, all folds that were asked for."""
        return self.prepare_s + self.folds * (self.train_s + self.validate_s)

    def lines(self) -> list[str]:
        """A table for people, one fact a line."""
        parts = {"preparing": self.prepare_s, "training": self.train_s, "validation": self.validate_s}
        of_fold = f", {self.folds} folds of" if self.folds > 1 else ":"
        told = ", ".join(f"{name} {_long(seconds)}" for name, seconds in parts.items() if seconds)
        return [
            f"device\t{self.device}, {self.weights:,} weights",
            f"step\t{self.patches}: {_long(self.step_s)}, drawing them {_long(self.draw_s)}",
            f"epochs\t{self.epochs} of {self.steps} steps",
            f"memory\t{self.peak_mb / 1000:.1f} GB at most, {self.free_mb / 1000:.1f} GB were free",
            f"disk\t{self.disk_mb / 1000:.2f} GB, {self.free_disk_mb / 1000:.1f} GB are free",
            f"time\tabout {_long(self.total_s)}{of_fold} {told}",
            "fits\t" + ("yes" if self.fits else "no"),
        ]

    @property
    def fits(self) -> bool:
        """Whether memory (it has been tried) and disk are enough."""
        return self.disk_mb < self.free_disk_mb

    def check(self) -> None:
        """
        Raises:
            TrainingError: It does not fit.
        """
        if not self.fits:
            wrong = f"{self.disk_mb / 1000:.2f} GB are needed, {self.free_disk_mb / 1000:.2f} GB are free"
            raise TrainingError("disk", wrong, "free some space, or take another output folder")


def _long(seconds: float) -> str:
    """A time as people say it.

    >>> _long(0.25), _long(75), _long(9000)
    ('0.25 s', '1 min', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
