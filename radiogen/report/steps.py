"""What was done, with which model, in one line a step: the run records put together."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiogen.provenance import files_hash
from radiogen.report.case_places import remembered
from radiogen.report.reading import Run
from radiogen.resources import data_folder

ORDER = (
    "ingest",
    "split",
    "prune",
    "train",
    "segment",
    "evaluate",
    "extract-features",
    "train-egfr",
    "classify-egfr",
)
TOLD = (
    "prior",
    "prompt",
    "preset",
    "criterion",
    "sparsity",
    "classifier",
    "split",
    "loosen",
    "cohort",
    "radiomics",
)
HASH_DIGITS = 12
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Step:
    """One verb of a run: how many results, by what, how, where and how long."""

    verb: str
    results: int
    version: str
    model: str
    options: str
    device: str
    seconds: float
    first: str
    seed: str


def count_steps(run: Run, folder: Path) -> list[Step]:
    """The steps of a run in the order of the road; those without a record are not there.

    Args:
        run: What was read.
        folder: Where it was read from; a model in it gives its hash a name.
    """
    by_verb: dict[str, list[dict[str, Any]]] = {}
    for _, record in run.records:
        by_verb.setdefault(str(record.get("verb") or "unknown"), []).append(record)
    names = _model_names(folder)
    verbs = sorted(by_verb, key=lambda verb: (ORDER.index(verb) if verb in ORDER else len(ORDER), verb))
    return [_step(verb, by_verb[verb], names) for verb in verbs]


def _step(verb: str, records: list[dict[str, Any]], names: dict[str, str]) -> Step:
    options = [record["options"] for record in records if isinstance(record.get("options"), dict)]
    hashes = [each[:HASH_DIGITS] for each in _unique(record.get("model_hash") for record in records)]
    return Step(
        verb=verb,
        results=len(records),
        version=", ".join(_unique(record.get("radiogen") for record in records)),
        model=", ".join(f"{names[each]} ({each})" if each in names else each for each in hashes),
        options="; ".join(
            f"{name} {' or '.join(said)}"
            for name in TOLD
            if (said := _unique(each.get(name) for each in options if not isinstance(each.get(name), dict)))
        ),
        device=", ".join(_unique(record.get("device") for record in records)),
        seconds=sum(float(record.get("wall_s") or 0) for record in records),
        first=min(_unique(record.get("started") for record in records), default=""),
        seed=", ".join(_unique(record.get("seed") for record in records)),
    )


def _unique(values: Iterable[Any]) -> list[str]:
    """The different values that are set, as they came.

    >>> _unique(["cpu", None, "cpu", ""])
    ['cpu']
    """
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "", False)))


def _model_names(folder: Path) -> dict[str, str]:
    """Names of the models that are shipped or lie in the run, by the hash that records carry.

    The hash is that of `radiogen.model.folder.model_hash`, which would bring torch along.
    """
    shipped = data_folder("models")
    places = [*(each for each in sorted(shipped.iterdir()) if each.is_dir())] if shipped.is_dir() else []
    found = {}
    for place in (*places, folder / "model", remembered(folder, "model")):
        if place and (place / WEIGHTS).is_file() and (place / CONFIG).is_file():
            digest = files_hash(place / WEIGHTS, place / CONFIG)
            found[digest] = place.name
    return found
