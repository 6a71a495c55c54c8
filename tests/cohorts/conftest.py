"""A made cohort with a broken case, a model that finds something in it, and one run to compare with."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from tiny_cases import tiny_cases

from radiogen.cohorts.run import run_cohort
from radiogen.cohorts.settings import CohortSettings

BROKEN = "phantom-004"


def results(run: Path) -> dict[str, str]:
    """Every result by its place; run records hold times, hidden files are no results."""
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
        and not path.name.endswith(".run.json")
        and path.name != "report.html"  # shows the times of the run records
        and not any(part.startswith(".") for part in path.relative_to(run).parts)
    }


@pytest.fixture(scope="session")
def cohort_cases(tmp_path_factory) -> Path:
    cases = tmp_path_factory.mktemp("cohort") / "cases"
    tiny_cases(cases, 5)
    (cases / BROKEN / "lungs.nii.gz").write_bytes(b"no volume")
    return cases


@pytest.fixture(scope="session")
def settings(cohort_cases, tiny_model, tmp_path_factory) -> CohortSettings:
    model = tmp_path_factory.mktemp("cohort-model") / "model"
    shutil.copytree(tiny_model.folder, model)
    content = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**content, "threshold": 0.01}))
    return CohortSettings(
        source=cohort_cases,
        steps=("segment", "extract-features", "report"),
        model=model,
        segment={"prior": "box", "picture": False},
        device="cpu",
    )


@pytest.fixture(scope="session")
def plain_run(settings, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("plain") / "run"
    report = run_cohort(settings, run)
    assert report.done == 4 and [row["case_id"] for row in report.failures] == [BROKEN]
    return run
