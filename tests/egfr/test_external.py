"""A second cohort, judged with nothing learned from it."""

import json
import shutil

import pytest
from egfr.made_tables import ABOUT, QUICK

from radiogen.egfr.external import validate_external
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.train import ExternalCohort, train_egfr
from radiogen.errors import TableError


def rename(features, clinical):
    for row in [*features, *clinical]:
        row["patient_id"] = row["patient_id"].replace("P", "N")


def test_a_second_cohort_of_the_kind_gets_a_good_figure(trained, tables, tmp_path):
    features, clinical = tables(rename, seed=1)
    judged = validate_external(features, trained.folder, tmp_path / "out", clinical)
    figures = json.loads((tmp_path / "out" / "external.json").read_text())
    assert judged.patients == 30 and figures["classes"] == {"wildtype": 20, "mutant": 10}
    assert figures["auc"]["value"] == judged.auc.value > 0.8
    assert figures["auc_delong"]["value"] == judged.auc.value
    assert (tmp_path / "out" / "predictions.csv").is_file()
    assert (tmp_path / "out" / "external.run.json").is_file()


def test_patients_that_were_learned_from_are_refused(trained, tables, tmp_path):
    def change(features, clinical):
        rename(features, clinical)
        features[0]["patient_id"] = clinical[0]["patient_id"] = "P00"

    features, clinical = tables(change, seed=1)
    with pytest.raises(TableError, match=r"1 patients the model learned from \(P00\)"):
        validate_external(features, trained.folder, tmp_path / "out", clinical)


def test_patients_that_the_segmentation_model_saw_are_refused(trained, tables, tmp_path):
    features, clinical = tables(rename, seed=1, about={**ABOUT, "patients_seen": ["N07"]})
    with pytest.raises(TableError, match="trained on 1 of these"):
        validate_external(features, trained.folder, tmp_path / "out", clinical)


def test_another_question_is_refused(trained, tables, tmp_path):
    def change(features, clinical):
        rename(features, clinical)
        for number, row in enumerate(features):
            row["egfr"] = ("dead", "alive")[number % 2]

    features, _ = tables(change, seed=1)
    settings = EgfrSettings(label_column="egfr", positive="dead")
    with pytest.raises(TableError, match="the model knows wildtype, mutant"):
        validate_external(features, trained.folder, tmp_path / "out", settings=settings)


def test_training_judges_a_second_cohort_with_the_finished_model(tables, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    moved = [path.rename(first / path.name) for path in tables()]
    shutil.copy(tmp_path / "features.json", first)
    second = ExternalCohort(*tables(rename, seed=1))
    quick = QUICK.model_copy(update={"permutations": 0})
    done = train_egfr(moved[0], tmp_path / "model", moved[1], quick, external=second)
    assert done.external.patients == 30 and done.external.auc.value > 0.7
    assert (tmp_path / "model" / "external" / "external.json").is_file()
    card = (tmp_path / "model" / "MODEL_CARD.md").read_text()
    assert f"external cohort of 30 patients the AUC was {done.external.auc.value:.3f}" in card
    assert "No external cohort" not in card
    with pytest.raises(TableError, match="30 patients the model learned from"):
        train_egfr(moved[0], tmp_path / "again", moved[1], quick, external=ExternalCohort(*moved))
    assert not (tmp_path / "again").exists()
