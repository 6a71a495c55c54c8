"""Write and read an EGFR model folder; what is read may hold only the types listed here."""

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from radiogen.egfr.classifiers import VaryingColumns
from radiogen.egfr.feature_table import EachInstance
from radiogen.egfr.harmonise import SiteHarmonizer
from radiogen.egfr.heads import GatedAttentionHead, MlpHead, TorchHead
from radiogen.egfr.ood import Familiarity
from radiogen.egfr.reductions import LinearReduction
from radiogen.egfr.stability import KeptColumns
from radiogen.egfr.tuning import TunedClassifier
from radiogen.errors import ModelError
from radiogen.provenance import file_sha256, whole_file, write_json

PIPELINE, HEAD, HEAD_ABOUT, CONFIG = "pipeline.skops", "head.safetensors", "head.json", "config.json"
SCHEMA_VERSION = 1
LARGEST_BYTES = 4 << 30

OWN = (
    *(EachInstance, Familiarity, GatedAttentionHead, KeptColumns, LinearReduction, MlpHead),
    *(SiteHarmonizer, TunedClassifier, VaryingColumns),
)
LEARNERS = (
    *(ColumnTransformer, DecisionTreeClassifier, DecisionTreeRegressor, GradientBoostingClassifier),
    *(LogisticRegression, Pipeline, QuadraticDiscriminantAnalysis, RandomForestClassifier, SimpleImputer),
    *(DummyClassifier, StandardScaler, SVC),
)
PARTS = (
    *("builtins.dict", "builtins.list", "builtins.slice", "builtins.str", "builtins.tuple"),
    *("numpy.dtype", "numpy.float64", "numpy.int64", "numpy.ndarray", "numpy.random.mtrand.RandomState"),
    *(
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
    ),
    *("sklearn._loss.loss.HalfBinomialLoss", "sklearn.tree._tree.Tree"),
)
ALLOWED = frozenset((*(f"{kind.__module__}.{kind.__name__}" for kind in (*OWN, *LEARNERS)), *PARTS))


@dataclass(frozen=True)
class EgfrModel:
    """A trained classifier: one member a fold, who is familiar to it, and what config.json says."""

    members: tuple[TunedClassifier, ...]
    familiarity: Familiarity
    config: dict[str, Any]
    sha256: str


def save_model(
    folder: Path, members: tuple[TunedClassifier, ...], familiarity: Familiarity, config: dict[str, Any]
) -> list[Path]:
    """Write pipeline.skops, the torch heads apart as tensors, and config.json with their hashes.

    Returns:
        The files written.
    """
    heads = [head for member in members for head in _heads(member)]
    weights = [head.weights_ for head in heads]
    files = [folder / PIPELINE]
    if heads:
        files += _save_heads(folder, weights)
    try:
        for head in heads:
            head.weights_ = {}
        with whole_file(folder / PIPELINE) as draft:
            skops.io.dump({"members": list(members), "familiarity": familiarity}, draft)
            _make_reproducible(draft)
    finally:
        for head, kept in zip(heads, weights, strict=True):
            head.weights_ = kept
    hashes = {path.name: file_sha256(path) for path in files}
    write_json(folder / CONFIG, {"schema_version": SCHEMA_VERSION, **config, "files": hashes})
    return [*files, folder / CONFIG]


def _save_heads(folder: Path, weights: list[dict[str, Any]]) -> list[Path]:
    tensors = {f"{number}.{name}": w for number, each in enumerate(weights) for name, w in each.items()}
    with whole_file(folder / HEAD) as draft:
        save_file(tensors, draft)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    write_json(
        folder / HEAD_ABOUT, {"kind": "weights of torch heads", "heads": len(weights), "tensors": shapes}
    )
    return [folder / HEAD, folder / HEAD_ABOUT]


def _heads(member: TunedClassifier) -> list[TorchHead]:
    last = getattr(member, "estimator_", None)
    return [step for _, step in getattr(last, "steps", ()) if isinstance(step, TorchHead)]


