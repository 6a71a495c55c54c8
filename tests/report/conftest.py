"""The made run that the tests of the report share."""

from pathlib import Path

import pytest
from report.made_run import make_run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with all parts."""
    return make_run(tmp_path / "made-run")
