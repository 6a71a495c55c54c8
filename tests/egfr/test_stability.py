"""Features that change with the outline are left out, by what the training patients show."""

import csv

import numpy as np
import pytest
from egfr.made_tables import COLUMNS, QUICK, write_rows

from radiogen.egfr.candidates import list_candidates
from radiogen.egfr.classify import classify_egfr
from radiogen.egfr.cohort import read_cohort
from radiogen.egfr.preprocessing import choose_stable
from radiogen.egfr.train import train_egfr
from radiogen.errors import TableError

STABLE = QUICK.model_copy(update={"stable": 0.75, "permutations": 2})
SHAKY = ("deep_0", "deep_3", "intensity_1")


def write_perturbed(table, repeats=4, shaky=SHAKY):
    """Beside a made table the same rows under shaken masks: some features jump, the others hardly move."""
    rng = np.random.default_rng(0)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    shaken = []
    for row in rows:
        for repeat in range(repeats):
            noise = {name: 0.0 if not repeat else (5 if name in shaky else 0.05) for name in COLUMNS}
            moved = {name: f"{float(row[name]) + noise[name] * rng.normal():.6f}" for name in COLUMNS}
            shaken.append({**row, "repeat": repeat, **moved})
    rng.shuffle(shaken)
    return write_rows(table.with_name("features.perturbed.csv"), shaken)


def test_shaky_features_do_not_reach_the_model(tables, tmp_path):
    features, clinical = tables()
    write_perturbed(features)
    cohort = read_cohort(features, clinical, STABLE)
    assert cohort.perturbed.shape == (30, 4, len(COLUMNS))
    assert np.allclose(cohort.perturbed[:, 0], cohort.features)
    candidate = list_candidates(cohort, STABLE)["features"]
    mask = candidate.build(0, np.arange(20)).estimator.named_steps["columns"].transformers[0][1][0].kept
    assert [name for i, name in enumerate(COLUMNS) if i not in mask] == [n for n in COLUMNS if n in SHAKY]
    done = train_egfr(features, tmp_path / "model", clinical, STABLE)
    assert done.auc.value > 0.7
    said = classify_egfr(features, tmp_path / "model", tmp_path / "p.csv", explain=12)
    moved = {name for each in said.predictions.values() for name, _ in each.contributions}
    assert moved and not moved & set(SHAKY)


def test_only_the_training_patients_say_which_features_are_stable(tables):
    features, clinical = tables()
    write_perturbed(features)
    cohort = read_cohort(features, clinical, STABLE)
    candidate = list_candidates(cohort, STABLE)["features"]
    candidate.perturbed[20:] = np.random.default_rng(1).normal(size=candidate.perturbed[20:].shape) * 1e3
    kept = candidate.build(0, np.arange(20)).estimator.named_steps["columns"].transformers[0][1][0].kept
    assert len(kept) == len(COLUMNS) - len(SHAKY)


def test_where_none_is_stable_the_most_stable_stays():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(20, 3, 4))
    noise[:, :, 2] += rng.normal(size=(20, 1))
    assert choose_stable(noise, 0.99) == [2]


def test_without_perturbed_masks_stability_is_refused(tables):
    features, clinical = tables()
    with pytest.raises(TableError, match="--perturb"):
        read_cohort(features, clinical, STABLE)
    write_perturbed(features)
    lines = features.with_name("features.perturbed.csv").read_text().splitlines()
    features.with_name("features.perturbed.csv").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(TableError, match="equally often"):
        read_cohort(features, clinical, STABLE)
