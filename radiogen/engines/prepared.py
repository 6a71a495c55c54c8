"""Cases on the network's grid, kept on disk beside a training so that patches are cut without waiting."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from radiogen.errors import CaseError
from radiogen.io.cases import Case
from radiogen.preprocess.network_input import NetworkInput, Preprocessing, to_network_grid
from radiogen.provenance import file_sha256, short_hash, whole_file
from radiogen.runtime import Tick, no_tick
from radiogen.volume import array_of

ArrayBox = tuple[slice, slice, slice]


@dataclass(frozen=True)
class PreparedCase:
    """One case as arrays (D, H, W) in a file: `hu` int16, `lungs` and `lesion` uint8."""

    case_id: str
    patient_id: str
    path: Path
    shape: tuple[int, int, int]
    lesion_boxes: dict[int, ArrayBox]

    def read(self, name: str, box: ArrayBox) -> npt.NDArray[np.int16]:
        """A piece of one of the arrays, as int16."""
        with safe_open(self.path, framework="np") as file:
            piece: npt.NDArray[np.int16] = file.get_slice(name)[box].astype(np.int16)
        return piece


def learnable(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """The cases a network may learn from, and a sentence for each kind that is left out.

    Raises:
        CaseError: None is left.
    """
    reasons: dict[str, Callable[[Case], bool]] = {
        "of the split `test`": lambda case: case.split == "test",
        "without an outline": lambda case: not case.has_lesion,
        "without a lung mask": lambda case: not case.lungs_path.is_file(),
    }
    left, said = list(cases), []
    for reason, applies in reasons.items():
        out = [case.case_id for case in left if applies(case)]
        if out:
            said.append(f"{len(out)} cases {reason} left out: {', '.join(out)}")
        left = [case for case in left if not applies(case)]
    if not left:
        wrong = "hold none to learn from; " + "; ".join(said)
        raise CaseError("the cases", wrong, "ingest with outlines, or change the split")
    return left, said


def prepare(
    cases: Sequence[Case],
    settings: Preprocessing,
    cache: Path,
    tick: Tick = no_tick,
) -> list[PreparedCase]:
    """Bring cases to the network's grid, or take them from the cache if nothing has changed.

    Args:
        cases: Cases with a known outline.
        settings: The network's preprocessing.
        cache: Folder for the arrays.
        tick: Told of each case that is ready.

    Raises:
        CaseError: A case lacks its CT, outline or lungs.
    """
    prepared = []
    for number, case in enumerate(cases, start=1):
        prepared.append(_prepare_one(case, settings, cache))
        tick("prepare", number, len(cases))
    return prepared


def _prepare_one(case: Case, settings: Preprocessing, cache: Path) -> PreparedCase:
    files = (case.ct_path, case.lesion_path, case.lungs_path)
    for missing in (path for path in files if not path.is_file()):
        raise CaseError(missing, "is missing", "ingest the case again, with its outline")
    key = short_hash(settings.model_dump_json() + "".join(file_sha256(path) for path in files))
    path = cache / f"{case.case_id}-{key}.safetensors"
    if not _is_whole(path):
        sample = to_network_grid(case.ct(), case.lungs(), case.lesion(), settings)
        _write(sample, path, case)
    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["about"])
    d, h, w = about["shape"]
    boxes = {int(label): _box(edges) for label, edges in about["lesion_boxes"].items()}
    return PreparedCase(case.case_id, case.patient_id, path, (d, h, w), boxes)


def _box(edges: list[list[int]]) -> ArrayBox:
    z, y, x = (slice(start, stop) for start, stop in edges)
    return z, y, x


def _is_whole(path: Path) -> bool:
    try:
        with safe_open(path, framework="np") as file:
            return "about" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def _write(sample: NetworkInput, path: Path, case: Case) -> None:
    if sample.lesion is None:
        raise CaseError(case.lesion_path, "is missing", "train on cases with an outline")
    lesion = array_of(sample.lesion)
    boxes = {}
    for label in np.unique(lesion[lesion > 0]):
        corners = np.argwhere(lesion == label)
        edges = zip(corners.min(axis=0).tolist(), (corners.max(axis=0) + 1).tolist(), strict=True)
        boxes[str(label)] = [list(pair) for pair in edges]
    about = {"about": json.dumps({"shape": lesion.shape, "lesion_boxes": boxes})}
    arrays = {"hu": array_of(sample.ct), "lungs": array_of(sample.lungs), "lesion": lesion}
    with whole_file(path) as draft:
        save_file(arrays, draft, metadata=about)
