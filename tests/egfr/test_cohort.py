"""Joining features, clinical variables and status."""

import numpy as np
import pandas as pd
import pytest

from radiogen.egfr.cohort import encode_clinical, read_cohort
from radiogen.egfr.settings import EgfrSettings
from radiogen.errors import TableError


def test_patients_of_unknown_status_are_counted_and_left_out(tables):
    def change(features, clinical):
        clinical[0]["egfr"] = "Not collected"
        clinical.append({**clinical[1], "patient_id": "nobody"})
        features.append({**features[1], "patient_id": "extra", "deep_0": "9"})

    cohort = read_cohort(*tables(change), EgfrSettings())
    assert len(cohort.patients) == 29 and "P00" not in cohort.patients
    assert cohort.left_out == {
        "without a known status": 2,
        "in the clinical table without features": 1,
    }
    assert cohort.label_names == ("wildtype", "mutant")
    assert cohort.labels.sum() == 9


def test_the_order_of_rows_changes_nothing(tables):
    first = read_cohort(*tables(), EgfrSettings())

    def reverse(features, clinical):
        features.reverse()
        clinical.reverse()

    second = read_cohort(*tables(reverse), EgfrSettings())
    assert first.patients == second.patients
    assert (first.labels == second.labels).all()
    pd.testing.assert_frame_equal(first.features, second.features)
    pd.testing.assert_frame_equal(first.clinical, second.clinical)


def test_a_patient_under_two_names_is_used_once_and_said(tables):
    def change(features, clinical):
        features.append({**features[1], "patient_id": "Q01"})
        clinical.append({**clinical[1], "patient_id": "Q01"})

    cohort = read_cohort(*tables(change), EgfrSettings())
    assert cohort.left_out == {"under a second id": 1}
    assert cohort.notes == ("1 pairs of ids are of one patient: Q01 is P01 (nearly equal features)",)
    assert len(cohort.patients) == 30


def test_a_patient_under_two_names_and_two_statuses_is_refused(tables):
    def change(features, clinical):
        features.append({**features[1], "patient_id": "Q01"})
        clinical.append({**clinical[1], "patient_id": "Q01", "egfr": "mutant"})

    with pytest.raises(TableError, match="P01 and Q01: have nearly equal features"):
        read_cohort(*tables(change), EgfrSettings())


def test_two_tables_that_disagree_on_a_status_are_refused(tables):
    def change(features, clinical):
        for row in features:
            row["egfr"] = ""
        features[1]["egfr"] = "mutant"

    with pytest.raises(TableError, match="patient P01 is mutant, elsewhere wildtype"):
        read_cohort(*tables(change), EgfrSettings())


@pytest.mark.parametrize(("status", "names"), [("mutant", "statuses mutant"), ("", "holds no status")])
def test_one_class_or_none_is_refused(tables, status, names):
    def change(features, clinical):
        for row in clinical:
            row["egfr"] = status

    with pytest.raises(TableError, match=names):
        read_cohort(*tables(change), EgfrSettings())


def test_columns_without_a_value_are_left_out_and_said(tables):
    def change(features, clinical):
        for row in features:
            row["deep_3"] = ""

    cohort = read_cohort(*tables(change), EgfrSettings())
    assert "deep_3" not in cohort.features.columns
    assert cohort.notes == ("1 columns without a value left out: deep_3",)


def test_a_table_of_constants_is_refused(tables):
    def change(features, clinical):
        for row in features:
            row.update({name: "1" for name in row if name not in ("case_id", "patient_id", "lesion")})

    with pytest.raises(TableError, match="no feature column that varies"):
        read_cohort(*tables(change), EgfrSettings())


def test_no_table_at_all_is_refused():
    with pytest.raises(TableError, match="neither"):
        read_cohort(None, None, EgfrSettings())


def test_clinical_words_become_numbers_row_by_row():
    rows = pd.DataFrame(
        {"sex": ["female", "male", ""], "smoking": ["never", "", "current"], "age": [60.0, np.nan, 50.0]}
    )
    encoded = encode_clinical(rows, ("sex", "smoking", "age"))
    np.testing.assert_equal(encoded["sex_female"].to_numpy(), [1, 0, np.nan])
    np.testing.assert_equal(encoded["smoking_never"].to_numpy(), [1, np.nan, 0])
    np.testing.assert_equal(encoded["smoking_current"].to_numpy(), [0, np.nan, 1])
    np.testing.assert_equal(encoded["age"].to_numpy(), [60, np.nan, 50])
    pd.testing.assert_frame_equal(
        encode_clinical(rows.iloc[[2]], ("sex", "smoking", "age")), encoded.iloc[[2]]
    )