def _make_reproducible(path: Path) -> None:
    """Number what skops names by memory address, and drop the times, so that equal models are equal bytes."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    schema = contents.pop("schema.json").decode()
    found = dict.fromkeys(re.findall(r'"__id__": (\d+)|"file": "(\d+)\.', schema))
    numbers = {address: str(n) for n, address in enumerate(dict.fromkeys("".join(pair) for pair in found))}
    schema = re.sub(r'("__id__": )(\d+)', lambda m: m[1] + numbers[m[2]], schema)
    schema = re.sub(r'("file": ")(\d+)\.', lambda m: f"{m[1]}{numbers[m[2]]}.", schema)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("schema.json"), schema, zipfile.ZIP_DEFLATED)
        for name in sorted(contents, key=lambda name: int(numbers[name.split(".")[0]])):
            stem, _, ending = name.partition(".")
            archive.writestr(
                zipfile.ZipInfo(f"{numbers[stem]}.{ending}"), contents[name], zipfile.ZIP_DEFLATED
            )


def load_model(folder: Path) -> EgfrModel:
    """Read a model folder.

    Raises:
        ModelError: A file is missing, changed, of another schema, or holds a type that is not allowed. A
            pickle is never opened.
    """
    config = _read_config(folder)
    path = folder / PIPELINE
    _check_types(path)
    try:
        content = skops.io.load(path, trusted=sorted(ALLOWED))
        members, familiarity = tuple(content["members"]), content["familiarity"]
    except Exception as error:  # skops raises whatever the damaged object raises
        raise ModelError(path, f"cannot be read: {error}", "train it again with this radiogen") from error
    fits = all(isinstance(member, TunedClassifier) for member in members)
    if not members or not fits or not isinstance(familiarity, Familiarity):
        raise ModelError(path, "is no EGFR model", "give a folder that radiogen train-egfr wrote")
    _return_weights(folder, [head for member in members for head in _heads(member)])
    return EgfrModel(members, familiarity, config, file_sha256(folder / CONFIG))


def _read_config(folder: Path) -> dict[str, Any]:
    hint = "give a folder that radiogen train-egfr wrote"
    if not (folder / PIPELINE).is_file() or not (folder / CONFIG).is_file():
        absent = PIPELINE if not (folder / PIPELINE).is_file() else CONFIG
        raise ModelError(folder, f"holds no {absent}; other formats, pickles above all, stay shut", hint)
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version, files = config["schema_version"], config["files"]
        names = [PIPELINE, *(name for name in (HEAD, HEAD_ABOUT) if name in files)]
        wrong = next((name for name in names if file_sha256(folder / name) != files[name]), None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(folder / CONFIG, f"does not describe an EGFR model: {error}", hint) from error
    if version != SCHEMA_VERSION:
        raise ModelError(folder / CONFIG, f"has schema version {version}", "train with this radiogen")
    if wrong:
        raise ModelError(folder / wrong, "is not the file that config.json was written for", "copy it again")
    return config


def _check_types(path: Path) -> None:
    """See that the archive names no type but the allowed ones, before anything of it is built."""
    hint = "train it again with this radiogen and these versions of its packages"
    if not zipfile.is_zipfile(path):
        raise ModelError(path, "is no skops file; pickles are never opened", hint)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_BYTES:
                raise ModelError(path, "unpacks to more than 4 GiB", hint)
            schema = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RecursionError) as error:
        raise ModelError(path, "is no skops file; pickles are never opened", hint) from error
    strangers = sorted(_types_in(schema) - ALLOWED)
    if strangers:
        raise ModelError(path, f"holds the type {strangers[0]}, which is not allowed", hint)


def _types_in(schema: Any) -> set[str]:
    found, waiting = set(), [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "__class__" in node:
                found.add(f"{node.get('__module__')}.{node['__class__']}")
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return found


def _return_weights(folder: Path, heads: list[TorchHead]) -> None:
    if not heads:
        return
    try:
        tensors = load_file(folder / HEAD)
    except (OSError, SafetensorError) as error:
        raise ModelError(folder / HEAD, "cannot be read", "copy the folder again") from error
    for number, head in enumerate(heads):
        shapes = head.weight_shapes(head.n_features_in_, len(head.classes_))
        for name, shape in shapes.items():
            tensor = tensors.get(f"{number}.{name}")
            if tensor is None or tensor.shape != shape or not np.isfinite(tensor).all():
                raise ModelError(folder / HEAD, f"tensor {number}.{name} does not fit", "train it again")
            head.weights_[name] = tensor
