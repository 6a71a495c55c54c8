"""Write and read the folder of an EGFR model; a file that names a type not listed here is refused."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
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

from radiogen.egfr.classifiers import TunedClassifier
from radiogen.egfr.heads import GatedAttentionHead, MlpHead, TorchHead
from radiogen.egfr.ood import OodDetector
from radiogen.egfr.preprocessing import KeptColumns, PerInstance, SiteHarmonizer, VaryingColumns
from radiogen.egfr.reductions import LinearReduction
from radiogen.errors import ModelError
from radiogen.provenance import file_sha256, whole_file, write_json

PIPELINE, HEAD, HEAD_ABOUT, CONFIG = "pipeline.skops", "head.safetensors", "head.json", "config.json"
SCHEMA_VERSION = 1
LARGEST_BYTES = 4 << 30

OWN_TYPES = (
    GatedAttentionHead,
    KeptColumns,
    LinearReduction,
    MlpHead,
    OodDetector,
    PerInstance,
    SiteHarmonizer,
    TunedClassifier,
    VaryingColumns,
)
SKLEARN_TYPES = (
    ColumnTransformer,
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    DummyClassifier,
    GradientBoostingClassifier,
    LogisticRegression,
    Pipeline,
    QuadraticDiscriminantAnalysis,
    RandomForestClassifier,
    SimpleImputer,
    StandardScaler,
    SVC,
)
VALUE_TYPES = (  # of the attributes of the estimators
    "builtins.dict",
    "builtins.list",
    "builtins.slice",
    "builtins.str",
    "builtins.tuple",
    "numpy.dtype",
    "numpy.float64",
    "numpy.int64",
    "numpy.ndarray",
    "numpy.random.mtrand.RandomState",
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn.tree._tree.Tree",
)


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


# The list in the code decides what is opened, never the list that a file asks for.
ALLOWED = frozenset((*map(_name_of, (*OWN_TYPES, *SKLEARN_TYPES)), *VALUE_TYPES))

# pipeline.skops holds module and name of each type. These are where our own lay in version 0.1.
OLD_TYPES = {
    "radiogen.egfr.bags.EachInstance": PerInstance,
    "radiogen.egfr.cleaning.VaryingColumns": VaryingColumns,
    "radiogen.egfr.familiarity.Familiarity": OodDetector,
    "radiogen.egfr.harmonise.SiteHarmonizer": SiteHarmonizer,
    "radiogen.egfr.stability.KeptColumns": KeptColumns,
    "radiogen.egfr.tuning.TunedClassifier": TunedClassifier,
}


@dataclass(frozen=True)
class EgfrModel:
    """A trained classifier: one member a fold, the detector of OOD patients, and config.json."""

    members: tuple[TunedClassifier, ...]
    ood_detector: OodDetector
    config: dict[str, Any]
    sha256: str  # of config.json, which holds the hashes of the other files


def save_model(
    folder: Path, members: tuple[TunedClassifier, ...], ood_detector: OodDetector, config: dict[str, Any]
) -> list[Path]:
    """Write pipeline.skops, the weights of torch heads apart as tensors, and config.json with their hashes.

    Returns:
        The files written.
    """
    heads = [head for member in members for head in _heads(member)]
    weights = [head.weights_ for head in heads]
    files = [folder / PIPELINE]
    if heads:
        files += _save_heads(folder, weights)
    try:
        for head in heads:  # for the time of the writing alone: the caller's models stay whole
            head.weights_ = {}
        with whole_file(folder / PIPELINE) as draft:
            skops.io.dump({"members": list(members), "familiarity": ood_detector}, draft)
            _make_reproducible(draft)
    finally:
        for head, own in zip(heads, weights, strict=True):
            head.weights_ = own
    # config.json is written last and holds the hashes, so a folder without it is not a model
    hashes = {path.name: file_sha256(path) for path in files}
    write_json(folder / CONFIG, {"schema_version": SCHEMA_VERSION, **config, "files": hashes})
    return [*files, folder / CONFIG]


def _save_heads(folder: Path, weights: list[dict[str, Any]]) -> list[Path]:
    tensors = {
        f"{number}.{name}": array for number, arrays in enumerate(weights) for name, array in arrays.items()
    }
    with whole_file(folder / HEAD) as draft:
        save_file(tensors, draft)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    about = {"kind": "weights of torch heads", "heads": len(weights), "tensors": shapes}
    write_json(folder / HEAD_ABOUT, about)
    return [folder / HEAD, folder / HEAD_ABOUT]


def _heads(member: TunedClassifier) -> list[TorchHead]:
    last = getattr(member, "estimator_", None)
    return [step for _, step in getattr(last, "steps", ()) if isinstance(step, TorchHead)]


def _make_reproducible(path: Path) -> None:
    """Rewrite a skops file so that equal models are equal bytes.

    skops names objects and their files by memory address, and a zip holds times; here objects get numbers in
    the order in which they appear.
    """
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    schema = contents.pop("schema.json").decode()
    addresses = re.findall(r'"(?:__id__": |file": ")(\d+)', schema)
    numbers = {address: str(number) for number, address in enumerate(dict.fromkeys(addresses))}
    schema = re.sub(r'("__id__": |"file": ")(\d+)', lambda match: match[1] + numbers[match[2]], schema)
    numbered = {f"{numbers[Path(name).stem]}{Path(name).suffix}": data for name, data in contents.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("schema.json", *sorted(numbered, key=lambda name: int(Path(name).stem))):
            data = schema if name == "schema.json" else numbered[name]
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def load_model(folder: Path) -> EgfrModel:
    """Read a model folder.

    Raises:
        ModelError: A file is missing, changed, of another schema, or holds a type that is not allowed. A
            pickle is never opened.
    """
    config = _read_config(folder)
    path = folder / PIPELINE
    try:
        content = skops.io.loads(_read_allowed(path), trusted=sorted(ALLOWED))
        members, ood_detector = tuple(content["members"]), content["familiarity"]
    except ModelError:
        raise
    except Exception as error:  # skops raises whatever the damaged object raises
        raise ModelError(path, f"cannot be read: {error}", "train it again with this radiogen") from error
    fits = all(isinstance(member, TunedClassifier) for member in members)
    if not members or not fits or not isinstance(ood_detector, OodDetector):
        raise ModelError(path, "is no EGFR model", "give a folder that radiogen train-egfr wrote")
    _return_weights(folder, [head for member in members for head in _heads(member)])
    return EgfrModel(members, ood_detector, config, file_sha256(folder / CONFIG))


def seen_by(model: EgfrModel) -> list[str]:
    """Return the ids and scans of the patients that a model learned from, for `find_known`."""
    return [*model.config["patients_seen"], *model.config.get("scans_seen", ())]


def _read_config(folder: Path) -> dict[str, Any]:
    hint = "give a folder that radiogen train-egfr wrote"
    if not (folder / PIPELINE).is_file() or not (folder / CONFIG).is_file():
        absent = PIPELINE if not (folder / PIPELINE).is_file() else CONFIG
        raise ModelError(folder, f"holds no {absent}; other formats, above all pickles, are not opened", hint)
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


def _read_allowed(path: Path) -> bytes:
    """Read a skops file after checking, before anything of it is built, that it names allowed types alone.

    Old names of our types are replaced by the present ones in memory; the file stays as it is.
    """
    hint = "train it again with this radiogen and these versions of its packages"
    if not zipfile.is_zipfile(path):
        raise ModelError(path, "is no skops file; pickles are never opened", hint)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_BYTES:
                raise ModelError(path, "unpacks to more than 4 GiB", hint)
            schema = json.loads(archive.read("schema.json"))
            others = {name: archive.read(name) for name in archive.namelist() if name != "schema.json"}
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RecursionError) as error:
        raise ModelError(path, "is no skops file; pickles are never opened", hint) from error
    for node in _typed_nodes(schema):
        kind = OLD_TYPES.get(f"{node.get('__module__')}.{node['__class__']}")
        if kind is not None:
            node["__module__"], node["__class__"] = kind.__module__, kind.__name__
    names = {f"{node.get('__module__')}.{node['__class__']}" for node in _typed_nodes(schema)}
    unknown = sorted(names - ALLOWED)
    if unknown:
        raise ModelError(path, f"holds the type {unknown[0]}, which is not allowed", hint)
    checked = io.BytesIO()
    with zipfile.ZipFile(checked, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
        for name, data in others.items():
            archive.writestr(name, data)
    return checked.getvalue()


def _typed_nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a skops schema that names a type; without recursion, however deep it is."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "__class__" in node:
                yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _return_weights(folder: Path, heads: list[TorchHead]) -> None:
    """Give torch heads the weights of head.safetensors, after checking each shape."""
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
