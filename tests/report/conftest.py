"""The made run that the tests of the report share."""

import os
from pathlib import Path

import pytest
from browser import NAMES, find_browser, launched
from report.made_run import make_run


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with all parts."""
    return make_run(tmp_path / "made-run")


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; the tests are skipped where there is none."""
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if find_browser() is None and os.environ.get("RADIOGEN_BROWSER") != "required":
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path")
    with launched() as running:
        yield running
