"""The audit of tables before anything is fitted."""

import json

import numpy as np
import pytest
from egfr.made_tables import QUICK

from radiogen.egfr.audit import audit_egfr
from radiogen.errors import TableError


def test_prevalence_gaps_and_what_goes_with_volume_and_hospital(tables, tmp_path):
    def change(features, clinical):
        rng = np.random.default_rng(0)
        for number, (row, person) in enumerate(zip(features, clinical, strict=True)):
            person["site"] = "north" if number % 2 else "south"
            person["histology"] = "Adenocarcinoma"
            row["intensity_1"] = float(row["shape_volume_ml"]) * -2
            row["deep_3"] = 5 * (number % 2) + rng.normal()
            row["deep_4"] = 7
            row["deep_5"] = "" if number < 6 else row["deep_5"]

    audit = audit_egfr(*(tables(change)[0], tmp_path / "audit.json", tables(change)[1]), QUICK)
    found = json.loads(audit.out.read_text())
    assert found == audit.findings
    assert found["mutant_by_site"]["north"] == {"patients": 15, "positives": 5, "share": pytest.approx(1 / 3)}
    assert found["mutant_by_histology"] == {
        "adenocarcinoma": {"patients": 30, "positives": 10, "share": pytest.approx(1 / 3)}
    }
    assert found["missing_features"] == {"deep_5": pytest.approx(0.2)}
    assert found["constant_features"] == ["deep_4"]
    assert found["blocks"]["intensity"]["with_volume"]["largest"] == pytest.approx(1)
    assert found["blocks"]["intensity"]["with_volume"]["strongest"] == "intensity_1"
    assert found["blocks"]["deep"]["with_site"]["strongest"] == "deep_3"
    assert found["blocks"]["deep"]["with_site"]["largest"] > 0.7
    assert found["blocks"]["deep"]["with_site"]["median"] < 0.2
    assert (tmp_path / "audit.run.json").is_file()


def test_a_table_that_cannot_be_read_is_no_audit(tmp_path):
    with pytest.raises(TableError):
        audit_egfr(tmp_path / "absent.csv", tmp_path / "audit.json")
    assert not (tmp_path / "audit.json").exists()
