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
from radiogen.egfr.ood import OodDetector
from radiogen.egfr.persistence import CONFIG, HEAD, OLD_TYPES, PIPELINE, load_model, save_model
from radiogen.egfr.settings import EgfrSettings
from radiogen.errors import ModelError
from radiogen.provenance import file_sha256


def make_members(settings: EgfrSettings):
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(40, 9)), np.arange(40) % 2
    members = tuple(make_classifier(settings, 2, 7, seed).fit(inputs, labels) for seed in (1, 2))
    return inputs, members, OodDetector().fit(inputs)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    _, members, ood_detector = make_members(EgfrSettings())
    save_model(tmp_path / "model", members, ood_detector, {})
    return tmp_path / "model"


def rewrite_hash(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config["files"] = {name: file_sha256(folder / name) for name in config["files"]}
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_model_read_back_says_the_same_and_a_second_writing_is_byte_equal(tmp_path, name):
    inputs, members, ood_detector = make_members(EgfrSettings(classifier=name))
    said = [member.predict_proba(inputs) for member in members]
    files = save_model(tmp_path / "first", members, ood_detector, {})
    again = load_model(tmp_path / "first")
    assert all((a == b.predict_proba(inputs)).all() for a, b in zip(said, again.members, strict=True))
    assert (again.ood_detector.distance(inputs) == ood_detector.distance(inputs)).all()
    assert all((a == b.predict_proba(inputs)).all() for a, b in zip(said, members, strict=True))
    save_model(tmp_path / "second", members, ood_detector, {})
    assert all(path.read_bytes() == (tmp_path / "second" / path.name).read_bytes() for path in files)
    assert (tmp_path / "first" / HEAD).is_file() == (name in ("mlp", "attention"))


@pytest.mark.parametrize("reduction", ["lda", "paper", "pca", "pls", "none"])
def test_each_reduction_can_be_read_back(tmp_path, reduction):
    inputs, members, ood_detector = make_members(EgfrSettings(reduction=reduction))
    save_model(tmp_path, members, ood_detector, {})
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
    skops.io.dump({"members": [OodDetector()], "familiarity": OodDetector()}, saved / PIPELINE)
    rewrite_hash(saved)
    with pytest.raises(ModelError, match="no EGFR model"):
        load_model(saved)


def rename_types(path: Path, names: dict[str, str]) -> None:
    """Rewrite a skops file so that it names types by `names`: present name -> other name."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    schema = json.dumps(json.loads(contents["schema.json"]))
    for present, other in names.items():
        (module, kind), (other_module, other_kind) = present.rsplit(".", 1), other.rsplit(".", 1)
        schema = schema.replace(
            f'"__class__": "{kind}", "__module__": "{module}"',
            f'"__class__": "{other_kind}", "__module__": "{other_module}"',
        )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**contents, "schema.json": schema.encode()}.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("name", ["logistic", "attention"])
def test_a_model_that_names_our_types_as_version_0_1_did_says_the_same(tmp_path, name):
    settings = EgfrSettings(classifier=name, harmonise=name == "logistic")
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(40, 9)), np.arange(40) % 2
    inputs[:, 2] = np.arange(40) // 20  # the hospital
    kept = list(range(6)) if settings.harmonise else None
    members = tuple(make_classifier(settings, 2, 7, seed, kept).fit(inputs, labels) for seed in (1, 2))
    detector = OodDetector().fit(inputs)
    save_model(tmp_path, members, detector, {})
    used = {f"{kind.__module__}.{kind.__name__}": old for old, kind in OLD_TYPES.items()}
    rename_types(tmp_path / PIPELINE, used)
    rewrite_hash(tmp_path)
    schema = zipfile.ZipFile(tmp_path / PIPELINE).read("schema.json").decode()
    assert "radiogen.egfr.tuning" in schema and "radiogen.egfr.familiarity" in schema
    assert "radiogen.egfr.classifiers" not in schema and "radiogen.egfr.ood" not in schema
    again = load_model(tmp_path)
    for before, after in zip(members, again.members, strict=True):
        assert (before.predict_proba(inputs) == after.predict_proba(inputs)).all()
    assert (detector.distance(inputs) == again.ood_detector.distance(inputs)).all()


def test_an_unknown_type_under_a_module_of_ours_is_refused(saved):
    rename_types(
        saved / PIPELINE, {"radiogen.egfr.classifiers.TunedClassifier": "radiogen.egfr.tuning.Stranger"}
    )
    rewrite_hash(saved)
    with pytest.raises(ModelError, match=r"radiogen\.egfr\.tuning\.Stranger, which is not allowed"):
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
    _, members, ood_detector = make_members(EgfrSettings(classifier="mlp"))
    save_model(tmp_path / "a", members, ood_detector, {})
    _, others, _ = make_members(EgfrSettings(classifier="mlp", components=3))
    save_model(tmp_path / "b", others, ood_detector, {})
    shutil.copy(tmp_path / "b" / HEAD, tmp_path / "a" / HEAD)
    rewrite_hash(tmp_path / "a")
    with pytest.raises(ModelError, match=r"tensor 0\.hidden\.weight does not fit"):
        load_model(tmp_path / "a")
