"""Errors that a user can act on: each names the thing, what is wrong with it, and a hint."""

import pathlib


class RadiogenError(Exception):
    """Bad input or a run that cannot go on; the command line prints it as one line, exit code 1.

    Args:
        thing: What is at fault: a file, a folder, an option with its value.
        wrong: What is wrong with it, to be read after `thing`.
        hint: What the user can do about it.

    >>> print(RadiogenError("scan.nii.gz", "is empty", "copy it again"))
    scan.nii.gz: is empty (copy it again)
    """

    def __init__(self, thing: object, wrong: str, hint: str) -> None:
        self.thing = str(thing)
        self.wrong = wrong
        self.hint = hint
        super().__init__(self.thing, wrong, hint)

    @property
    def reason(self) -> str:
        """The error without its hint, for tables and pages; of a path the name: folders may name patients."""
        path = pathlib.Path(self.thing)
        return self.wrong if path.is_dir() else f"{path.name or self.thing}: {self.wrong}"

    def __str__(self) -> str:
        return " ".join(f"{self.thing}: {self.wrong} ({self.hint})".split())


class ConfigError(RadiogenError):
    """A setting or option that cannot be used."""


class VolumeError(RadiogenError):
    """A volume, mask or image file that cannot be read or does not fit."""


class SeriesError(RadiogenError):
    """DICOM files that do not form one evenly spaced CT volume."""


class OutlineError(RadiogenError):
    """An outline that cannot be read or does not lie on the CT."""


class CaseError(RadiogenError):
    """A case folder or manifest that is missing something or does not fit."""


class TableError(RadiogenError):
    """A clinical, feature or manifest table that does not fit."""


class ModelError(RadiogenError):
    """A model folder or checkpoint that cannot be used."""


class PruningError(RadiogenError):
    """Scores or weight masks that cannot be used."""


class TrainingError(RadiogenError):
    """A training that cannot start or go on."""


class OtherRankError(TrainingError):
    """A rank of torch.distributed stops because of an error that another one reports."""


class DeviceError(RadiogenError):
    """A device that was asked for and is not there."""


class OutputError(RadiogenError):
    """A place that cannot be written to, or already holds something else."""


class MissingPackageError(RadiogenError):
    """An optional package that is not installed."""
