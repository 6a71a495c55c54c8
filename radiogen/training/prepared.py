"""Cases on the network's grid, kept on disk beside a training so that patches are cut without waiting."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.ndimage import find_objects, maximum_filter

from radiogen.errors import CaseError
from radiogen.io.cases import Case
from radiogen.model.network_input import Preprocessing, to_network_grid
from radiogen.provenance import file_sha256, short_hash, whole_file
from radiogen.runtime import Progress, no_progress
from radiogen.training.places import Counts, count_blocks
from radiogen.volume import array_of

ArrayBox = tuple[slice, slice, slice]
Arrays = Mapping[str, npt.NDArray[Any]]
CACHE_VERSION = 2


@dataclass(frozen=True)
class PreparedCase:
    """One case as arrays (D, H, W) in a file: `hu` int16, `lungs` and `lesion` uint8.

    Beside them, in cubes of `places.BLOCK` voxels, how many voxels are lung (`lung_blocks`) and how many
    owe anything of their HU to a true lesion (`near_lesion_blocks`).
    """

    case_id: str
    patient_id: str
    path: Path
    shape: tuple[int, int, int]
    lesion_boxes: dict[int, ArrayBox]
    cohort: str
    spacing_mm: tuple[float, float, float]  # (x, y, z) of the network's grid

    def read(self, name: str, box: ArrayBox) -> npt.NDArray[np.int16]:
        """A piece of one of the arrays, as int16."""
        with safe_open(self.path, framework="np") as file:
            piece: npt.NDArray[np.int16] = file.get_slice(name)[box].astype(np.int16)
        return piece

    def blocks(self, name: str) -> Counts:
        """One of the arrays of cubes, whole."""
        with safe_open(self.path, framework="np") as file:
            counts: Counts = file.get_tensor(name)
        return counts


def learnable(cases: Sequence[Case], need_outline: bool = True) -> tuple[list[Case], list[str]]:
    """The cases a network may learn from, and a sentence for each kind that is left out.

    Args:
        cases: Cases of a manifest.
        need_outline: Leave out what has no outline; made lesions (`synthetic_lesions`) need lungs alone.

    Raises:
        CaseError: None is left.
    """
    reasons: dict[str, Callable[[Case], bool]] = {
        "of the split `test`": lambda case: case.split == "test",
        "without an outline": lambda case: need_outline and not case.has_lesion,
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
    progress: Progress = no_progress,
) -> list[PreparedCase]:
    """Bring cases to the network's grid, or take them from the cache if nothing has changed.

    What lies in the cache is checked once, here, against its checksum; what is damaged or of another
    version is made anew.

    Args:
        cases: Cases with lungs; without an outline they have no lesion.
        settings: The network's preprocessing.
        cache: Folder for the arrays.
        progress: Told of each case that is ready.

    Raises:
        CaseError: A case lacks its CT or lungs.
    """
    prepared = []
    for number, case in enumerate(cases, start=1):
        prepared.append(_prepare_one(case, settings, cache))
        progress("prepare", number, len(cases))
    return prepared


def _prepare_one(case: Case, settings: Preprocessing, cache: Path) -> PreparedCase:
    for missing in (path for path in (case.ct_path, case.lungs_path) if not path.is_file()):
        raise CaseError(missing, "is missing", "ingest the case again")
    files = [case.ct_path, case.lungs_path, *([case.lesion_path] if case.has_lesion else [])]
    key = short_hash(settings.model_dump_json() + "".join(file_sha256(path) for path in files))
    path = cache / f"{case.case_id}-{key}.safetensors"
    about = read_about(path)
    if about is None:
        about = _write(case, settings, path)
    d, h, w = about["shape"]
    x, y, z = about["spacing"]
    boxes = {int(label): _box(edges) for label, edges in about["lesion_boxes"].items()}
    return PreparedCase(case.case_id, case.patient_id, path, (d, h, w), boxes, case.cohort, (x, y, z))


def _box(edges: list[list[int]]) -> ArrayBox:
    z, y, x = (slice(start, stop) for start, stop in edges)
    return z, y, x


def read_about(path: Path) -> dict[str, Any] | None:
    """The header of a prepared case; None where it is missing, damaged or of another version."""
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            about: dict[str, Any] = json.loads(header["about"])
            if about["version"] != CACHE_VERSION:
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return about if header.get("checksum") == checksum(header["about"], arrays) else None


def checksum(about: str, arrays: Arrays) -> str:
    """SHA-256 of a header and of arrays with their names, kinds and shapes."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _write(case: Case, settings: Preprocessing, path: Path) -> dict[str, Any]:
    outline = case.lesion() if case.has_lesion else None
    sample = to_network_grid(case.ct(), case.lungs(), outline, settings)
    shape = sample.ct.GetSize()[::-1]
    lesion, near = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    if outline is not None and sample.lesion is not None:
        lesion, near = array_of(sample.lesion), near_lesion(outline, sample.ct)
    lungs = array_of(sample.lungs)
    found = {label: edges for label, edges in enumerate(find_objects(lesion), start=1) if edges}
    about = {
        "version": CACHE_VERSION,
        "shape": shape,
        "origin": sample.ct.GetOrigin(),
        "spacing": sample.ct.GetSpacing(),
        "direction": sample.ct.GetDirection(),
        "lesion_boxes": {label: [[s.start, s.stop] for s in edges] for label, edges in found.items()},
    }
    arrays = {
        "hu": array_of(sample.ct),
        "lungs": lungs,
        "lesion": lesion,
        "lung_blocks": count_blocks(lungs > 0),
        "near_lesion_blocks": count_blocks(near),
    }
    text = json.dumps(about)
    with whole_file(path) as draft:
        save_file(arrays, draft, metadata={"about": text, "checksum": checksum(text, arrays)})
    plain: dict[str, Any] = json.loads(text)
    return plain


def near_lesion(outline: sitk.Image, grid: sitk.Image) -> npt.NDArray[np.bool_]:
    """Every voxel of a grid whose HU, once resampled, owes anything to a voxel of an outline.

    Linear interpolation reaches one voxel of the wider of the two grids; one voxel more covers what is
    smoothed away before, and rounding.
    """
    near = np.zeros(grid.GetSize()[::-1], np.uint8)
    there = np.argwhere(array_of(outline) > 0)[:, ::-1]
    old, new = (
        np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        for image in (outline, grid)
    )
    shift_mm = np.array(outline.GetOrigin()) - np.array(grid.GetOrigin())
    voxels = np.rint((there @ old.T + shift_mm) @ np.linalg.inv(new).T).astype(int)
    x, y, z = np.clip(voxels, 0, np.array(grid.GetSize()) - 1).T
    near[z, y, x] = 1
    ratio = np.array(outline.GetSpacing()) / np.array(grid.GetSpacing())
    reach = np.ceil(np.maximum(ratio, 1.0)).astype(int) + 1
    return np.asarray(maximum_filter(near, size=(2 * reach + 1)[::-1].tolist()) > 0)
