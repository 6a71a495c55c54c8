"""Cases on the network's grid, cached beside a training.

Beside the whole case lie close-ups: the surroundings of each lesion whose box wants finer voxels than the
network's, as `radiogen segment` reads them from the scanner's grid. Of a crop, a small piece of CT round a
lesion, every lesion has one.

The cache is one safetensors file a case: slices of it are read without the rest, and nothing in it can be
executed (MONAI's PersistentDataset unpickles what it finds, and drops the affine).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from radiogen.model.network_input import Preprocessing, resample_ct, to_network_grid
from radiogen.provenance import file_sha256, short_hash, whole_file
from radiogen.runtime import Progress, no_progress
from radiogen.segmentation.sliding import zoom_for
from radiogen.training.augmentation import Shape
from radiogen.training.positions import Counts, count_blocks
from radiogen.volume import array_of, bounding_box, crop, grid_over, resample_to, widened

ArrayBox = tuple[slice, slice, slice]
Arrays = Mapping[str, npt.NDArray[Any]]
Labels = npt.NDArray[np.int16]
CACHE_VERSION = 3
CLOSE_UP = 1.6  # size of a close-up in windows, so that a window may be rotated, scaled and moved in it


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
    spacing_mm: tuple[float, float, float]  # (x, y, z) of the network's grid, or of the close-up
    is_crop: bool = False
    prefix: str = ""  # of the names of its arrays
    zoom: float = 1.0  # size of its voxels relative to the network's
    close_ups: Mapping[int, "PreparedCase"] = field(default_factory=dict)  # by lesion; without blocks

    @property
    def is_part(self) -> bool:
        """Whether it is a crop or a close-up, beyond which its edge is repeated, rather than a whole scan."""
        return self.is_crop or bool(self.prefix)

    def read(self, name: str, box: ArrayBox) -> npt.NDArray[np.int16]:
        """Read a box of one of the arrays, as int16."""
        with safe_open(self.path, framework="np") as file:
            part: npt.NDArray[np.int16] = file.get_slice(self.prefix + name)[box].astype(np.int16)
        return part

    def blocks(self, name: str) -> Counts:
        """Read one of the arrays of cubes, whole."""
        with safe_open(self.path, framework="np") as file:
            counts: Counts = file.get_tensor(name)
        return counts


def learnable(
    cases: Sequence[Case], need_outline: bool = True, lungs_only_cohorts: Sequence[str] = ()
) -> tuple[list[Case], list[str]]:
    """Return the cases a network may learn from, and a sentence for each kind that is left out.

    Cases without an outline stay where none is needed: synthetic lesions need lungs only, and so do the
    cohorts whose true lesions are never shown.

    Raises:
        CaseError: None is left.
    """
    of_test, without_outline, without_lungs, left = [], [], [], []
    for case in cases:
        if case.split == "test":
            of_test.append(case.case_id)
        elif need_outline and not case.has_lesion and case.cohort not in lungs_only_cohorts:
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
    whole = _described(about, case, path)
    ups = {int(label): _described(part, case, path) for label, part in about["close_ups"].items()}
    return replace(whole, close_ups=ups)


def _described(about: dict[str, Any], case: Case, path: Path) -> PreparedCase:
    """Return a case, or one of its close-ups, as the header of its file describes it."""
    d, h, w = about["shape"]
    x, y, z = about["spacing"]
    boxes = {}
    for label, edges in about["lesion_boxes"].items():
        in_z, in_y, in_x = (slice(start, stop) for start, stop in edges)
        boxes[int(label)] = (in_z, in_y, in_x)
    return PreparedCase(
        case.case_id,
        case.patient_id,
        path,
        (d, h, w),
        boxes,
        case.cohort,
        (x, y, z),
        case.is_crop,
        about.get("prefix", ""),
        about.get("zoom", 1.0),
    )


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
    ct, all_lungs = case.ct(), case.lungs()
    outline = case.lesion() if case.has_lesion else None
    sample = to_network_grid(ct, all_lungs, outline, settings)
    shape = sample.ct.GetSize()[::-1]
    near = np.zeros(shape, bool)
    if outline is not None:
        near = near_lesion(outline, sample.ct)
    lungs = array_of(sample.lungs)
    arrays = {
        "hu": array_of(sample.ct),
        "lungs": lungs,
        "lesion": np.zeros(shape, np.uint8) if sample.lesion is None else array_of(sample.lesion),
        "lung_blocks": count_blocks(lungs > 0),
        "near_lesion_blocks": count_blocks(near),
    }
    if case.is_crop:
        _repeat_within(arrays["hu"], sample.ct, crop(ct, sample.roi))
    about = {
        **_describe(sample.ct, arrays["lesion"]),
        "version": CACHE_VERSION,
        "close_ups": {},
    }
    if outline is not None and settings.layout == "patches":
        for label, part in _draw_close_ups(ct, outline, all_lungs, settings, case.is_crop).items():
            about["close_ups"][label] = part.about
            arrays |= part.arrays
    text = json.dumps(about)
    with whole_file(path) as draft:
        save_file(arrays, draft, metadata={"about": text, "checksum": checksum(text, arrays)})
    plain: dict[str, Any] = json.loads(text)
    return plain


def _repeat_within(hu: npt.NDArray[Any], grid: sitk.Image, volume: sitk.Image) -> None:
    """Replace last voxels that jut out of a crop, and so are air, by those before them, in place."""
    extent = np.array(volume.GetSize()) * volume.GetSpacing() / grid.GetSpacing()  # in voxels of the grid
    for axis, length in enumerate(extent[::-1]):
        last = hu.shape[axis] - 1
        if last and last + 0.5 > length:
            np.moveaxis(hu, axis, 0)[last] = np.moveaxis(hu, axis, 0)[last - 1]


def _describe(grid: sitk.Image, lesion: npt.NDArray[Any]) -> dict[str, Any]:
    found = {label: edges for label, edges in enumerate(find_objects(lesion), start=1) if edges}
    boxes = {label: [[s.start, s.stop] for s in edges] for label, edges in found.items()}
    return {
        "shape": lesion.shape,
        "origin": grid.GetOrigin(),
        "spacing": grid.GetSpacing(),
        "direction": grid.GetDirection(),
        "lesion_boxes": boxes,
    }


@dataclass(frozen=True)
class _CloseUp:
    about: dict[str, Any]
    arrays: Arrays


def _draw_close_ups(
    ct: sitk.Image, outline: sitk.Image, lungs: sitk.Image, settings: Preprocessing, is_crop: bool
) -> dict[int, _CloseUp]:
    """Cut out the surroundings of each lesion in voxels that suit its box; in a crop of every lesion."""
    close_ups = {}
    for label in range(1, int(array_of(outline).max()) + 1):
        box = bounding_box(outline == label)
        if box is None:
            continue
        spacing = np.array(settings.spacing_mm)
        voxels = np.array(box.size) * outline.GetSpacing() / spacing  # of the network's grid
        edges = [slice(0, max(1, round(n))) for n in voxels[::-1]]
        zoom = zoom_for((edges[0], edges[1], edges[2]), settings.size, settings.box_fills)
        if zoom >= 1 and not is_crop:
            continue
        wanted_mm = CLOSE_UP * zoom * np.array(settings.size[::-1]) * spacing
        margin_mm = max(0.0, float(np.max(wanted_mm - np.array(box.size) * outline.GetSpacing())) / 2)
        near = crop(ct, widened(box, ct, margin_mm))
        # No voxel juts out of the scan: at the cut face of a crop it would be air.
        size = np.floor(np.array(near.GetSize()) * near.GetSpacing() / (spacing * zoom) + 1e-6)
        grid = grid_over(near, np.maximum(size, 1).astype(int).tolist(), (spacing * zoom).tolist())
        prefix = f"close_up{label}_"
        lesion = array_of(resample_to(outline, grid, outside=0, nearest=True)).copy()
        # Between thick slices the outline runs smoothly, as the CT does.
        own = array_of(resample_to(sitk.Cast(outline == label, sitk.sitkFloat32), grid, outside=0)) >= 0.5
        lesion[lesion == label] = 0
        lesion[own] = label
        arrays = {
            prefix + "hu": array_of(resample_ct(near, grid)),
            prefix + "lesion": lesion,
            prefix + "lungs": array_of(resample_to(lungs, grid, outside=0, nearest=True)),
        }
        about = _describe(grid, lesion)
        if label in about["lesion_boxes"]:
            close_ups[label] = _CloseUp({**about, "prefix": prefix, "zoom": zoom}, arrays)
    return close_ups


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


def read_close_up(case: PreparedCase, name: str, first: Sequence[int], shape: Shape) -> Labels:
    """Read a part of an array of a close-up from the voxel `first` on; beyond it the edge is repeated."""
    indices = [
        np.clip(np.arange(f, f + s), 0, n - 1) for f, s, n in zip(first, shape, case.shape, strict=True)
    ]
    z, y, x = (slice(int(index[0]), int(index[-1]) + 1) for index in indices)
    part = case.read(name, (z, y, x))
    return part[np.ix_(*(index - index[0] for index in indices))]


def known_voxels(case: PreparedCase, first: Sequence[int], shape: Shape) -> Labels:
    """Return 1 for the voxels of a part that lie in a crop or close-up, 0 for those beyond; 1 in a scan."""
    if not case.is_part:
        return np.ones(shape, np.int16)
    known = np.zeros(shape, np.int16)
    z, y, x = (
        slice(max(0, -f), max(0, min(s, n - f))) for f, s, n in zip(first, shape, case.shape, strict=True)
    )
    known[z, y, x] = 1
    return known
