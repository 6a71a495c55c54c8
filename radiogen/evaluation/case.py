"""Measure one scan: its masks as a whole, and every lesion with its partner and its floors.

Every Dice stands beside its floors, the Dice that a box alone gives without a network: a network that is
shown the box of a lesion has to beat them.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydantic import Field, field_validator

from radiogen.config import Settings
from radiogen.errors import CaseError, VolumeError
from radiogen.evaluation.sentences import plural
from radiogen.io.nifti import read_mask, read_volume
from radiogen.measures.detection import (
    LEAST_IOU,
    Detection,
    Match,
    NumberedLesions,
    count_matches,
    match_lesions,
    number_lesions,
    stray_parts,
)
from radiogen.measures.floors import (
    FLOORS,
    BoxFaces,
    exact_boxes,
    loosen_box,
    measure_floors,
    measure_lesion_floors,
)
from radiogen.measures.intervals import DRAWS
from radiogen.measures.lesions import longest_diameter_mm
from radiogen.measures.overlap import Overlap, box_round_both, overlap_of
from radiogen.volume import Box, array_of, crop, same_grid, voxel_ml

CT_FILE, LESION_TABLE = "ct.nii.gz", "lesions.csv"
# The sizes at which T1a, T1b, T1c and T2 of lung cancer end (TNM, 8th edition).
SIZE_BINS_MM = (10.0, 20.0, 30.0, 50.0)


class EvaluateOptions(Settings):
    """Rules of an evaluation; each is written into its run record and its summary."""

    tolerance_mm: float = Field(2.0, ge=0, allow_inf_nan=False)  # up to which surfaces agree
    least_iou: float = Field(LEAST_IOU, gt=0, le=1)  # of a lesion and its partner
    size_bins_mm: tuple[float, ...] = SIZE_BINS_MM  # upper ends of bins of the longest diameter
    loosen: float = Field(0.0, ge=0, le=2)  # share by which the floors' boxes are longer than the lesions
    split: str | None = None  # only the cases of this split
    seed: int = Field(0, ge=0)  # of the bootstrap
    bootstrap: int = Field(DRAWS, ge=100)  # draws of patients for the intervals

    @field_validator("size_bins_mm")
    @classmethod
    def _rising(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if not edges or edges[0] <= 0 or any(a >= b for a, b in pairwise(edges)):
            raise ValueError("give diameters in mm that rise, such as 10,20,30,50")
        return edges

    def size_bin(self, diameter_mm: float) -> str:
        """Return the bin of a diameter; a diameter at an edge belongs to the bin above it.

        >>> [EvaluateOptions().size_bin(mm) for mm in (9.9, 10, 50)]
        ['< 10 mm', '10-20 mm', '>= 50 mm']
        """
        return self.size_bin_names()[sum(diameter_mm >= edge for edge in self.size_bins_mm)]

    def size_bin_names(self) -> tuple[str, ...]:
        """Return the names of the bins, the smallest first."""
        edges = [f"{edge:g}" for edge in self.size_bins_mm]
        between = [f"{low}-{high} mm" for low, high in pairwise(edges)]
        return (f"< {edges[0]} mm", *between, f">= {edges[-1]} mm")


AGREEMENT_COLUMNS = ("dice", "surface_dice", "hd95_mm", "assd_mm")
VOLUME_COLUMNS = ("predicted_ml", "reference_ml", "volume_error_ml", "volume_error_share")
OVERLAP_COLUMNS = AGREEMENT_COLUMNS + VOLUME_COLUMNS
COUNT_COLUMNS = (
    "lesions",
    "lesions_found",
    "lesions_merged",
    "lesions_missed",
    "lesions_fragments",
    "lesions_false",
    "stray_parts",
)
DETECTION_COLUMNS = (*COUNT_COLUMNS, "sensitivity", "f1", "panoptic_quality")
COLUMNS = ("case_id", "patient_id", "prompt", *OVERLAP_COLUMNS, *DETECTION_COLUMNS, *FLOORS, "note")
MATCH_COLUMNS = ("outcome", "lesion", "predicted_lesion", "diameter_mm", "size_bin", "iou")
LESION_COLUMNS = ("case_id", "patient_id", "prompt", *MATCH_COLUMNS, *OVERLAP_COLUMNS, "score", *FLOORS)
NO_LESION = "no lesion in the reference: judged by its false lesions alone"

Row = dict[str, Any]
Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class MeasuredScan:
    """A scan that was compared: its row, a row a lesion, and the counts behind them."""

    row: Row  # by COLUMNS
    lesions: list[Row] = field(default_factory=list)  # by LESION_COLUMNS
    detection: Detection | None = None  # None where one side has no mask


@dataclass(frozen=True)
class _CroppedScan:
    """Both masks and the CT, cut to the box round the lesions and their boxes."""

    predicted: NumberedLesions
    reference: NumberedLesions
    boxes: list[BoxFaces]
    hu: npt.NDArray[Any] | None
    spacing_mm: tuple[float, float, float]
    voxel_ml: float


def measure_case(predicted: Path, reference: Path, options: EvaluateOptions) -> MeasuredScan:
    """Measure a predicted mask against its reference.

    A scan without a lesion in its reference has no Dice and no distance (Metrics Reloaded): any value would
    make the mean of a cohort depend on how many healthy scans it holds. It counts by its false lesions. A
    lesion without partner has Dice 0 and infinite distances.

    Args:
        predicted: Mask; a lesions.csv beside it makes every label a lesion, and its column score, where there
            is one, is taken over.
        reference: Mask on the same grid; a ct.nii.gz beside it gives the floors by threshold.
        options: The rules.

    Returns:
        Rows without case, patient and prompt.

    Raises:
        VolumeError: A file cannot be read, or the grids differ.
        CaseError: The table of lesions cannot be used.
    """
    # `radiogen segment` gives one label a lesion, in however many parts, and its table says so. Other tools
    # often give one label to all lesions, so there a lesion is a connected part.
    table = read_scores(predicted.with_name(LESION_TABLE))
    scan = _read_scan(predicted, reference, table is not None, options)
    matches = match_lesions(scan.predicted, scan.reference, options.least_iou)
    strays = stray_parts(scan.reference, scan.voxel_ml)
    # With their partners: a mask compared with itself has neither a false nor a missed lesion.
    matches = [match for match in matches if match.reference not in strays]
    detection = count_matches(matches)
    predicted_voxels, lesion_voxels = scan.predicted.numbers > 0, scan.reference.numbers > 0
    overlap = overlap_of(predicted_voxels, lesion_voxels, scan.spacing_mm, options.tolerance_mm)
    row: Row = {
        **_numbers(overlap),
        "lesions": detection.lesions,
        "lesions_found": detection.found,
        "lesions_merged": detection.merged,
        "lesions_missed": detection.missed,
        "lesions_fragments": detection.fragments,
        "lesions_false": detection.false,
        "stray_parts": len(strays),
        "sensitivity": detection.sensitivity,
        "f1": detection.f1,
        "panoptic_quality": detection.panoptic_quality,
        **measure_floors(scan.reference, scan.boxes, scan.hu),
        "note": _note(scan, detection, strays),
    }
    # Two empty masks would have Dice 1: the mean of a cohort would rise with every healthy scan.
    if not detection.lesions:
        row |= dict.fromkeys(AGREEMENT_COLUMNS)
    return MeasuredScan(_without_nan(row), _lesion_rows(scan, matches, table or {}, options), detection)


def read_scores(table: Path) -> dict[int, float | None] | None:
    """Read the score of each lesion label from a table of radiogen segment; None without such a table.

    Raises:
        CaseError: The table is damaged, or a score is not a number.
    """
    if not table.is_file():
        return None
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        scores = {int(row["lesion"]): float(row["score"]) if row.get("score") else None for row in rows}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise CaseError(table, "is not a table of lesions", "segment the case again, or remove it") from error
    if not all(score is None or isfinite(score) for score in scores.values()):
        raise CaseError(table, "holds a score that is not a number", "segment the case again")
    return scores


def _read_scan(predicted: Path, reference: Path, by_label: bool, options: EvaluateOptions) -> _CroppedScan:
    predicted_mask, reference_mask = read_mask(predicted), read_mask(reference)
    if not same_grid(predicted_mask, reference_mask):
        raise VolumeError(
            predicted,
            f"does not lie on the grid of {reference}",
            "resample it to that grid by nearest neighbour, or segment the CT of the reference",
        )
    # Loosened boxes of the floors reach past the lesions: the region has to hold them.
    lesions_box = box_round_both(predicted_mask, reference_mask) or Box((0, 0, 0), (1, 1, 1))
    box = widen(lesions_box, reference_mask, options.loosen / 2)
    lesions = number_lesions(array_of(crop(reference_mask, box)))
    return _CroppedScan(
        predicted=number_lesions(array_of(crop(predicted_mask, box)), by_label),
        reference=lesions,
        boxes=[loosen_box(faces, options.loosen) for faces in exact_boxes(lesions)],
        # The CT is read last and only for floors: it takes far longer than the masks.
        hu=_read_hu(reference, reference_mask, box) if len(lesions) else None,
        spacing_mm=reference_mask.GetSpacing(),
        voxel_ml=voxel_ml(reference_mask),
    )


def widen(box: Box, grid: sitk.Image, share: float) -> Box:
    """Add a share of its size to a box at either end of each axis, as far as the grid reaches."""
    grow = np.ceil(np.array(box.size) * share).astype(int)
    start = np.maximum(np.array(box.start) - grow, 0)
    size = np.minimum(np.array(box.end) + grow, grid.GetSize()) - start
    x, y, z = start.tolist()
    width, height, depth = size.tolist()
    return Box((x, y, z), (width, height, depth))


def _read_hu(reference: Path, mask: sitk.Image, box: Box) -> npt.NDArray[Any] | None:
    """Read the CT beside a reference mask within a box; None where there is no CT."""
    path = reference.with_name(CT_FILE)
    if not path.is_file():
        return None
    ct = read_volume(path)
    if not same_grid(ct, mask):
        raise VolumeError(path, f"does not lie on the grid of {reference.name}", "ingest the case again")
    return array_of(crop(ct, box))


def _lesion_rows(
    scan: _CroppedScan, matches: list[Match], scores: Mapping[int, float | None], options: EvaluateOptions
) -> list[Row]:
    """Return a row for each match: the lesion of either mask, or both, measured within the box round them."""
    rows = []
    floors_of_lesions = measure_lesion_floors(scan.reference, scan.boxes, scan.hu)
    reference_boxes, predicted_boxes = scan.reference.boxes(), scan.predicted.boxes()
    for match in matches:
        boxes = [reference_boxes[match.reference - 1]] if match.reference else []
        boxes += [predicted_boxes[match.predicted - 1]] if match.predicted else []
        region = _union(boxes)
        # -1 is the number of no lesion: the side without one is empty.
        true = scan.reference.numbers[region] == (match.reference or -1)
        predicted = scan.predicted.numbers[region] == (match.predicted or -1)
        diameter_mm = _diameter_mm(true if match.reference else predicted, scan.spacing_mm)
        row: Row = dict.fromkeys(LESION_COLUMNS)
        row |= {
            "outcome": match.outcome,
            "lesion": scan.reference.name(match.reference) if match.reference else None,
            "predicted_lesion": scan.predicted.name(match.predicted) if match.predicted else None,
            "diameter_mm": diameter_mm,
            "size_bin": options.size_bin(diameter_mm),
        }
        overlap = _numbers(overlap_of(predicted, true, scan.spacing_mm, options.tolerance_mm))
        # A false lesion has no partner to agree with; only its volume is a figure.
        if match.reference:
            row |= {"iou": match.iou, **overlap, **floors_of_lesions[match.reference - 1]}
        else:
            row["predicted_ml"] = overlap["predicted_ml"]
        if match.predicted:
            row["score"] = scores.get(scan.predicted.labels[match.predicted - 1])
        rows.append(_without_nan(row))
    return rows


def _numbers(overlap: Overlap) -> Row:
    return {name: getattr(overlap, name) for name in OVERLAP_COLUMNS}


def _note(scan: _CroppedScan, detection: Detection, strays: set[int]) -> str | None:
    if strays:
        ml = np.isin(scan.reference.numbers, list(strays)).sum() * scan.voxel_ml
        return f"{plural(len(strays), 'stray part')} of the reference ({ml:.4f} ml) not counted as lesions"
    return None if detection.lesions else NO_LESION


def _without_nan(row: Row) -> Row:
    """Return a row whose unknown numbers are None, not NaN.

    Nothing is rounded: what is printed with three digits would else be rounded twice, 0.63855 to 0.638.
    """
    return {
        name: (None if isnan(value) else float(value)) if isinstance(value, float) else value
        for name, value in row.items()
    }


def _diameter_mm(lesion: npt.NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    mask = sitk.GetImageFromArray(lesion.astype(np.uint8))
    mask.SetSpacing(spacing_mm)
    return longest_diameter_mm(mask)


def _union(boxes: list[Slices]) -> Slices:
    z, y, x = (
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )
    return z, y, x
