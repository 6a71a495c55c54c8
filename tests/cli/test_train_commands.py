"""radiogen train beyond the plain case: folds in one go, the dry run, and words that do not fit."""

import json
import re
import shlex
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    radiogen (train .+)$", GUIDE, flags=re.MULTILINE)

SHORT = ("--set", "training.epochs=1", "--set", "training.patches_per_case=1", "--device", "cpu")


def test_a_dry_run_answers_and_writes_nothing(radiogen, cases, small):
    answer = radiogen("train", cases, "-o", "model", *small, *SHORT, "--dry-run")
    assert answer.code == 0 and not answer.touched
    assert "step\t2 patches" in answer.out and answer.out.endswith("fits\tyes\n")


def test_all_folds_make_an_ensemble(radiogen, cases, small, tmp_path):
    words = ("--folds", "2", "--fold", "all", "--synthetic-lesions", "0.5")
    answer = radiogen("train", cases, "-o", "e", *small, *SHORT, *words)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].startswith("box\toracle\t4 cases\tDice ") and lines[-1] == "e"
    record = json.loads((tmp_path / "e" / "fold1" / "fold1.run.json").read_text())
    assert record["options"]["settings"]["training"]["synthetic_lesions"] == 0.5
    again = radiogen("train", cases, "-o", "e", *small, *SHORT, *words)
    assert again.code == 0 and not again.touched


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--fold", "all"), "add --folds"),
        (("--fold", "1"), "add --folds"),
        (("--folds", "2", "--fold", "2"), "count from 0"),
        (("--set", "training.patience=1"), "held-out cases"),
        (("--set", "training.synthetic_lesions=2"), "synthetic_lesions"),
        (("--dry-run", "--folds", "9"), "take fewer folds"),
        (("--dry-run", "--set", "training.lungs_only_cohorts=[typo]"), "names 'typo'"),
    ],
)
def test_words_that_do_not_fit_are_refused_in_one_line(radiogen, cases, small, words, named):
    assert radiogen("train", cases, "-o", "model", *small, *SHORT, *words).refuses(named)


def test_the_guide_shows_plain_training_folds_and_the_dry_run():
    assert len(COMMANDS) >= 5 and any("--fold all" in line for line in COMMANDS)


@pytest.mark.parametrize("line", [line for line in COMMANDS if "--start" not in line])
def test_what_the_guide_shows_can_be_typed(radiogen, cases, small, line):
    here = line.replace("lidc_idri", "phantoms").replace("--folds 5", "--folds 2")
    finer = ("--set", "preprocessing.spacing_mm=[3, 3, 3]")  # so that there are patches without a lesion
    answer = radiogen(*shlex.split(here), *small, *SHORT, *finer, "--dry-run")
    assert answer.code == 0 and not answer.touched, answer.err


def test_settings_that_the_guide_names_are_there(radiogen):
    from radiogen.training.settings import TrainingSettings

    named = set(re.findall(r"`training\.(\w+)", GUIDE))
    assert named and named <= set(TrainingSettings.model_fields)


def test_a_training_begins_with_a_model(radiogen, cases, small, tiny_model):
    words = ("--start", tiny_model.folder, "--set", "training.learning_rate=2e-4")
    answer = radiogen("train", cases, "-o", "tuned", *small, *SHORT, *words)
    assert answer.code == 0, answer.err
    assert radiogen("train", cases, "-o", "t", *small, *SHORT, "--start", "nowhere").refuses("nowhere")
