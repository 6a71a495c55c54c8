"""Clinical tables: original headers, foreign headers, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiogen.errors import ConfigError, RadiogenError, TableError
from radiogen.io.clinical import CLINICAL_COLUMNS, read_clinical

ORIGINAL = "NSCLCR01Radiogenomic_DATA_LABELS_2018-05-22_1500-shifted.csv"


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str, name: str = "clinical.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def test_original_spellings_become_the_agreed_words(write):
    path = write(
        "Case ID,Patient affiliation,Age at Histological Diagnosis,Gender,Ethnicity,Smoking status,"
        "Pack Years,Histology ,EGFR mutation status\n"
        "AMC-001,Stanford,34,Male,Not Recorded In Database,Nonsmoker,N/A,Adenocarcinoma,Wildtype\n"
        "R01-002, VA ,65,Female,Asian,Former,Not Collected,Adenocarcinoma,Mutant\n"
        "R01-003,VA,70,Male,Caucasian,Current,40,NSCLC NOS (not otherwise specified),Not collected\n"
    )
    table = read_clinical(path)
    assert tuple(table.columns) == CLINICAL_COLUMNS
    assert table["egfr"].tolist() == ["wildtype", "mutant", ""]
    assert table["smoking"].tolist() == ["never", "former", "current"]
    assert table["site"].tolist() == ["Stanford", "VA", "VA"]
    assert table["ethnicity"].tolist() == ["", "asian", "caucasian"]
    assert table["sex"].tolist() == ["male", "female", "male"]
    np.testing.assert_equal(table["pack_years"].to_numpy(), [0.0, np.nan, 40.0])
    assert table["age"].tolist() == [34.0, 65.0, 70.0]


def test_columns_that_a_table_lacks_are_empty(write):
    table = read_clinical(write("Patient ID,EGFR mutation status\n007,Unknown\n"))
    assert table["patient_id"].tolist() == ["007"]
    assert table["egfr"].tolist() == [""] and table["site"].tolist() == [""]
    assert table["age"].isna().all() and table["pack_years"].isna().all()


def test_manifest_keys_on_the_patient_and_not_on_the_case(write):
    path = write("case_id,patient_id,egfr,sex\nc1,p1,mutant,\nc2,p1,mutant,female\nc3,p2,,male\n")
    table = read_clinical(path)
    assert table["patient_id"].tolist() == ["p1", "p2"]
    assert table["sex"].tolist() == ["female", "male"]


def test_a_mapping_names_foreign_columns_and_words(write):
    table = write("pseudonym;EGFR result;how old\nA1;L858R;61\nA2;none found;70\n")
    mapping = write(
        "columns: {patient_id: pseudonym, egfr: EGFR result, age: how old}\n"
        "values: {egfr: {L858R: mutant, none found: wildtype}}\n",
        "mapping.yaml",
    )
    read = read_clinical(table, mapping)
    assert read["egfr"].tolist() == ["mutant", "wildtype"]
    assert read["age"].tolist() == [61.0, 70.0]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("name,egfr\nA,mutant\n", "patient ids"),
        ("patient_id,egfr\nA,mutant\nA,wildtype\n", "patient A"),
        ("patient_id,egfr\n,mutant\n", "row 2"),
        ("patient_id,egfr\nA,perhaps\n", "'perhaps'"),
        ("patient_id,age\nA,old\n", "'old'"),
        ("patient_id,age\nA,nan years\n", "'nan years'"),
        ("patient_id,age\nA,60,70\n", "row 2"),
        ("patient_id,age,age\nA,60,70\n", "twice"),
        ("", "empty"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(write, text, names):
    with pytest.raises(TableError, match=names):
        read_clinical(write(text))


def test_a_missing_or_binary_file_is_refused(tmp_path: Path):
    with pytest.raises(TableError):
        read_clinical(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(TableError):
        read_clinical(tmp_path / "binary.csv")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("colums: {}\n", ConfigError),
        ("columns: {gene: EGFR}\n", TableError),
        ("columns: {sex: S}\n", TableError),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(write, text, error: type[RadiogenError]):
    table = write("patient_id\nA\n")
    with pytest.raises(error):
        read_clinical(table, write(text, "mapping.yaml"))


def test_the_original_table_has_its_172_tested_patients(shared_data: Path):
    table = read_clinical(shared_data / "nsclc_radiogenomics_tables" / ORIGINAL)
    assert len(table) == 211
    assert table["egfr"].value_counts().to_dict() == {"wildtype": 129, "mutant": 43, "": 39}
    tested = table[table["egfr"] != ""]
    mutants = tested[tested["egfr"] == "mutant"]["site"].value_counts().to_dict()
    assert mutants == {"Stanford": 35, "VA": 8}
    assert table["smoking"].value_counts().to_dict() == {"former": 130, "never": 48, "current": 33}
    assert (table.loc[table["smoking"] == "never", "pack_years"] == 0).all()
    assert isinstance(table, pd.DataFrame)
