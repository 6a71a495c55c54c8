"""Training: what is written, the guards, and the real tables."""

import json

import numpy as np
import pandas as pd
import pytest
from egfr.made_tables import ABOUT, COLUMNS, PATIENTS, QUICK, write_rows

from radiogen.egfr.candidates import list_candidates
from radiogen.egfr.cohort import read_cohort
from radiogen.egfr.cross_validation import ValidationOptions, cross_validate, draw_folds
from radiogen.egfr.persistence import load_model
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.statistics import auc
from radiogen.egfr.train import train_egfr
from radiogen.errors import TableError


def test_the_folder_holds_what_was_agreed(trained):
    names = {path.name for path in trained.folder.iterdir()}
    pictures = ("roc", "precision_recall", "calibration", "decision_curve", "confusion")
    assert names == {
        *("pipeline.skops", "config.json", "validation.json", "oof.csv", "MODEL_CARD.md", "model.run.json"),
        *(f"{name}.png" for name in pictures),
    }
    record = json.loads((trained.folder / "model.run.json").read_text())
    assert record["verb"] == "train-egfr" and set(record["outputs"]) == names - {"model.run.json"}
    assert set(record["inputs"]) == {"features.csv", "clinical.csv"}


def test_the_config_says_what_the_model_needs(trained):
    config = load_model(trained.folder).config
    assert config["feature_columns"] == list(COLUMNS) and config["clinical_columns"] == []
    assert config["labels"] == ["wildtype", "mutant"]
    assert config["patients_seen"] == [f"P{number:02d}" for number in range(PATIENTS)]
    assert config["features_model_hash"] == "a1b2" and config["prompt"] == "oracle"
    assert 0 < config["threshold"] < 1


def test_the_validation_is_strict_json_with_the_headline_first_among_figures(trained):
    text = (trained.folder / "validation.json").read_text()
    validation = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert validation["note"] == "not for clinical use"
    assert validation["headline"]["value"] == pytest.approx(trained.increment.value)
    assert validation["candidates"]["features"]["auc"]["value"] > 0.8
    assert validation["candidates"]["majority"]["calibration_slope"] is None
    assert validation["permutation"]["permutations"] == 5
    assert validation["permutation"]["p"] == trained.permutation_p == pytest.approx(1 / 6)


def test_the_card_holds_the_measured_figures(trained):
    card = (trained.folder / "MODEL_CARD.md").read_text()
    assert "not for clinical use" in card
    assert f"{trained.increment.value:+.3f}" in card and f"{trained.auc.value:.3f}" in card
    assert "20 wildtype, 10 mutant" in card


def test_the_out_of_fold_table_gives_the_same_auc(trained):
    table = pd.read_csv(trained.folder / "oof.csv")
    own = table[table["candidate"] == "features"]
    assert len(own) == PATIENTS
    labels = (own["status"] == "mutant").to_numpy().astype(int)
    assert auc(own["score"].to_numpy(), labels) == pytest.approx(trained.auc.value, abs=1e-3)


