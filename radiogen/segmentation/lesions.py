"""What is said of each lesion that was segmented: how sure it is, and where it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from radiogen.measures.lesions import LESION_COLUMNS, Lesion, lesion_rows
from radiogen.provenance import write_csv
from radiogen.segmentation.inference import Piece
from radiogen.segmentation.scanner_grid import PARTS, ScannerMap, crop_grid, interpolated
from radiogen.volume import Box

FINDING_COLUMNS = ("score", "entropy_bits", "disagreement", "candidate_score", "origin")


@dataclass(frozen=True)
class Laid:
    """What was laid onto the scanner's grid under one label: the piece, and where it came from."""

    piece: Piece
    origin: str  # `lungs`, `box 1`, `candidate 3`
    score: float | None = None  # of the candidate in the first pass


@dataclass(frozen=True)
class Finding:
    """How sure the networks are of one lesion of the mask, and where it came from."""

    label: int
    score: float  # mean probability over its voxels
    entropy_bits: float  # mean over its voxels of the entropy of the probability: 0 sure, 1 undecided
    disagreement: float | None  # mean standard deviation between members and mirror images; None for one look
    candidate_score: float | None  # best mean probability of its candidates in the first pass; auto only
    origin: str


def describe(lesion: sitk.Image, filled: ScannerMap, laid: Mapping[int, Laid]) -> list[Finding]:
    """Describe every label of the final mask.

    Args:
        lesion: The final mask, labels 1..n.
        filled: The map that the mask was cut from; its labels are the keys of `laid`.
        laid: What was laid under each label of the map.
    """
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(lesion)
    voxels = sitk.GetArrayViewFromImage(lesion)
    found = []
    for label in shapes.GetLabels():
        bounds = shapes.GetBoundingBox(label)
        box = Box(bounds[:3], bounds[3:])
        inside = voxels[box.array_slices()] == label
        under = filled.labels[box.array_slices()][inside]
        sources = {int(key): laid[int(key)] for key in np.unique(under)}
        probability = filled.parts[box.array_slices()][inside] / PARTS
        scores = [source.score for source in sources.values() if source.score is not None]
        found.append(
            Finding(
                label=int(label),
                score=float(probability.mean()),
                entropy_bits=float(_entropy(probability).mean()),
                disagreement=_disagreement(box, inside, under, filled, sources),
                candidate_score=max(scores, default=None),
                origin=" + ".join(source.origin for source in sources.values()),
            )
        )
    return found


def _entropy(probability: Any) -> Any:
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def _disagreement(
    box: Box, inside: Any, under: Any, filled: ScannerMap, sources: Mapping[int, Laid]
) -> float | None:
    total = 0.0
    for key, source in sources.items():
        if source.piece.spread is None:
            return None
        grid = crop_grid(filled.ct, box)
        spread = interpolated(source.piece.spread, source.piece.near, filled.sample, grid, outside=0.0)
        total += float(spread[inside][under == key].sum())
    return total / len(under)


def finding_rows(
    case_id: str, lesions: Sequence[Lesion], findings: Sequence[Finding]
) -> list[dict[str, Any]]:
    """The lesions of one case as rows of lesions.csv; probabilities and the like to 0.001."""
    facts = {finding.label: finding for finding in findings}
    rows = lesion_rows(case_id, lesions)
    for row in rows:
        finding = facts[row["lesion"]]
        for name in FINDING_COLUMNS:
            value = getattr(finding, name)
            row[name] = "" if value is None else round(value, 3) if isinstance(value, float) else value
    return rows


def write_lesions_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the lesions of one or many cases as one table; a case without any has no row."""
    write_csv(path, (*LESION_COLUMNS, *FINDING_COLUMNS), rows)
