"""Several models as one: what they must share, what their answer is, what a damaged folder says."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from model.test_where_masks_land import chest
from training.oracles import CopyOfPrior, oracle

from radiogen.errors import ModelError
from radiogen.model.folder import join, load_model, load_models, model_hash, write_ensemble
from radiogen.segmentation.volume import Prompt, segment_volume

CPU = torch.device("cpu")


@pytest.fixture
def folds(tiny_model, tmp_path):
    """An ensemble folder of two folds; the second has seen another patient, and no box."""
    for name, change in (("fold0", {}), ("fold1", {"patients_seen": ["B"], "priors": ["lungs", "none"]})):
        shutil.copytree(tiny_model.folder, tmp_path / "folds" / name)
        path = tmp_path / "folds" / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    write_ensemble(tmp_path / "folds", ["fold0", "fold1"])
    return tmp_path / "folds"


def test_an_ensemble_folder_is_loaded_as_one(folds, tiny_model):
    both = load_models([folds], CPU)
    assert [member.folder.name for member in both.members] == ["fold0", "fold1"]
    assert both.config.priors == ("lungs", "none")
    assert both.config.patients_seen == tuple(sorted({*tiny_model.config.patients_seen, "B"}))
    assert both.hash not in {model_hash(folds / "fold0"), model_hash(folds / "fold1")}
    named = load_models([folds / "fold1", folds / "fold0"], CPU)
    assert named.hash == both.hash
    assert load_models([folds / "fold0"], CPU).hash == model_hash(folds / "fold0")


def test_unknown_patients_of_one_member_are_unknown_of_all(tiny_model):
    unknown = tiny_model.config.model_copy(update={"patients_seen": None})
    both = join([tiny_model, replace(tiny_model, config=unknown, hash="other")], tiny_model.folder)
    assert both.config.patients_seen is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"members": ["fold0", "../elsewhere"], "format_version": 1}, "inside the ensemble's"),
        ({"members": ["fold0", "fold0"], "format_version": 1}, "named twice"),
        ({"members": [], "format_version": 1}, "at least 1"),
        ({"members": ["fold0"], "format_version": 2}, "format_version"),
        ({"members": ["fold7"], "format_version": 1}, "fold7.*holds no"),
        ([], "cannot be used"),
        (None, "cannot be used"),
    ],
)
def test_a_damaged_ensemble_is_refused(folds, content, said):
    (folds / "ensemble.json").write_text("{" if content is None else json.dumps(content))
    with pytest.raises(ModelError, match=said):
        load_models([folds], CPU)


def test_members_must_see_alike(folds):
    path = folds / "fold1" / "config.json"
    config = json.loads(path.read_text())
    config["preprocessing"]["spacing_mm"] = [9, 9, 9]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"fold1.*differs from fold0 in preprocessing"):
        load_models([folds], CPU)


def test_the_same_model_twice_is_refused(folds):
    with pytest.raises(ModelError, match="same model twice"):
        load_models([folds / "fold0", folds / "fold0"], CPU)


def test_an_ensemble_where_one_model_is_needed_is_refused(folds):
    with pytest.raises(ModelError, match=r"is an ensemble.*one member"):
        load_model(folds, CPU)


class Hesitant(CopyOfPrior):
    """Says 0.4 where the prior is 1."""

    def forward(self, image, prior):
        return super().forward(image, prior).clamp(max=-0.405465)


def test_probabilities_are_averaged_and_disagreement_is_told():
    ct, lungs, lesion = chest("upright")
    sure = oracle(CopyOfPrior())
    both = join([sure, oracle(Hesitant())], sure.folder)
    found = segment_volume(both, ct, lungs, Prompt("mask", mask=lesion))
    (score,) = found.scores  # 0.998 and 0.4 make 0.699
    assert score.score == pytest.approx(0.68, abs=0.03)
    assert score.disagreement == pytest.approx(0.29, abs=0.03)
    assert score.entropy_bits == pytest.approx(0.9, abs=0.05)
