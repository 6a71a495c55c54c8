"""What lies in a tree is told by what the files say, whoever laid them and however they are called."""

import csv

import pytest
from dicom_phantom import CT, file_of, uid

from radiogen.cohorts.index import read_series_rows
from radiogen.cohorts.series_on_disk import check_tree
from radiogen.errors import SeriesError


def lay(folder, series, images, patient="AMC-001"):
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(1, images + 1):
        item = file_of(CT, uid(series, n), patient)
        item.SeriesInstanceUID = series
        item.save_as(folder / f"1-{n:03d}.dcm", enforce_file_format=True)


@pytest.fixture
def listed(shared_data):
    with (shared_data / "nsclc_radiogenomics_tables" / "nbia_metadata.csv").open(newline="") as file:
        return [line for line in csv.DictReader(file) if line["Subject ID"] == "AMC-001"]


@pytest.fixture
def rows(shared_data, listed):
    rows = read_series_rows(shared_data / "idc_manifests" / "nsclc_radiogenomics.csv")
    return [row for row in rows if row.uid in {line["Series UID"] for line in listed}]


def test_a_tree_of_the_retriever_is_recognised(tmp_path, listed, rows):
    few = [row for row in rows if row.files <= 263]
    where = {line["Series UID"]: tmp_path / line["File Location"] for line in listed}
    assert all(" " in str(place) for place in where.values())
    for row in few:
        lay(where[row.uid], row.uid, row.files)
    found = check_tree(tmp_path, rows)
    assert {one.row.uid for one in found.of("missing")} == {row.uid for row in rows if row not in few}
    made = [one for one in found.series if one.row in few]
    assert made and all(one.state == "other bytes" and one.files == one.row.files for one in made)
    (scout, *_) = few
    (where[scout.uid] / "1-001.dcm").unlink()
    assert check_tree(tmp_path, [scout]).series[0].state == "missing"


def test_a_series_in_part_a_copy_and_a_damaged_file_are_said(tmp_path, rows):
    row = max(rows, key=lambda row: row.files)
    lay(tmp_path / "some where", row.uid, row.files - 1)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "x").write_bytes((tmp_path / "some where" / "1-001.dcm").read_bytes())
    (tmp_path / "copy" / "broken.dcm").write_bytes(b"no DICOM")
    (tmp_path / "LICENSE").write_text("CC BY 3.0")
    lay(tmp_path / "other", "1.2.3", 2)
    found = check_tree(tmp_path, [row])
    assert (found.series[0].state, found.series[0].files) == ("part", row.files - 1)
    assert found.copies == 1 and found.others == 1
    assert [path.name for path in found.damaged] == ["broken.dcm"]


def test_a_tree_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SeriesError, match="is not a folder"):
        check_tree(tmp_path / "nowhere", [])
