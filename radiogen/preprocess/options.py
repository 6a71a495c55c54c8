"""The options of ingest."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from radiogen.config import Settings


class IngestOptions(Settings):
    """How a source becomes cases.

    Attributes:
        outline: A file (RTSTRUCT, SEG, LIDC XML, mask volume) or folder of outlines; else those found in
            the source are taken.
        clinical: Table of patients, joined by PatientID (or by the name of the volume file) before hashing.
        clinical_mapping: YAML that says how the table names its columns.
        cohort: Name of a cohort card: its rule for outlines, its pseudonyms kept as ids.
        id_from: `hash` (of PatientID and series) or `patient-id`.
        roi: Pattern of the RTSTRUCT's ROI that is the tumour.
        segment: Name, number or `largest` of the SEG's segment; a number is also a label of a mask file.
        agreement: Share of the LIDC readers who must have drawn a voxel.
        series: SeriesInstanceUID to take; else the one that the outline refers to, or the largest.
        lungs: `threshold`, or `lungmask` (an extra).
        existing: What happens to cases that are done.
        jobs: Cases prepared at the same time.
    """

    outline: Path | None = None
    clinical: Path | None = None
    clinical_mapping: Path | None = None
    cohort: str | None = None
    id_from: Literal["hash", "patient-id"] = "hash"
    roi: str | None = None
    segment: str | None = None
    agreement: float = Field(default=0.5, gt=0, le=1)
    series: str | None = None
    lungs: Literal["threshold", "lungmask"] = "threshold"
    existing: Literal["skip", "overwrite", "fail"] = "skip"
    jobs: int = Field(default=1, ge=1)
