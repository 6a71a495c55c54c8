"""Read from a CT header how the scan was acquired, without anything that identifies the patient."""

import math
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from pydicom import Dataset

TEXTS = {
    "vendor": "Manufacturer",
    "model": "ManufacturerModelName",
    "kernel": "ConvolutionKernel",
    "body_part": "BodyPartExamined",
    "patient_position": "PatientPosition",
    "image_type": "ImageType",
}
NUMBERS = {
    "slice_thickness_mm": ("SliceThickness", 1.0),
    "spacing_between_slices_mm": ("SpacingBetweenSlices", 1.0),
    "reconstruction_diameter_mm": ("ReconstructionDiameter", 1.0),
    "gantry_tilt_degrees": ("GantryDetectorTilt", 1.0),
    "kvp": ("KVP", 1.0),
    "tube_current_ma": ("XRayTubeCurrent", 1.0),
    "exposure_time_ms": ("ExposureTime", 1.0),
    "pixel_padding": ("PixelPaddingValue", 1.0),
}
# The same quantity under several keys and units; the first that is there counts.
EXPOSURES = (("Exposure", 1.0), ("ExposureInmAs", 1.0), ("ExposureInuAs", 0.001))
PHASES = ("NominalPercentageOfRespiratoryPhase", "NominalPercentageOfCardiacPhase")
CONTRAST = ("ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusVolume", "ContrastBolusRoute")
# ContrastBolusAgent is free text, and hospitals write there that none was given.
NO_CONTRAST = re.compile(r"(no|none|n/?a|without|w/?o|non)\b.*|0+(\.0+)?|-+", re.IGNORECASE)
# The first that is there counts: the acquisition's date before those of series, content and study.
DATES = ("AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "ContentDate", "StudyDate")
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
DESCRIPTION = "SeriesDescription"  # free text: only a phase and known words are taken from it
GATED = re.compile(r"gated|gating|\b4d\b|respiratory", re.IGNORECASE)
PERCENT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d+)?)\s*%")
LONGEST = 64  # characters; what is longer is a comment, not the name of a thing
ACQUISITION_KEYS = (
    *TEXTS.values(), *(key for key, _ in NUMBERS.values()), *(key for key, _ in EXPOSURES), "PixelSpacing",
    *PHASES, *CONTRAST, *DATES, *GROUPS, DESCRIPTION, "PixelRepresentation",
)  # fmt: skip


def describe_acquisition(header: Dataset, keep_dates: bool = False) -> dict[str, Any]:
    """Describe how a scan was acquired: scanner, reconstruction, dose, contrast, phase, year.

    Of a header no free text is taken, no identifier, and of its dates the year alone; a value that is
    absent or damaged is empty or None. Multi-frame headers are read through their functional groups.

    Args:
        header: Of one slice, or of an enhanced CT; at least the elements named in `ACQUISITION_KEYS`.
        keep_dates: Add `acquisition_date` (YYYY-MM-DD).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values that are not used here
        parts = list(_parts(header))
        about: dict[str, Any] = {name: _text(parts, key) for name, key in TEXTS.items()}
        about["pixel_spacing_mm"] = _spacing(parts)
        about |= {name: _number(parts, (pair,)) for name, pair in NUMBERS.items()}
        about["exposure_mas"] = _number(parts, EXPOSURES)
        about["contrast"] = _contrast(parts)
        about |= _phase(parts)
        date = _first(_date(_text(parts, key)) for key in DATES)
    # The year alone does not identify (HIPAA safe harbor, 45 CFR 164.514(b)(2)).
    about["year"] = date[:4]
    if keep_dates:
        about["acquisition_date"] = date
    return about


def _parts(header: Dataset) -> Iterator[Dataset]:
    """Return the header, then what the functional groups of a multi-frame header hold for its first frame."""
    yield header
    for name in GROUPS:
        with suppress(Exception):  # a damaged sequence raises nearly anything
            for element in header[name].value[0]:
                if element.VR == "SQ" and element.value:
                    yield element.value[0]


def _values(part: Dataset, key: str) -> list[Any]:
    """Return the values of an element, none where it is absent or damaged."""
    with suppress(Exception):  # pydicom converts a value only now, and raises nearly anything
        value = part.get(key)
        if isinstance(value, Iterable) and not isinstance(value, str | bytes):
            return list(value)
        if value not in (None, "", b""):
            return [value]
    return []


def _text_of(part: Dataset, key: str) -> str:
    return " ".join(" ".join(map(str, _values(part, key))).split())


def _text(parts: list[Dataset], key: str) -> str:
    text = _first(_text_of(part, key) for part in parts)
    # Long or unprintable values are comments or damage, and a comment may name the patient.
    return text if len(text) <= LONGEST and text.isprintable() else ""


def _first(texts: Iterable[str]) -> str:
    """Return the first text that is not empty, or an empty one."""
    return next(filter(None, texts), "")


def _floats(part: Dataset, key: str) -> list[float]:
    """Return the finite numbers of an element; none where it is absent or damaged."""
    with suppress(ValueError, TypeError, OverflowError):
        values = [float(value) for value in _values(part, key)]
        return values if all(map(math.isfinite, values)) else []
    return []


def _number(parts: list[Dataset], keys: tuple[tuple[str, float], ...]) -> float | None:
    for key, factor in keys:
        for part in parts:
            if values := _floats(part, key):
                return round(values[0] * factor, 6)
    return None


def _spacing(parts: list[Dataset]) -> list[float] | None:
    """Return the spacing as (x, y), as everywhere here; DICOM names the distance between rows (y) first."""
    for part in parts:
        spacing = _floats(part, "PixelSpacing")
        if len(spacing) == 2:
            return spacing[::-1]
    return None


def _contrast(parts: list[Dataset]) -> bool | None:
    """Return whether contrast medium was given; None where the header does not say."""
    texts = [_text_of(part, key) for part in parts for key in CONTRAST]
    texts = [text for text in texts if text]
    if not texts:
        return None
    return not all(NO_CONTRAST.fullmatch(text) for text in texts)


def _phase(parts: list[Dataset]) -> dict[str, Any]:
    """Return whether the scan is one of several phases of breath or heart, and which per cent of it."""
    percent = _number(parts, tuple((key, 1.0) for key in PHASES))
    description = _text_of(parts[0], DESCRIPTION)
    is_gated = percent is not None or bool(GATED.search(description))
    if is_gated and percent is None:  # many scanners write the phase into the description only
        match = PERCENT.search(description)
        if match and float(match[1]) <= 100:
            percent = float(match[1])
    return {"gated": is_gated, "phase_percent": percent}


def _date(text: str) -> str:
    """Return YYYY-MM-DD of a date or a date with time; empty for nonsense."""
    match = re.match(r"(19[7-9]\d|20\d\d)[.-]?(0[1-9]|1[0-2])[.-]?(0[1-9]|[12]\d|3[01])", text)
    return "-".join(match.groups()) if match else ""
