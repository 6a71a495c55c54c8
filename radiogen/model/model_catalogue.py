"""Which models there are in a folder."""

from pathlib import Path
from typing import Any

from radiogen.model.folder import CONFIG, WEIGHTS, model_hash, read_model_config
from radiogen.errors import ModelError
from radiogen.resources import data_folder

STARTER = "raseg-starter"


def starter_model() -> Path:
    """The folder of the model that is shipped.

    Raises:
        ModelError: It is not there.
    """
    folder = data_folder("models") / STARTER
    if not (folder / WEIGHTS).is_file():
        way_out = "name a model folder with --model"
        raise ModelError(f"the starter model {STARTER}", "is not part of this installation", way_out)
    return folder


def find_models(folder: Path | None = None) -> list[dict[str, Any]]:
    """Name, preset, priors, sparsity and hash of each model folder in a folder (or itself one).

    Args:
        folder: Where to look; None for the models that radiogen ships.

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
