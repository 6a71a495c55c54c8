"""Model folders (model.safetensors, config.json, metrics.json, MODEL_CARD.md), and several of them as one."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from radiogen.config import Settings, check_settings, data_folder
from radiogen.errors import ConfigError, ModelError, PruningError
from radiogen.io.tensors import load_tensors, save_tensors
from radiogen.model.network_input import Preprocessing
from radiogen.model.priors import AUTO_PRIORS, PriorChoice, PriorName
from radiogen.networks.raseg import RASeg, RASegSettings
from radiogen.provenance import files_hash, short_hash, write_json, write_text
from radiogen.runtime import AnyPath, pick_device

WEIGHTS, CONFIG, METRICS, CARD = "model.safetensors", "config.json", "metrics.json", "MODEL_CARD.md"
ENSEMBLE = "ensemble.json"
STARTER = "raseg-starter"
SHARED = ("preprocessing", "class_names", "threshold", "least_candidate")  # by all members of an ensemble


class CandidateModel(Settings):
    """How probable a candidate of `auto` is a lesion: a logistic regression on what was measured of it.

    Attributes:
        features: Their names, as `segmentation.automatic.candidate_features` measures them.
        means: Of the features, in the cases it was fitted on.
        scales: Their standard deviations.
        weights: Of the standardised features.
        intercept: Of the log odds.
        measured: On what it was fitted, and how right it was on cases that were left out.
    """

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    measured: str = ""

    def probability(self, features: Mapping[str, float]) -> float:
        """Return the probability of a lesion."""
        log_odds = self.intercept
        for name, mean, scale, weight in zip(
            self.features, self.means, self.scales, self.weights, strict=True
        ):
            log_odds += weight * (features[name] - mean) / scale
        return 1 / (1 + math.exp(-log_odds))


class ModelConfig(Settings):
    """config.json of a model: its architecture, its input, the patients it has seen."""

    format_version: Literal[1] = 1
    architecture: Literal["RASeg"] = "RASeg"
    preset: str = ""
    network: RASegSettings = RASegSettings()
    preprocessing: Preprocessing = Preprocessing()
    priors: tuple[PriorName, ...] = ("box",)
    class_names: tuple[str, ...] = ("background", "lesion")
    threshold: float = 0.5
    least_candidate: float = 0.5  # of `auto`: the least mean probability of a candidate in the first pass
    candidates: CandidateModel | None = None  # None: `auto` goes by least_candidate
    seed: int = 0
    sparsity: float = 0.0
    control: str = "none"  # of the pruning: which random masks replaced the criterion's
    patients_seen: tuple[str, ...] | None = ()  # None: unknown, as for imported weights
    scans_seen: tuple[str, ...] = ()  # hashes of their voxels, which no other id hides

    @property
    def seen(self) -> tuple[str, ...] | None:
        """Ids and scans of the patients learned from, for `find_known`; None where they are unknown."""
        return None if self.patients_seen is None else (*self.patients_seen, *self.scans_seen)


@dataclass(frozen=True)
class Model:
    """A trained RA-Seg in evaluation mode, with its config and the hash of its folder."""

    network: RASeg
    config: ModelConfig
    hash: str
    folder: Path

    @property
    def members(self) -> "tuple[Model, ...]":
        """The networks that are run: this one."""
        return (self,)


@dataclass(frozen=True)
class Ensemble:
    """Several models whose probabilities are averaged; made by `load_models`."""

    members: tuple[Model, ...]
    config: ModelConfig  # what they share; the priors that all were trained with, the patients that any saw
    hash: str  # of all of them
    folder: Path


AnyModel = Model | Ensemble


def save_model(
    folder: Path,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    metrics: Mapping[str, Any],
    card: str,
) -> None:
    """Write a model folder, the weights last; a pruned one takes the space of what is kept."""
    write_json(folder / CONFIG, config.model_dump(mode="json"))
    write_json(folder / METRICS, metrics)
    write_text(folder / CARD, card)
    save_tensors(folder / WEIGHTS, state)


def write_candidates(folder: Path, candidates: CandidateModel) -> None:
    """Give a model folder its candidate model; the rest of its config stays."""
    config = read_model_config(folder).model_copy(update={"candidates": candidates})
    write_json(folder / CONFIG, config.model_dump(mode="json"))


def read_model_config(folder: Path) -> ModelConfig:
    """Read the config of a model folder.

    Raises:
        ModelError: The folder is not a whole model folder, or of a format of another version.
    """
    if (folder / ENSEMBLE).is_file():
        raise ModelError(folder, "is an ensemble of models", "give the folder of one member here")
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        missing = CONFIG if not (folder / CONFIG).is_file() else WEIGHTS
        raise ModelError(folder, f"holds no {missing}", "give a folder that radiogen train finished")
    try:
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return check_settings(ModelConfig, values, source=str(folder / CONFIG))
    except (ValueError, TypeError, ConfigError) as error:
        raise ModelError(folder / CONFIG, f"cannot be used: {error}", "train or import it again") from error


def model_hash(folder: Path) -> str:
    """Return one hash for weights and config of a model folder."""
    return files_hash(folder / WEIGHTS, folder / CONFIG)


def load_model(folder: AnyPath, device: str | torch.device = "auto") -> Model:
    """Load a model folder; nothing in it is executed.

    Args:
        folder: Model folder of `train` or of `radiogen model import`.
        device: Where the network computes: `auto`, `cpu`, `cuda`, `cuda:N`, `mps` or a device.

    Raises:
        ModelError: The folder is not whole, or weights and config do not fit each other.
    """
    folder, device = Path(folder), pick_device(device)
    config = read_model_config(folder)
    network = RASeg(config.network)
    try:
        network.load_state_dict(load_tensors(folder / WEIGHTS))
    except PruningError as error:
        raise ModelError(folder / WEIGHTS, "is damaged", "copy or train it again") from error
    except RuntimeError as error:
        wrong = f"does not fit {CONFIG}: {str(error).splitlines()[-1].strip()}"
        raise ModelError(folder / WEIGHTS, wrong, "give weights and config of one training") from error
    return Model(network.to(device).eval(), config, model_hash(folder), folder)


def check_prior(config: ModelConfig, prior: PriorChoice, folder: Path) -> None:
    """Refuse a prior that the model was not trained with; `auto` needs lungs and box."""
    needed: tuple[PriorName, ...] = AUTO_PRIORS if prior == "auto" else (prior,)
    for name in needed:
        if name not in config.priors:
            raise ModelError(
                f"model {folder.name}",
                f"was not trained with the prior {name!r}",
                f"take --prior {' or '.join(config.priors)}",
            )


class EnsembleConfig(Settings):
    """ensemble.json: the folders of the members, inside the ensemble's own."""

    format_version: Literal[1] = 1
    members: tuple[str, ...] = Field(min_length=1)

    @field_validator("members")
    @classmethod
    def _plain_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name in (".", "..") or Path(name).name != name:
                raise ValueError(f"member {name!r} must be the name of a folder inside the ensemble's")
        if len(set(names)) < len(names):
            raise ValueError("a member is named twice")
        return names


