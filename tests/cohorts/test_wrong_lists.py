"""Rows, lists and cards that do not fit are one line with the way out; nothing of them becomes a path."""

from pathlib import Path

import pytest
from archive import CARD, write_rows
from hypothesis import given
from hypothesis import strategies as st

from radiogen.cohorts.index import SeriesRow, SeriesSelection, read_series_rows
from radiogen.cohorts.requests import find_request, read_series_list
from radiogen.errors import ConfigError, RadiogenError, TableError
from radiogen.resources import cohort_card, licence_terms

UUID = "adbe204a-dda9-4fee-9975-d5fbe25dffa{}"


def row(n=0, **changes):
    cells = {
        "collection_id": "made",
        "analysis_result_id": "",
        "PatientID": "PHANTOM-001",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": f"1.2.3.{n}",
        "Modality": "CT",
        "instanceCount": "2",
        "series_size_MB": "0.25",
        "license_short_name": "CC BY 4.0",
        "aws_bucket": "some-bucket",
        "crdc_series_uuid": UUID.format(n),
    }
    return {**cells, **changes}


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "made.yaml"
    path.write_text(CARD)
    return path


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("PatientID", "../../etc"),
        ("PatientID", "a/b"),
        ("PatientID", ""),
        ("StudyInstanceUID", "1.2/../.."),
        ("StudyInstanceUID", ".."),
        ("SeriesInstanceUID", "1..2"),
        ("collection_id", "../made"),
        ("crdc_series_uuid", "../../secret"),
        ("aws_bucket", "a/b"),
        ("Modality", "CT/.."),
        ("instanceCount", "-1"),
        ("instanceCount", "many"),
        ("series_size_MB", "nan"),
    ],
)
def test_a_cell_that_cannot_be_what_it_says_is_refused(tmp_path, column, cell):
    index = write_rows(tmp_path / "index.csv", [row(1), row(2, **{column: cell})])
    with pytest.raises(TableError, match=rf"row 3 has .* as {column}"):
        read_series_rows(index)


@pytest.mark.parametrize("column", ["SeriesInstanceUID", "crdc_series_uuid"])
def test_a_series_that_comes_twice_is_refused(tmp_path, column):
    index = write_rows(tmp_path / "index.csv", [row(1), row(2, **{column: row(1)[column]})])
    with pytest.raises(TableError, match=f"twice as {column}"):
        read_series_rows(index)


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "index.csv").write_text("case_id,egfr\nA,mutant\n")
    with pytest.raises(TableError, match="has no column collection_id"):
        read_series_rows(tmp_path / "index.csv")
    (tmp_path / "index.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        read_series_rows(tmp_path / "index.parquet", "made")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"PatientID": "JANE-DOE"}, "is no patient of made"),
        ({"license_short_name": "ask us"}, "licence 'ask us': is not known"),
        ({"collection_id": "other"}, "has no series of made"),
    ],
)
def test_rows_that_are_not_the_cohorts_are_refused(tmp_path, card, changes, said):
    index = write_rows(tmp_path / "index.csv", [row(1, **changes)])
    with pytest.raises(RadiogenError, match=said):
        find_request(str(card), SeriesSelection(), index)


def test_a_patient_who_is_not_there_is_named(tmp_path, card):
    index = write_rows(tmp_path / "index.csv", [row(1)])
    with pytest.raises(ConfigError, match="PHANTOM-009"):
        find_request(str(card), SeriesSelection(patients=("PHANTOM-009",)), index)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.tcia", "1.2.3\n1.2.4\n", "has no line ListOfSeriesToDownload="),
        ("a.tcia", "ListOfSeriesToDownload=\n", "names no series"),
        ("a.tcia", "ListOfSeriesToDownload=\n1.2.3\n../../x\n", "line 3 names no series"),
        ("a.tcia", "ListOfSeriesToDownload=\n1.2.3\n1.2.3\n", "again"),
        ("a.s5cmd", "rm s3://bucket/x/*\n", "line 1 is not cp"),
        ("a.s5cmd", f"cp s3://bucket/{UUID.format(1)}/../x/* .\n", "line 1 is not cp"),
        ("a.s5cmd", "cp s3://bucket/../* .\n", "line 1 names no series"),
        ("a.csv", "patient,what\nA,b\n", "has no column of series"),
        ("a.csv", "Series UID\n1.2.3\nrm -rf\n", "line 3 names no series"),
    ],
)
def test_a_damaged_list_is_one_line(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(TableError) as error:
        read_series_list(tmp_path / name)
    assert said in str(error.value) and "\n" not in str(error.value)


@given(st.binary(max_size=200), st.sampled_from(["a.tcia", "a.s5cmd", "a.csv"]))
def test_no_bytes_make_a_list_crash(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        asked = read_series_list(path)
    except RadiogenError as error:
        assert "\n" not in str(error)
    else:
        assert len(asked)


@given(st.text(max_size=70), st.text(max_size=70), st.text(max_size=20))
def test_no_row_that_is_read_leaves_the_folder(tmp_path_factory, patient, study, modality):
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    cells = row(1, PatientID=patient, StudyInstanceUID=study, Modality=modality)
    try:
        write_rows(path, [cells])
        rows = read_series_rows(path)
    except (RadiogenError, UnicodeEncodeError):
        return
    for found in rows:
        assert isinstance(found, SeriesRow)
        assert Path("/out").joinpath(found.folder).resolve().is_relative_to("/out/made")
        assert len(found.folder.parts) == 4


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("licence: Elsevier", "licence 'Elsevier': is not known"),
        ('patient_id_pattern: "(A"', "is not a regular expression"),
        ("colour: red", "colour"),
        ("name: ../x", "name"),
        ("series: [{part: dose, modality: RTDOSE}]", "series.0.part"),
    ],
)
def test_a_card_that_does_not_fit_is_one_line(tmp_path, line, said):
    given = {"licence": "licence: own", line.split(":")[0]: line}
    (tmp_path / "mine.yaml").write_text("\n".join(["title: Mine", *given.values()]))
    with pytest.raises(ConfigError) as error:
        cohort_card(str(tmp_path / "mine.yaml"))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_licences_say_what_they_forbid():
    assert licence_terms("CC BY-NC-SA 4.0") == "name the source; no commercial use; share alike"
    assert licence_terms("CC BY 3.0") == "name the source"
    assert "ethics" in licence_terms("own")
