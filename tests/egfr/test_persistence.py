"""Model folders: equal models are equal bytes, and nothing foreign is opened."""

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.naive_bayes import GaussianNB

from radiogen.egfr.classifiers import CLASSIFIERS, make_classifier
from radiogen.egfr.ood import Familiarity
from radiogen.egfr.persistence import CONFIG, HEAD, PIPELINE, load_model, save_model
from radiogen.egfr.settings import EgfrSettings
from radiogen.errors import ModelError
from radiogen.provenance import file_sha256


def make_members(settings: EgfrSettings):
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(40, 9)), np.arange(40) % 2
    members = tuple(make_classifier(settings, 2, 7, seed).fit(inputs, labels) for seed in (1, 2))
    return inputs, members, Familiarity().fit(inputs)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    _, members, familiarity = make_members(EgfrSettings())
    save_model(tmp_path / "model", members, familiarity, {})
    return tmp_path / "model"


def rewrite_hash(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config["files"] = {name: file_sha256(folder / name) for name in config["files"]}
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_model_read_back_says_the_same_and_a_second_writing_is_byte_equal(tmp_path, name):
    inputs, members, familiarity = make_members(EgfrSettings(classifier=name))
    said = [member.predict_proba(inputs) for member in members]
    files = save_model(tmp_path / "first", members, familiarity, {})
    again = load_model(tmp_path / "first")
    assert all((a == b.predict_proba(inputs)).all() for a, b in zip(said, again.members, strict=True))
    assert (again.familiarity.distance(inputs) == familiarity.distance(inputs)).all()
    assert all((a == b.predict_proba(inputs)).all() for a, b in zip(said, members, strict=True))
    save_model(tmp_path / "second", members, familiarity, {})
    assert all(path.read_bytes() == (tmp_path / "second" / path.name).read_bytes() for path in files)
    assert (tmp_path / "first" / HEAD).is_file() == (name in ("mlp", "attention"))


@pytest.mark.parametrize("reduction", ["lda", "paper", "pca", "pls", "none"])
def test_each_reduction_can_be_read_back(tmp_path, reduction):
    inputs, members, familiarity = make_members(EgfrSettings(reduction=reduction))
    save_model(tmp_path, members, familiarity, {})
    assert (load_model(tmp_path).members[0].predict(inputs) == members[0].predict(inputs)).all()


class Opened:
    """A pickle that leaves a trace when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", [PIPELINE, "pipeline.pkl"])
def test_a_pickle_is_refused_without_being_opened(saved, tmp_path, name):
    (saved / PIPELINE).unlink()
    (saved / name).write_bytes(pickle.dumps(Opened(tmp_path / "trace")))
    rewrite_hash(saved) if name == PIPELINE else None
    with pytest.raises(ModelError, match="pickles"):
        load_model(saved)
    assert not (tmp_path / "trace").exists()


def test_a_pickle_in_a_zip_is_refused(saved, tmp_path):
    with zipfile.ZipFile(saved / PIPELINE, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Opened(tmp_path / "trace")))
    rewrite_hash(saved)
    with pytest.raises(ModelError, match="pickles"):
        load_model(saved)
    assert not (tmp_path / "trace").exists()


def test_a_type_that_is_not_on_our_list_is_refused_even_where_skops_trusts_it(saved):
    skops.io.dump({"members": [GaussianNB()], "familiarity": None}, saved / PIPELINE)
    rewrite_hash(saved)
    with pytest.raises(ModelError, match=r"sklearn\.naive_bayes\.GaussianNB, which is not allowed"):
        load_model(saved)


def test_an_allowed_type_in_the_wrong_place_is_refused(saved):
    skops.io.dump({"members": [Familiarity()], "familiarity": Familiarity()}, saved / PIPELINE)
    rewrite_hash(saved)
    with pytest.raises(ModelError, match="no EGFR model"):
        load_model(saved)


def test_a_changed_file_is_refused(saved):
    with (saved / PIPELINE).open("ab") as file:
        file.write(b"0")
    with pytest.raises(ModelError, match="not the file"):
        load_model(saved)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema_version": 1, "files": {}}'])
def test_a_config_that_describes_nothing_is_refused(saved, text):
    (saved / CONFIG).write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(saved)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no pipeline\.skops"):
        load_model(tmp_path)


def test_head_weights_that_do_not_fit_are_refused(tmp_path):
    _, members, familiarity = make_members(EgfrSettings(classifier="mlp"))
    save_model(tmp_path / "a", members, familiarity, {})
    _, others, _ = make_members(EgfrSettings(classifier="mlp", components=3))
    save_model(tmp_path / "b", others, familiarity, {})
    shutil.copy(tmp_path / "b" / HEAD, tmp_path / "a" / HEAD)
    rewrite_hash(tmp_path / "a")
    with pytest.raises(ModelError, match=r"tensor 0\.hidden\.weight does not fit"):
        load_model(tmp_path / "a")
