"""The command line run in this process, with what it said and every file it wrote."""

import json
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from dicom_phantom import write_ct
from egfr.made_tables import ABOUT, make_rows, write_rows
from radiogen.cli.main import run
from training.tiny_run import TINY

from radiogen.provenance import file_sha256


@dataclass(frozen=True)
class Answer:
    """What a command gave back: exit code, both streams, and the paths it made, changed or removed."""

    code: int
    out: str
    err: str
    touched: tuple[str, ...]

    def refuses(self, *named: str) -> bool:
        """Whether it ended as wrong input must: exit 1, one line with the names and a way out, no file."""
        lines = self.err.splitlines()
        said = len(lines) == 1 and lines[0].startswith("radiogen: error: ") and lines[0].endswith(")")
        return self.code == 1 and said and all(name in lines[0] for name in named) and not self.touched


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): file_sha256(path) if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


@pytest.fixture
def radiogen(tmp_path, monkeypatch, capfd):
    """Call it with the words of a command line; files are watched under tmp_path, the current folder."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(*words: object) -> Answer:
        before = tree(tmp_path)
        monkeypatch.setattr(sys, "argv", ["radiogen", *(str(word) for word in words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            run()
        said, after = capfd.readouterr(), tree(tmp_path)
        touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        return Answer(int(end.value.code or 0), said.out, said.err, tuple(sorted(touched)))

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def scan(tmp_path) -> Path:
    """A DICOM series a few voxels wide."""
    write_ct(tmp_path / "scan")
    return tmp_path / "scan"


@pytest.fixture
def cases(made_cases, tmp_path) -> Path:
    """A copy of the made cases that a test may spoil."""
    shutil.copytree(made_cases, tmp_path / "cases")
    return tmp_path / "cases"


@pytest.fixture
def tables(tmp_path) -> tuple[Path, Path]:
    """A feature table and a clinical table of 24 patients."""
    features, clinical = make_rows(24)
    (tmp_path / "features.json").write_text(json.dumps(ABOUT))
    return write_rows(tmp_path / "features.csv", features), write_rows(tmp_path / "clinical.csv", clinical)


@pytest.fixture
def small() -> list[str]:
    """Options for a network that learns in a second."""
    return ["--preset", "small", *(word for pair in TINY for word in ("--set", pair))]
