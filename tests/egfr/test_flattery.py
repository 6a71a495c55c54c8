"""Tables that make a classifier look good on random labels: it finds nothing, or they are refused by name."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from egfr.made_tables import ABOUT, QUICK

from radiogen.egfr.audit import audit_egfr, find_giveaways
from radiogen.egfr.candidates import list_candidates
from radiogen.egfr.classifiers import CLASSIFIERS
from radiogen.egfr.classify import classify_egfr
from radiogen.egfr.cohort import check_overlap, read_cohort
from radiogen.egfr.cross_validation import ValidationOptions, cross_validate, draw_folds
from radiogen.egfr.external import check_external
from radiogen.egfr.statistics import auc
from radiogen.egfr.train import ExternalCohort, train_egfr
from radiogen.errors import TableError

PATIENTS, COLUMNS = 80, 24
SMALL = QUICK.model_copy(update={"permutations": 0, "bootstraps": 100})
ALONE = {"site", "clinical", "volume", "majority"}


class Noise:
    """Features without any signal, and labels drawn apart from them."""

    def __init__(self, folder: Path, seed: int) -> None:
        rng = np.random.default_rng([19, seed])
        self.folder, self.rng = folder, rng
        self.status = rng.permutation(np.arange(PATIENTS) % 2)
        self.ids = [f"P-{number:03d}" for number in range(PATIENTS)]
        self.values = rng.normal(size=(PATIENTS, COLUMNS)) * 10.0 ** rng.integers(-2, 4, COLUMNS)
        names = [f"original_glcm_F{number}" for number in range(COLUMNS)]
        self.plain = pd.DataFrame(self.values, columns=names)
        self.plain.insert(0, "patient_id", self.ids)

    def tables(self, features: pd.DataFrame, status: dict[str, int] | None = None) -> tuple[Path, Path]:
        words = status if status is not None else dict(zip(self.ids, self.status, strict=True))
        features.to_csv(self.folder / "features.csv", index=False)
        clinical = pd.DataFrame({"patient_id": list(words), "EGFR mutation status": list(words.values())})
        clinical["EGFR mutation status"] = clinical["EGFR mutation status"].map({0: "Wildtype", 1: "Mutant"})
        clinical.to_csv(self.folder / "clinical.csv", index=False)
        return self.folder / "features.csv", self.folder / "clinical.csv"

    def with_label(self) -> pd.DataFrame:
        return self.plain.assign(**{"EGFR mutation status": self.status})

    def with_mirror(self) -> pd.DataFrame:
        return self.plain.assign(**{"KRAS mutation status": 1 - self.status})

    def with_follow_up(self) -> pd.DataFrame:
        days = 400 + 300 * self.status + self.rng.normal(0, 20, PATIENTS)
        return self.plain.assign(**{"days to last follow-up": days})

    def sorted_by_status(self) -> pd.DataFrame:
        table = self.plain.iloc[np.argsort(self.status, kind="stable")].reset_index(drop=True)
        table.insert(0, "Unnamed: 0", range(PATIENTS))
        return table

    def twice(self) -> pd.DataFrame:
        again = self.plain.assign(patient_id=[f"H{number}" for number in range(PATIENTS)])
        again.iloc[:, 1:] = self.values * (1 + 0.01 * self.rng.normal(size=self.values.shape))
        return pd.concat([self.plain, again])


@pytest.fixture
def noise(tmp_path):
    return Noise(tmp_path, 0)


def measured(cohort, settings):
    """AUC out of fold of the features, pooled over one repeat."""
    folds = draw_folds(cohort.patients, cohort.labels, settings.folds, 1, settings.seed)
    candidate = list_candidates(cohort, settings)["features"]
    found = cross_validate([candidate], cohort.labels, folds, ValidationOptions(settings.seed))
    return auc(found["features"].scores, cohort.labels)


TRICKS = {
    "label inside": ("with_label", "a status or an outcome"),
    "mirror": ("with_mirror", "a status or an outcome"),
    "follow-up": ("with_follow_up", "a status or an outcome"),
    "sorted index": ("sorted_by_status", "an index"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_what_a_header_calls_a_status_or_an_index_is_never_a_feature(noise, trick):
    method, kind = TRICKS[trick]
    features, clinical = noise.tables(getattr(noise, method)())
    cohort = read_cohort(features, clinical, SMALL)
    assert list(cohort.features.columns) == [f"original_glcm_F{number}" for number in range(COLUMNS)]
    assert any(f"1 columns left out, each {kind} by its header" in note for note in cohort.notes)


@pytest.mark.parametrize("classifier", [name for name in CLASSIFIERS if name not in ("mlp", "attention")])
def test_on_random_labels_no_trick_helps_a_classifier(tmp_path, classifier):
    settings = SMALL.model_copy(update={"classifier": classifier})
    areas = []
    for seed in range(1 if classifier == "forest" else 3):
        made = Noise(tmp_path, seed)
        tables = [getattr(made, method)() for method, _ in TRICKS.values()]
        whole = pd.concat([tables[seed % len(tables)], made.twice().iloc[PATIENTS:]])
        status = dict(zip(made.ids, made.status, strict=True))
        status |= {f"H{number}": made.status[number] for number in range(PATIENTS)}
        cohort = read_cohort(*made.tables(whole, status), settings)
        assert len(cohort.patients) == PATIENTS and not find_giveaways(cohort)
        areas.append(measured(cohort, settings))
    assert np.mean(areas) == pytest.approx(0.5, abs=0.12), areas


@pytest.mark.parametrize("kind", ["the status", "nearly the status", "its gaps"])
def test_a_column_that_separates_the_classes_alone_is_named_and_stops(noise, kind):
    column = {
        "the status": 2.0 - noise.status,
        "nearly the status": noise.status + noise.rng.normal(0, 0.5, PATIENTS),
        "its gaps": np.where(noise.status == 1, np.nan, noise.rng.normal(size=PATIENTS)),
    }[kind]
    column = np.where(noise.rng.random(PATIENTS) < 0.05, 0.7, column) if kind == "its gaps" else column
    features, clinical = noise.tables(noise.plain.assign(texture=column))
    assert (
        audit_egfr(features, noise.folder / "a.json", clinical, SMALL).findings["giveaways"][0]["column"]
        == "texture"
    )
    with pytest.raises(TableError, match=r"better than a feature can: 'texture' .*--allow-column 'texture'"):
        train_egfr(features, noise.folder / "out", clinical, SMALL)
    assert not (noise.folder / "out").exists()


def test_a_column_allowed_by_name_is_used_and_stands_in_the_notes(noise):
    features, clinical = noise.tables(noise.plain.assign(texture=2.0 - noise.status))
    allowed = SMALL.model_copy(
        update={"allow_columns": ("texture",), "classifier": "tree", "reduction": "none"}
    )
    done = train_egfr(features, noise.folder / "out", clinical, allowed)
    assert done.auc.value > 0.9
    assert any(note.startswith("allowed by name: texture, AUC 1.000") for note in done.notes)
    with pytest.raises(TableError, match="no feature 'textur' to allow"):
        train_egfr(
            features, noise.folder / "out", clinical, SMALL.model_copy(update={"allow_columns": ("textur",)})
        )


def test_nothing_is_named_on_noise_however_small_the_cohort(tmp_path):
    for seed, patients in enumerate((12, 20, 40, 80)):
        made = Noise(tmp_path, seed)
        table = made.plain.iloc[:patients].mask(made.rng.random((patients, COLUMNS + 1)) < 0.1)
        table["patient_id"] = made.ids[:patients]
        assert not find_giveaways(read_cohort(*made.tables(table), SMALL))


@pytest.mark.parametrize("kind", ["noise of 1 %", "rounded"])
def test_a_patient_measured_twice_is_used_once(noise, kind):
    table = noise.twice()
    if kind == "rounded":
        spread = noise.plain.std(numeric_only=True)
        rounded = (noise.plain[spread.index] / spread).round(2) * spread
        table.iloc[PATIENTS:, 1:] = rounded.to_numpy()
    status = dict(zip(table.patient_id, [*noise.status, *noise.status], strict=True))
    cohort = read_cohort(*noise.tables(table, status), SMALL)
    assert len(cohort.patients) == PATIENTS
    assert cohort.left_out == {"under a second id": PATIENTS}
    assert any("(nearly equal features)" in note for note in cohort.notes)


def test_the_rows_of_the_training_are_no_second_cohort_under_other_ids(noise):
    features, clinical = noise.tables(noise.plain)
    other = noise.folder / "other"
    other.mkdir()
    noise.folder = other
    moved = noise.plain.assign(patient_id=[f"X{number}" for number in range(PATIENTS)])
    second = noise.tables(moved, {f"X{number}": noise.status[number] for number in range(PATIENTS)})
    with pytest.raises(TableError, match=r"holds 80 patients the model learned from \(X0, there P-000\)"):
        train_egfr(features, other / "out", clinical, SMALL, external=ExternalCohort(*second))
    unlike = Noise(other, 5)
    unlike.plain["patient_id"] = [f"X{number}" for number in range(PATIENTS)]
    second = unlike.tables(unlike.plain, {f"X{number}": noise.status[number] for number in range(PATIENTS)})
    check_external(*second, SMALL, read_cohort(features, clinical, SMALL))


@pytest.mark.parametrize("other", ["p-001", "P 001", "P_001", "P-001b", "P-001_2"])
def test_ids_that_read_as_one_patient_are_used_once(noise, other):
    table = noise.plain.copy()
    table.loc[7, "patient_id"] = other
    status = dict(zip(table.patient_id, noise.status, strict=True)) | {other: noise.status[1]}
    cohort = read_cohort(*noise.tables(table, status), SMALL)
    assert len(cohort.patients) == PATIENTS - 1
    assert any("(ids that read as one patient)" in note for note in cohort.notes)
    with pytest.raises(TableError, match="ids that read as one patient, and not one status"):
        read_cohort(*noise.tables(table, status | {other: 1 - noise.status[1]}), SMALL)


def test_whom_the_segmentation_model_saw_is_unknown_for_a_table_without_its_json(noise):
    features, clinical = noise.tables(noise.plain)
    done = train_egfr(features, noise.folder / "out", clinical, SMALL)
    for name in ("validation.json", "config.json"):
        assert json.loads((done.folder / name).read_text())["overlap_with_segmentation_training"] is None
    assert "it may have seen these patients" in (done.folder / "MODEL_CARD.md").read_text()


def test_two_sources_of_one_status_that_disagree_are_refused(noise):
    table = noise.plain.assign(mutation=noise.status)
    table.loc[3, "mutation"] = 1 - noise.status[3]
    features, clinical = noise.tables(table)
    settings = SMALL.model_copy(update={"label_column": "mutation", "target": "EGFR"})
    with pytest.raises(TableError, match=r"patient P-003 is [01], elsewhere (mutant|wildtype)"):
        read_cohort(features, clinical, settings)


def test_a_network_that_learned_from_the_same_patient_in_another_cohort_is_refused(tables):
    def change(features, clinical):
        features[3]["patient_id"] = clinical[3]["patient_id"] = "R01-003"

    features, clinical = tables(change, about={**ABOUT, "patients_seen": ["lung_003"]})
    with pytest.raises(TableError, match=r"trained on 1 of these patients \(R01-003, there lung_003"):
        check_overlap(features, read_cohort(features, clinical, SMALL), allowed=False)


def test_a_scan_learned_from_is_known_under_a_hashed_id(tables, tmp_path):
    scan = "5" * 64
    features, clinical = tables(about={**ABOUT, "scans": {"P04": [scan]}})
    model = train_egfr(features, tmp_path / "model", clinical, SMALL).folder

    def rename(rows, clinical):
        for row in rows:
            row["patient_id"] = f"N{row['patient_id']}"

    new, _ = tables(rename, seed=1, about={**ABOUT, "scans": {"NP00": [scan]}})
    told = classify_egfr(new, model, tmp_path / "p.csv")
    assert "the model learned from 1 of these patients; their numbers are too good" in told.notes
    assert "learned from this patient, by the voxels of the scan" in (tmp_path / "p.csv").read_text()


@pytest.mark.parametrize("kind", ["ten times as large", "columns mixed up", "nothing known"])
def test_a_stranger_gets_no_class_unless_it_is_demanded(noise, kind):
    features, clinical = noise.tables(noise.plain)
    model = train_egfr(features, noise.folder / "out", clinical, SMALL).folder
    new = Noise(noise.folder, 0).plain.iloc[:3].assign(patient_id=["N1", "N2", "N3"])
    numbers = new.columns[1:]
    new.loc[0, numbers] = {
        "ten times as large": 10 * new.loc[0, numbers].to_numpy(),
        "columns mixed up": np.roll(new.loc[0, numbers].to_numpy(), 1),
        "nothing known": np.full(len(numbers), np.nan),
    }[kind]
    new.to_csv(noise.folder / "new.csv", index=False)
    found = classify_egfr(noise.folder / "new.csv", model, noise.folder / "p.csv")
    assert found.predictions["N1"].called == "abstained" and found.predictions["N1"].strangeness
    assert any("no class is called for them" in note for note in found.notes)
    found = classify_egfr(noise.folder / "new.csv", model, noise.folder / "p.csv", call_all=True)
    assert found.predictions["N1"].called in ("mutant", "wildtype")
