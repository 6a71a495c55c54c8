"""Feature tables: one row a lesion becomes one row a patient, and what does not fit is refused by name."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiogen.egfr.feature_table import find_twins, read_features
from radiogen.egfr.settings import EgfrSettings
from radiogen.errors import TableError

TWO_LESIONS = (
    "case_id,patient_id,lesion,shape_volume_ml,deep_0\nc1,A,1,2.0,10\nc1,A,2,5.0,20\nc2,B,1,1.0,30\n"
)


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str) -> Path:
        path = tmp_path / "features.csv"
        path.write_text(text)
        return path

    return _write


def test_the_largest_lesion_stands_for_the_patient(write):
    table = read_features(write(TWO_LESIONS), EgfrSettings())
    assert table.features["deep_0"].to_dict() == {"A": 20.0, "B": 30.0}
    assert table.notes == ("1 patients with several lesions: the largest, by shape_volume_ml",)


def test_or_the_mean_of_all_lesions(write):
    table = read_features(write(TWO_LESIONS), EgfrSettings(lesion="mean"))
    assert table.features["deep_0"].to_dict() == {"A": 15.0, "B": 30.0}


def test_rows_in_another_order_give_the_same_table(write):
    first = read_features(write(TWO_LESIONS), EgfrSettings()).features
    head, *rows = TWO_LESIONS.splitlines()
    second = read_features(write("\n".join([head, *rows[::-1]])), EgfrSettings()).features
    pd.testing.assert_frame_equal(first, second)


def test_equally_large_lesions_are_told_apart_by_their_number(write):
    text = "case_id,patient_id,lesion,shape_volume_ml,f\nc,A,2,1,20\nc,A,1,1,10\nc,B,1,1,0\n"
    assert read_features(write(text), EgfrSettings()).features.loc["A", "f"] == 10


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("case_id,lesion,f\nc,1,2\n", "patient_id"),
        ("patient_id,lesion,f\nA,1,2\nA,1,3\n", "patient_id A lesion 1"),
        ("patient_id,lesion,f\nA,1,much\n", "row 2, f: 'much'"),
        ("patient_id,lesion,f\nA,1,inf\n", "row 2, f: 'inf'"),
        ("patient_id,lesion,f\nA,1,2\nA,2,3\n", "shape_volume_ml"),
        ("patient_id,lesion,f,egfr\nA,1,2,mutant\nA,2,3,wildtype\n", "shape_volume_ml"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(write, text, names):
    with pytest.raises(TableError, match=names):
        read_features(write(text), EgfrSettings())


def test_two_statuses_of_one_patient_are_refused(write):
    text = "patient_id,lesion,f,egfr\nA,1,2,mutant\nA,2,3,wildtype\n"
    with pytest.raises(TableError, match="patient A has two values of egfr"):
        read_features(write(text), EgfrSettings(lesion="mean"))


def test_a_foreign_table_drops_what_is_no_number_and_says_so(write):
    text = "id,died,scanner,f,g\nA,1,GE,0.5,NA\nB,0,Philips,,2\n,1,GE,1,2\n"
    table = read_features(write(text), EgfrSettings(id_column="id", label_column="died"))
    assert list(table.features.columns) == ["f", "g"]
    np.testing.assert_equal(table.features.to_numpy(), [[0.5, np.nan], [np.nan, 2.0]])
    assert table.labels == {"A": "1", "B": "0"}
    assert table.notes == (
        "1 rows without a patient id left out",
        "1 columns that are not numbers left out: scanner",
    )


@pytest.mark.parametrize("columns", [["f"], ["f", "g", "h"]])
def test_a_features_json_of_other_columns_is_refused(write, columns):
    path = write("case_id,patient_id,lesion,f,g\nc,A,1,2,3\n")
    path.with_suffix(".json").write_text(json.dumps({"schema_version": 1, "columns": columns}))
    with pytest.raises(TableError, match=r"features\.json"):
        read_features(path, EgfrSettings())


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema_version": 2, "columns": ["f"]}'])
def test_a_features_json_that_cannot_be_used_is_refused(write, text):
    path = write("case_id,patient_id,lesion,f\nc,A,1,2\n")
    path.with_suffix(".json").write_text(text)
    with pytest.raises(TableError, match=r"features\.json"):
        read_features(path, EgfrSettings())


def test_equal_rows_under_two_ids_are_found():
    rows = np.random.default_rng(0).normal(size=(3, 6))
    table = pd.DataFrame([rows[0], rows[1], rows[0], rows[2]], index=["A", "B", "C", "D"])
    assert find_twins(table) == [("A", "C")]
    assert find_twins(table.iloc[:, :4]) == []
