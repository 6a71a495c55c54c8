"""Fixtures that many tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine, and no time limit that a busy machine would break.
settings.register_profile("radiogen", deadline=None, derandomize=True)
settings.load_profile("radiogen")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real scans and tables; the test is skipped where they are absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("real data is not at hand")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden values of the two papers; the test is skipped where they are absent."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("golden values are not at hand")
    return folder