def write_ensemble(folder: Path, members: Sequence[str]) -> None:
    """Turn a folder of model folders into an ensemble."""
    write_json(folder / ENSEMBLE, EnsembleConfig(members=tuple(members)).model_dump(mode="json"))


def all_members(folders: Iterable[Path]) -> list[Path]:
    """List the model folders that models and ensembles come to, in their order.

    Raises:
        ModelError: An ensemble.json cannot be used.
    """
    members = []
    for folder in folders:
        path = folder / ENSEMBLE
        if not path.is_file():
            members.append(folder)
            continue
        try:
            values = dict(json.loads(path.read_text("utf-8")))
            config = check_settings(EnsembleConfig, values, source=str(path))
        except (ValueError, TypeError, OSError, ConfigError) as error:
            raise ModelError(path, f"cannot be used: {error}", "train the folds again") from error
        members += [folder / name for name in config.members]
    return members


def load_models(folders: Sequence[AnyPath], device: str | torch.device = "auto") -> AnyModel:
    """Load a model folder, an ensemble folder, or several of either, whose probabilities are averaged.

    Args:
        folders: Model folders and ensemble folders.
        device: Where the networks compute: `auto`, `cpu`, `cuda`, `cuda:N`, `mps` or a device.

    Raises:
        ModelError: A folder is not whole, one comes twice, or the models see their input differently.
    """
    paths = [Path(folder) for folder in folders]
    models = [load_model(folder, device) for folder in all_members(paths)]
    return models[0] if len(models) == 1 else join(models, paths[0])


def join(models: Sequence[Model], folder: Path) -> Ensemble:
    """Join several models into one whose probabilities are averaged.

    Raises:
        ModelError: They see their input differently, or one comes twice.
    """
    first = models[0].config
    for other in models[1:]:
        for name in SHARED:
            if getattr(other.config, name) != getattr(first, name):
                wrong = f"differs from {models[0].folder.name} in {name}"
                raise ModelError(other.folder, wrong, "join models of one preset and training")
    hashes = [model.hash for model in models]
    if len(set(hashes)) < len(hashes):
        raise ModelError(folder, "holds or names the same model twice", "name each model once")
    members = tuple(models)
    return Ensemble(members, _shared_config(members), short_hash("".join(sorted(hashes))), folder)


def _shared_config(models: Sequence[Model]) -> ModelConfig:
    configs = [model.config for model in models]
    priors = [prior for prior in configs[0].priors if all(prior in each.priors for each in configs)]
    patients = [each.patients_seen for each in configs]
    known = None if None in patients else tuple(sorted({one for each in patients for one in each or ()}))
    scans = tuple(sorted({scan for each in configs for scan in each.scans_seen}))
    update = {"priors": tuple(priors), "patients_seen": known, "scans_seen": scans}
    return configs[0].model_copy(update=update)


def starter_model() -> Path:
    """Return the folder of the model that is shipped.

    Raises:
        ModelError: It is not there.
    """
    folder = data_folder("models") / STARTER
    if not (folder / WEIGHTS).is_file():
        hint = "name a model folder with --model"
        raise ModelError(f"the starter model {STARTER}", "is not part of this installation", hint)
    return folder


def find_models(folder: Path | None = None) -> list[dict[str, Any]]:
    """List name, preset, priors, sparsity and hash of each model folder in a folder (or itself one).

    Args:
        folder: Where the models are; None for the models that radiogen ships.

    Raises:
        ModelError: The folder does not exist.
    """
    root = data_folder("models") if folder is None else folder
    if not root.is_dir():
        raise ModelError(root, "is not a folder", "give a folder that holds model folders")
    candidates = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    rows = []
    for path in candidates:
        if (path / WEIGHTS).is_file() and (path / CONFIG).is_file():
            config = read_model_config(path)
            rows.append(
                {
                    "name": path.resolve().name,
                    "preset": config.preset,
                    "priors": ",".join(config.priors),
                    "sparsity": config.sparsity,
                    "hash": model_hash(path),
                }
            )
    return rows
