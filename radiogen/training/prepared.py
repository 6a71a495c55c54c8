"""Cases on the network's grid, cached beside a training, and where in them a patch may lie.

The cache is one safetensors file a case: slices of it are read without the rest, and nothing in it can be
executed (MONAI's PersistentDataset unpickles what it finds, and drops the affine).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
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
from radiogen.training.augmentation import Rng, Shape, SourceRegion
from radiogen.volume import array_of

ArrayBox = tuple[slice, slice, slice]
Arrays = Mapping[str, npt.NDArray[Any]]
Labels = npt.NDArray[np.int16]
Counts = npt.NDArray[np.uint8]
CACHE_VERSION = 2
BLOCK = 4  # voxels of the cubes in which lungs and lesions are counted, so that positions are found by sums


@dataclass(frozen=True)
class PreparedCase:
    """One case as arrays (D, H, W) in a file: `hu` int16, `lungs` and `lesion` uint8.

    Beside them, in cubes of `BLOCK` voxels, the number of lung voxels (`lung_blocks`) and of voxels whose HU
    depends on a true lesion (`near_lesion_blocks`).
    """

    case_id: str
    patient_id: str
    path: Path
    shape: tuple[int, int, int]
    lesion_boxes: dict[int, ArrayBox]
    cohort: str
    spacing_mm: tuple[float, float, float]  # (x, y, z) of the network's grid

    def read(self, name: str, box: ArrayBox) -> npt.NDArray[np.int16]:
        """Read a box of one of the arrays, as int16."""
        with safe_open(self.path, framework="np") as file:
            part: npt.NDArray[np.int16] = file.get_slice(name)[box].astype(np.int16)
        return part

    def blocks(self, name: str) -> Counts:
        """Read one of the arrays of cubes, whole."""
        with safe_open(self.path, framework="np") as file:
            counts: Counts = file.get_tensor(name)
        return counts


def learnable(cases: Sequence[Case], need_outline: bool = True) -> tuple[list[Case], list[str]]:
    """Return the cases a network may learn from, and a sentence for each kind that is left out.

    Cases without an outline stay where none is needed: synthetic lesions need lungs only.

    Raises:
        CaseError: None is left.
    """
    of_test, without_outline, without_lungs, left = [], [], [], []
    for case in cases:
        if case.split == "test":
            of_test.append(case.case_id)
        elif need_outline and not case.has_lesion:
            without_outline.append(case.case_id)
        elif not case.lungs_path.is_file():
            without_lungs.append(case.case_id)
        else:
            left.append(case)
    out = {
        "of the split `test`": of_test,
        "without an outline": without_outline,
        "without a lung mask": without_lungs,
    }
    messages = [f"{len(ids)} cases {why} left out: {', '.join(ids)}" for why, ids in out.items() if ids]
    if not left:
        wrong = "hold none to learn from; " + "; ".join(messages)
        raise CaseError("the cases", wrong, "ingest with outlines, or change the split")
    return left, messages


def prepare(
    cases: Sequence[Case],
    settings: Preprocessing,
    cache: Path,
    progress: Progress = no_progress,
) -> list[PreparedCase]:
    """Resample cases to the network's grid, or take them from the cache if nothing has changed.

    A file of the cache is checked once, here and not at every patch, against its checksum (30 ms a case of
    3 million voxels); what is damaged or of another version is written again.

    Raises:
        CaseError: A case lacks its CT or lungs.
    """
    prepared = []
    for number, case in enumerate(cases, start=1):
        prepared.append(_prepare_one(case, settings, cache))
        progress("prepare", number, len(cases))
    return prepared


def _prepare_one(case: Case, settings: Preprocessing, cache: Path) -> PreparedCase:
    for path in (case.ct_path, case.lungs_path):
        if not path.is_file():
            raise CaseError(path, "is missing", "ingest the case again")
    # The name of the cached file holds what it was made from, so that another input never finds it.
    files = [case.ct_path, case.lungs_path, *([case.lesion_path] if case.has_lesion else [])]
    key = short_hash(settings.model_dump_json() + "".join(file_sha256(path) for path in files))
    path = cache / f"{case.case_id}-{key}.safetensors"
    about = read_about(path)
    if about is None:
        about = _write(case, settings, path)
    d, h, w = about["shape"]
    x, y, z = about["spacing"]
    boxes = {}
    for label, edges in about["lesion_boxes"].items():
        in_z, in_y, in_x = (slice(start, stop) for start, stop in edges)
        boxes[int(label)] = (in_z, in_y, in_x)
    return PreparedCase(case.case_id, case.patient_id, path, (d, h, w), boxes, case.cohort, (x, y, z))


def read_about(path: Path) -> dict[str, Any] | None:
    """Read the header of a prepared case; None where it is missing, damaged or of another version."""
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
    """Return the SHA-256 of a header and of arrays with their names, kinds and shapes."""
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
    lesion = np.zeros(shape, np.uint8)
    near = np.zeros(shape, bool)
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
    """Return the voxels of a grid whose HU, once resampled, depends on a voxel of an outline.

    A lungs-only cohort must not show these: the outline's own voxels are too few, since their neighbours
    were interpolated from them. Linear interpolation reaches one voxel of the wider of the two grids; one
    voxel more covers what is smoothed away before, and rounding.
    """
    near = np.zeros(grid.GetSize()[::-1], np.uint8)
    inside = np.argwhere(array_of(outline) > 0)[:, ::-1]
    old, new = (
        np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        for image in (outline, grid)
    )
    shift_mm = np.array(outline.GetOrigin()) - np.array(grid.GetOrigin())
    voxels = np.rint((inside @ old.T + shift_mm) @ np.linalg.inv(new).T).astype(int)
    x, y, z = np.clip(voxels, 0, np.array(grid.GetSize()) - 1).T
    near[z, y, x] = 1
    ratio = np.array(outline.GetSpacing()) / np.array(grid.GetSpacing())
    reach = np.ceil(np.maximum(ratio, 1.0)).astype(int) + 1
    return np.asarray(maximum_filter(near, size=(2 * reach + 1)[::-1].tolist()) > 0)


def read_padded(
    case: PreparedCase, name: str, first: Sequence[int], shape: Shape, size: Shape, outside: int
) -> Labels:
    """Read a part of an array of a case from the voxel `first` on, also beyond the case.

    What a warp needs beyond the case is mirrored, since air there would be an edge that no scanner makes;
    on an axis on which the case is no longer than a patch it is `outside`, as the network sees it in use.
    """
    is_short = [n <= s for n, s in zip(case.shape, size, strict=True)]
    # The last voxel of a case may jut out of the scan and be air: it is not mirrored.
    ends = [
        n - 1 if f + s > n and not short else n
        for f, s, n, short in zip(first, shape, case.shape, is_short, strict=True)
    ]
    inside = [slice(max(0, f), min(n, f + s)) for f, n, s in zip(first, ends, shape, strict=True)]
    part = case.read(name, (inside[0], inside[1], inside[2]))
    pad = [(i.start - f, f + s - i.stop) for i, f, s in zip(inside, first, shape, strict=True)]
    if not any(before or behind for before, behind in pad):
        return part
    mirrored = [(0, 0) if short else both for both, short in zip(pad, is_short, strict=True)]
    filled = [both if short else (0, 0) for both, short in zip(pad, is_short, strict=True)]
    return np.pad(np.pad(part, mirrored, mode="reflect"), filled, constant_values=outside)


def count_blocks(mask: npt.NDArray[np.bool_]) -> Counts:
    """Count the voxels of a mask in each cube of `BLOCK` voxels, 0 to 64; the last cubes may jut out."""
    padded = np.pad(mask, [(0, -n % BLOCK) for n in mask.shape])
    d, h, w = (n // BLOCK for n in padded.shape)
    cubes = padded.reshape(d, BLOCK, h, BLOCK, w, BLOCK)
    return np.asarray(cubes.sum(axis=(1, 3, 5), dtype=np.uint8))


def lung_positions(
    lungs: Counts,
    forbidden: Counts | None,
    case: Shape,
    patch: Shape,
    region: SourceRegion,
    share: float,
) -> npt.NDArray[np.int64]:
    """Find the first voxels (n, 3) of all patches of a case that hold lung, a cube of `BLOCK` voxels apart.

    A first voxel may be moved on by up to `BLOCK - 1` voxels without reading anything forbidden.

    Args:
        lungs: Cubes of the case's lungs.
        forbidden: Cubes of what no patch may read; None if all may be read.
        case: Shape of the case.
        patch: Shape of the patch.
        region: The voxels that it is sampled from.
        share: Least share of lung. Where nothing is forbidden and no patch reaches it, those with most.
    """
    firsts = [patch_starts(n, size) for n, size in zip(case, patch, strict=True)]
    inside = [(first, first + size) for first, size in zip(firsts, patch, strict=True)]
    held = window_sums(lungs, inside)
    enough = held >= share * np.prod(patch)
    if forbidden is None:
        enough = enough if enough.any() else held == held.max()
    else:
        read = [
            (first + low, first + high + BLOCK - 1)
            for first, low, high in zip(firsts, region.low, region.high, strict=True)
        ]
        enough &= (held > 0) & (window_sums(forbidden, read) == 0)
    chosen = np.argwhere(enough)
    return np.stack([first[chosen[:, axis]] for axis, first in enumerate(firsts)], axis=1)


def patch_starts(length: int, size: int) -> npt.NDArray[np.int64]:
    """Return where a patch may begin on an axis: in steps of `BLOCK`; centred where the case is shorter."""
    if length <= size:
        return np.array([(length - size) // 2])
    return np.arange(0, length - size + 1, BLOCK)


def shift_start(start: npt.NDArray[np.int64], case: Shape, patch: Shape, rng: Rng) -> Shape:
    """Move a first voxel on by up to `BLOCK - 1` voxels, still inside the case."""
    moved = [
        min(int(first) + int(step), length - size) if length > size else int(first)
        for first, step, length, size in zip(start, rng.integers(0, BLOCK, 3), case, patch, strict=True)
    ]
    d, h, w = moved
    return d, h, w


def window_sums(
    counts: Counts, windows: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
) -> npt.NDArray[np.int64]:
    """Return sums of cubes over windows, given on each axis by first voxels and the first ones behind.

    A cube counts in full as soon as a window touches it.
    """
    # Cumulative sums axis by axis: a window costs two look-ups an axis instead of its voxels.
    sums = counts.astype(np.int64)
    for axis, (start, stop) in enumerate(windows):
        total = np.cumsum(sums, axis=axis)
        total = np.concatenate([np.zeros_like(np.take(total, [0], axis)), total], axis=axis)
        most = counts.shape[axis]
        first = np.clip(start // BLOCK, 0, most)
        behind = np.clip(-(-stop // BLOCK), 0, most)
        sums = np.take(total, behind, axis) - np.take(total, first, axis)
    return sums
