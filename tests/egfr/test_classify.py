"""Applying a model: a probability with its range, whatever else is in the table, or a refusal."""

import json

import pandas as pd
import pytest
from egfr.made_tables import ABOUT, PATIENTS, QUICK

from radiogen.egfr.classify import classify_egfr
from radiogen.egfr.train import train_egfr
from radiogen.errors import ConfigError, RadiogenError, TableError


def rename(features, clinical):
    for row in [*features, *clinical]:
        row["patient_id"] = row["patient_id"].replace("P", "N")


def read(path):
    return pd.read_csv(path).set_index("patient_id")


def test_every_patient_gets_a_probability_with_a_range(trained, tables, tmp_path):
    done = classify_egfr(tables(rename, seed=1)[0], trained.folder, tmp_path / "p.csv")
    table = read(tmp_path / "p.csv")
    assert len(table) == PATIENTS == len(done.predictions)
    assert ((table["low"] <= table["probability"]) & (table["probability"] <= table["high"])).all()
    assert set(table["class"]) == {"mutant", "wildtype"}
    called = (table["probability"] >= table["threshold"]).map({True: "mutant", False: "wildtype"})
    assert (table["class"] == called).all()
    assert (table["in_distribution"] == "yes").mean() > 0.8
    truth = [number % 3 == 0 for number in range(PATIENTS)]
    assert ((table["class"] == "mutant") == truth).mean() > 0.7
    assert json.loads((tmp_path / "p.run.json").read_text())["verb"] == "classify-egfr"


def test_the_same_patient_gives_the_same_number_whatever_else_is_there(trained, tables, tmp_path):
    classify_egfr(tables(rename, seed=1)[0], trained.folder, tmp_path / "all.csv")

    def only_one(features, clinical):
        rename(features, clinical)
        features[:] = [features[4]]

    classify_egfr(tables(only_one, seed=1)[0], trained.folder, tmp_path / "one.csv")
    pick = [line for line in (tmp_path / "all.csv").read_text().splitlines() if line.startswith("N04")]
    assert (tmp_path / "one.csv").read_text().splitlines()[1:] == pick


def test_a_strange_patient_is_marked(trained, tables, tmp_path):
    def change(features, clinical):
        rename(features, clinical)
        for name in list(features[0])[3:]:
            features[0][name] = 40
            features[1][name] = ""

    done = classify_egfr(tables(change, seed=1)[0], trained.folder, tmp_path / "p.csv")
    assert not done.predictions["N00"].in_distribution and done.predictions["N00"].distance > 1
    assert not done.predictions["N01"].in_distribution and done.predictions["N01"].missing == 12


def test_patients_that_were_learned_from_are_said(trained, tables, tmp_path):
    done = classify_egfr(tables()[0], trained.folder, tmp_path / "p.csv")
    assert any("learned from 30 of these" in note for note in done.notes)
    assert (read(tmp_path / "p.csv")["note"] == "learned from this patient").all()


def test_it_abstains_in_a_band_if_asked(trained, tables, tmp_path):
    done = classify_egfr(tables(rename, seed=1)[0], trained.folder, tmp_path / "p.csv", abstain=0.2)
    table = read(done.out)
    near = (table["probability"] - table["threshold"]).abs() < 0.2
    assert near.any() and (near == (table["class"] == "abstained")).all()
    with pytest.raises(ConfigError):
        classify_egfr(tables()[0], trained.folder, tmp_path / "p.csv", abstain=2)


def test_what_moved_it_most_is_named(trained, tables, tmp_path):
    done = classify_egfr(tables(rename, seed=1)[0], trained.folder, tmp_path / "p.csv", explain=2)
    for said in done.predictions.values():
        assert len(said.contributions) == 2
        assert abs(said.contributions[0][1]) >= abs(said.contributions[1][1]) > 0


@pytest.mark.parametrize(
    ("about", "names"),
    [
        ({"model_hash": "other"}, "another segmentation model"),
        ({"extractor": {"name": "pooled", "levels": [1]}}, "another extractor"),
    ],
)
def test_features_of_another_making_are_refused(trained, tables, tmp_path, about, names):
    features, _ = tables(rename, about={**ABOUT, **about})
    with pytest.raises(TableError, match=names):
        classify_egfr(features, trained.folder, tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_features_of_unknown_making_are_refused(trained, tables, tmp_path):
    features, _ = tables(rename)
    features.with_suffix(".json").unlink()
    with pytest.raises(TableError, match="another extractor"):
        classify_egfr(features, trained.folder, tmp_path / "p.csv")


def test_a_missing_column_is_named(trained, tables, tmp_path):
    def change(features, clinical):
        for row in features:
            del row["deep_2"]

    features, _ = tables(change, about={**ABOUT, "columns": [c for c in ABOUT["columns"] if c != "deep_2"]})
    with pytest.raises(TableError, match="'deep_2'"):
        classify_egfr(features, trained.folder, tmp_path / "p.csv")


def test_a_model_with_clinical_inputs_needs_the_clinical_table(tables, tmp_path):
    settings = QUICK.model_copy(update={"inputs": "clinical+features", "permutations": 0})
    train_egfr(*(tables()[0], tmp_path / "model", tables()[1]), settings)
    features, clinical = tables(rename, seed=1)
    with pytest.raises(TableError, match="clinical table: is needed"):
        classify_egfr(features, tmp_path / "model", tmp_path / "p.csv")
    done = classify_egfr(features, tmp_path / "model", tmp_path / "p.csv", clinical)
    assert len(done.predictions) == PATIENTS
    clinical.write_text("\n".join(clinical.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(TableError, match="no row for patient N29"):
        classify_egfr(features, tmp_path / "model", tmp_path / "q.csv", clinical)


def test_a_folder_that_is_no_model_is_refused(tables, tmp_path):
    with pytest.raises(RadiogenError, match=r"pipeline\.skops"):
        classify_egfr(tables()[0], tmp_path, tmp_path / "p.csv")
