"""The options of ingest."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from radiogen.config import Settings
from radiogen.ingestion.series_choice import SeriesFilter, SeriesRule
from radiogen.io.dicom.series import Rule, SeriesRules


class IngestOptions(Settings):
    """How a source becomes cases.

    Attributes:
        outline: A file (RTSTRUCT, SEG, LIDC XML, mask volume) or folder of outlines; else those found in
            the source are taken.
        clinical: Table of patients, joined by PatientID (or by the name of the volume file) before hashing.
        clinical_mapping: YAML that maps the columns of the table.
        cohort: Name of a cohort, or the YAML card of one's own: its rule for outlines, its pseudonyms kept as
            ids, its clinical columns.
        id_from: `hash` (of PatientID and series) or `patient-id`.
        patient_pattern: Pattern of the names of volume files, whose first group is the patient; else each
            file is a patient of its own.
        roi: Pattern of the RTSTRUCT's ROI that is the tumour.
        segment: Name, number or `largest` of the SEG's segment; a number is also a label of a mask file.
        agreement: Share of the LIDC readers who must have drawn a voxel.
        series: SeriesInstanceUID to take, `#2` behind it for its second volume; else the one that the
            outline refers to, or the one with most slices.
        series_rule: `most-slices`, `thinnest` or `thickest` decides instead of the outline.
        kernel: Pattern found in the convolution kernel of the series to take.
        contrast: `yes` or `no`: only series with or without contrast medium.
        gaps: `refuse` slices that are missing or lie unevenly, or `resample` them where one is missing.
        tilt: `refuse` a tilted gantry, or `resample` it to an upright volume.
        keep_dates: Keep the date of the scan in `case.json`; else only its year.
        lungs: `threshold`, `lungmask` (an extra), or `whole`: all of the volume, as of a small crop round a
            lesion without this option.
        existing: What happens to cases that are done.
        jobs: Cases prepared at the same time.
    """

    outline: Path | None = None
    clinical: Path | None = None
    clinical_mapping: Path | None = None
    cohort: str | None = None
    id_from: Literal["hash", "patient-id"] = "hash"
    patient_pattern: str | None = None
    roi: str | None = None
    segment: str | None = None
    agreement: float = Field(default=0.5, gt=0, le=1)
    series: str | None = None
    series_rule: SeriesRule | None = None
    kernel: str | None = None
    contrast: Literal["yes", "no"] | None = None
    gaps: Rule = "refuse"
    tilt: Rule = "refuse"
    keep_dates: bool = False
    lungs: Literal["threshold", "lungmask", "whole"] = "threshold"
    existing: Literal["skip", "overwrite", "fail"] = "skip"
    jobs: int = Field(default=1, ge=1)

    @property
    def series_filter(self) -> SeriesFilter:
        """Which series of a patient is wanted."""
        contrast = None if self.contrast is None else self.contrast == "yes"
        return SeriesFilter(self.series, self.series_rule, self.kernel, contrast)

    @property
    def rules(self) -> SeriesRules:
        """What happens to a series that is no even, upright grid."""
        return SeriesRules(self.gaps, self.tilt)