def test_the_same_tables_in_another_order_give_the_same_bytes(tables, tmp_path):
    train_egfr(tables()[0], tmp_path / "one", tables()[1], QUICK)

    def reverse(features, clinical):
        features.reverse()
        clinical.reverse()

    features, clinical = tables(reverse)
    train_egfr(features, tmp_path / "two", clinical, QUICK)
    for name in ("pipeline.skops", "config.json", "validation.json", "oof.csv", "MODEL_CARD.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_no_place_of_a_file_is_written(tables, tmp_path):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("columns: {sex: sex}")
    settings = QUICK.model_copy(update={"clinical_mapping": mapping, "permutations": 0})
    features, clinical = tables()
    train_egfr(features, tmp_path / "out", clinical, settings)
    for path in (tmp_path / "out").glob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    record = json.loads((tmp_path / "out" / "out.run.json").read_text())
    assert "mapping.yaml" in record["inputs"]


def test_features_of_a_network_that_saw_the_patients_are_refused_unless_allowed(tables, tmp_path):
    features, clinical = tables(about={**ABOUT, "patients_seen": ["P03", "P04", "else"]})
    with pytest.raises(TableError, match="trained on 2 of these patients"):
        train_egfr(features, tmp_path / "out", clinical, QUICK)
    assert not (tmp_path / "out").exists()
    allowed = QUICK.model_copy(update={"allow_overlap": True, "permutations": 0})
    done = train_egfr(features, tmp_path / "out", clinical, allowed)
    assert done.validation["overlap_with_segmentation_training"] == 2
    assert "saw 2 of the patients" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


def test_a_network_of_which_nobody_knows_whom_it_saw_is_not_said_to_have_seen_nobody(tables, tmp_path):
    features, clinical = tables(about={**ABOUT, "patients_seen": None})
    done = train_egfr(features, tmp_path / "out", clinical, QUICK.model_copy(update={"permutations": 0}))
    assert done.validation["overlap_with_segmentation_training"] is None
    assert "may have seen these patients" in (tmp_path / "out" / "MODEL_CARD.md").read_text()


def test_too_few_patients_of_a_class_leave_nothing_behind(tables, tmp_path):
    def change(features, clinical):
        for row in clinical[6:]:
            row["egfr"] = "wildtype"

    features, clinical = tables(change)
    with pytest.raises(TableError, match="minority class has 2"):
        train_egfr(features, tmp_path / "out", clinical, QUICK)
    assert not (tmp_path / "out").exists()


CHANCE = np.random.default_rng(0)
POOR_TABLES = {
    "one binary column": CHANCE.integers(0, 2, (15, 1)),
    "the label itself": (np.arange(15) % 3 // 2)[:, None] * [1, 2],
    "one column that nearly never varies": np.eye(15)[:, :1] + [0, 1],
    "one column repeated": np.repeat(CHANCE.normal(size=(15, 1)), 9, axis=1),
    "very large": 1e90 * CHANCE.normal(size=(15, 4)),
    "very small": 1e-90 * CHANCE.normal(size=(15, 4)),
    "all on a high plateau": 1e9 + 1e-6 * CHANCE.normal(size=(15, 4)),
}


@pytest.mark.parametrize("kind", POOR_TABLES)
@pytest.mark.parametrize("classifier", ["logistic", "qda", "svc", "mlp"])
def test_poor_tables_are_survived(tmp_path, kind, classifier):
    labels = np.arange(15) % 3 // 2
    rows = [
        {"patient_id": f"P{n}", "lesion": 1, "egfr": ("wildtype", "mutant")[labels[n]]}
        | {f"f{column}": repr(float(value)) for column, value in enumerate(row)}
        for n, row in enumerate(POOR_TABLES[kind])
    ]
    allowed = ("f0", "f1") if kind == "the label itself" else ()  # else it would be refused
    quick = QUICK.model_copy(
        update={"permutations": 1, "bootstraps": 100, "classifier": classifier, "allow_columns": allowed}
    )
    done = train_egfr(write_rows(tmp_path / "features.csv", rows), tmp_path / "out", settings=quick)
    assert 0 <= done.auc.low <= done.auc.high <= 1


def test_without_clinical_variables_the_increment_is_missing_and_said(tables, tmp_path):
    def change(features, clinical):
        for row, other in zip(features, clinical, strict=True):
            row["egfr"] = other["egfr"]

    features, _ = tables(change)
    done = train_egfr(features, tmp_path / "out", settings=QUICK)
    assert done.increment is None and done.validation["headline"] is None
    assert any("no increment over clinical" in note for note in done.notes)


ORIGINAL = "nsclc_radiogenomics_tables/NSCLCR01Radiogenomic_DATA_LABELS_2018-05-22_1500-shifted.csv"
HOSNY = "nsclc_radiomics_tables/nsclc-radiomics_hosny_baseline.csv"


def test_baselines_on_the_original_table_are_the_known_ones(shared_data):
    settings = EgfrSettings(inputs="clinical")
    cohort = read_cohort(None, shared_data / ORIGINAL, settings)
    assert len(cohort.patients) == 172 and cohort.labels.sum() == 43
    folds = draw_folds(cohort.patients, cohort.labels, folds=5, repeats=5, seed=0)
    said = cross_validate(
        list_candidates(cohort, settings).values(), cohort.labels, folds, ValidationOptions()
    )
    areas = {name: auc(each.scores, cohort.labels) for name, each in said.items()}
    assert areas["clinical"] == pytest.approx(0.77, abs=0.03)
    assert areas["site"] == pytest.approx(0.63, abs=0.03)


def test_a_wide_foreign_table_with_gaps_gives_an_interval(shared_data, tmp_path):
    settings = EgfrSettings(
        id_column="id",
        label_column="surv2yr",
        positive="1",
        volume_column="logit_1",
        folds=3,
        repeats=1,
        inner_folds=2,
        permutations=0,
    )
    done = train_egfr(shared_data / HOSNY, tmp_path / "out", settings=settings)
    assert done.patients == 206 and done.positives == 60
    assert done.auc.low < done.auc.value < done.auc.high
    assert "5 rows without a patient id left out" in done.notes


def test_a_clinical_model_needs_no_features(shared_data, tmp_path):
    settings = QUICK.model_copy(update={"inputs": "clinical"})
    done = train_egfr(None, tmp_path / "out", shared_data / ORIGINAL, settings)
    assert done.auc.value > 0.65
    assert load_model(done.folder).config["classifier"] == "logistic"
