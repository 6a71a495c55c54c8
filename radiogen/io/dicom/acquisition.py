"""What a CT header says about how the scan was made, and nothing that could say of whom."""

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
NO_CONTRAST = re.compile(r"(no|none|n/?a|without|w/?o|non)\b.*|0+(\.0+)?|-+", re.IGNORECASE)
DATES = ("AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "ContentDate", "StudyDate")
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
DESCRIPTION = "SeriesDescription"  # free text: only a phase and known words are taken from it
GATED = re.compile(r"gated|gating|\b4d\b|respiratory", re.IGNORECASE)
PERCENT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d+)?)\s*%")
LONGEST = 64  # characters; what is longer is a comment, not the name of a thing
TAGS = (
    *TEXTS.values(), *(key for key, _ in NUMBERS.values()), *(key for key, _ in EXPOSURES), "PixelSpacing",
    *PHASES, *CONTRAST, *DATES, *GROUPS, DESCRIPTION, "PixelRepresentation",
)  # fmt: skip


def describe(header: Dataset, keep_dates: bool = False) -> dict[str, Any]:
    """How a scan was made: scanner, reconstruction, dose, contrast, phase, year.

    Of a header no free text is taken, no identifier, and of its dates the year alone; a value that is
    absent or damaged is empty or None. Multi-frame headers are read through their functional groups.

    Args:
        header: Of one slice, or of an enhanced CT; at least the elements named in `TAGS`.
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
        date = next(filter(None, (_date(_text(parts, key)) for key in DATES)), "")
    about["year"] = date[:4]
    return about | ({"acquisition_date": date} if keep_dates else {})


def _parts(header: Dataset) -> Iterator[Dataset]:
    """The header, then what the functional groups of a multi-frame header hold for its first frame."""
    yield header
    for name in GROUPS:
        with suppress(Exception):  # a damaged sequence raises nearly anything
            for element in header[name].value[0]:
                if element.VR == "SQ" and element.value:
                    yield element.value[0]


def _values(part: Dataset, key: str) -> list[Any]:
    """The values of an element, none where it is absent or damaged."""
    with suppress(Exception):  # pydicom converts a value only now, and raises nearly anything
        value = part.get(key)
        several = isinstance(value, Iterable) and not isinstance(value, str | bytes)
        return list(value) if several else [] if value in (None, "", b"") else [value]
    return []


def _text_of(part: Dataset, key: str) -> str:
    return " ".join(" ".join(map(str, _values(part, key))).split())


def _text(parts: list[Dataset], key: str) -> str:
    found = next(filter(None, (_text_of(part, key) for part in parts)), "")
    return found if len(found) <= LONGEST and found.isprintable() else ""


def _floats(part: Dataset, key: str) -> list[float]:
    """The finite numbers of an element; none where it is absent or damaged."""
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
    """Between columns, then between rows: x before y, as everywhere here; DICOM has it the other way."""
    found = next((values for part in parts if len(values := _floats(part, "PixelSpacing")) == 2), None)
    return found[::-1] if found else None


def _contrast(parts: list[Dataset]) -> bool | None:
    """Whether contrast medium was given; None where the header does not say."""
    said = [_text_of(part, key) for part in parts for key in CONTRAST]
    said = [text for text in said if text]
    if not said:
        return None
    return not all(NO_CONTRAST.fullmatch(text) for text in said)


def _phase(parts: list[Dataset]) -> dict[str, Any]:
    """Whether the scan is one of several phases of breath or heart, and which per cent of it."""
    percent = _number(parts, tuple((key, 1.0) for key in PHASES))
    description = _text_of(parts[0], DESCRIPTION)
    is_gated = percent is not None or bool(GATED.search(description))
    written = PERCENT.search(description) if is_gated and percent is None else None
    if written and float(written[1]) <= 100:
        percent = float(written[1])
    return {"gated": is_gated, "phase_percent": percent}


def _date(text: str) -> str:
    """YYYY-MM-DD, of a date or a date with time; empty for nonsense."""
    found = re.match(r"(19[7-9]\d|20\d\d)[.-]?(0[1-9]|1[0-2])[.-]?(0[1-9]|[12]\d|3[01])", text)
    return "-".join(found.groups()) if found else ""
