"""A split never divides a patient, not even one with two ids, and knows what it was drawn from."""

import json
import shutil

import pytest
from tiny_cases import tiny_cases

from radiogen.cohorts.split import changes_since_split, draw_split
from radiogen.errors import OutputError
from radiogen.io.cases import read_manifest, write_manifest


@pytest.fixture
def cases(tmp_path):
    tiny_cases(tmp_path / "cases", 6)
    return tmp_path / "cases"


def test_one_scan_under_two_ids_is_one_patient(cases):
    for seed in range(6):
        shutil.copy(cases / "phantom-001" / "ct.nii.gz", cases / "phantom-006" / "ct.nii.gz")
        drawn = draw_split(cases, 0.5, seed)
        split = {row["case_id"]: row["split"] for row in read_manifest(cases)}
        assert drawn.twins == (("phantom-001", "phantom-006"),)
        assert split["phantom-001"] == split["phantom-006"]


def test_the_order_of_the_manifest_changes_no_split(cases):
    draw_split(cases, 0.5, 3)
    before = json.loads((cases / "split.json").read_text())
    write_manifest(cases, read_manifest(cases)[::-1])
    draw_split(cases, 0.5, 3, existing="overwrite")
    assert json.loads((cases / "split.json").read_text()) == before


def test_a_draw_from_cases_that_changed_is_refused(cases):
    draw_split(cases, 0.5, 3)
    assert changes_since_split(cases) == ()
    shutil.copy(cases / "phantom-001" / "ct.nii.gz", cases / "phantom-006" / "ct.nii.gz")
    write_manifest(cases, [row for row in read_manifest(cases) if row["case_id"] != "phantom-002"])
    assert changes_since_split(cases) == ("gone: phantom-002", "changed: phantom-006")
    with pytest.raises(OutputError, match="gone: phantom-002; changed: phantom-006"):
        draw_split(cases, 0.5, 3)
    assert draw_split(cases, 0.5, 3, existing="overwrite").counts.keys() == {"train", "test"}


def test_an_edited_split_is_noticed(cases):
    draw_split(cases, 0.5, 3)
    rows = read_manifest(cases)
    rows[0]["split"] = "test" if rows[0]["split"] == "train" else "train"
    write_manifest(cases, rows)
    assert changes_since_split(cases) == ("the split of phantom-001 was edited",)
