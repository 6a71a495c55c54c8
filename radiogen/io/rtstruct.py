"""Read the contours of an RTSTRUCT by the names of its ROIs."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread

from radiogen.errors import OutlineError
from radiogen.io.contours import Points


@dataclass(frozen=True)
class RoiContours:
    """One ROI: its name and its closed contours in LPS millimetres, shape (n, 3) each."""

    name: str
    contours: tuple[Points, ...]
    left_out: int  # points and open lines, which enclose nothing


def read_rtstruct(path: Path) -> list[RoiContours]:
    """The ROIs of an RTSTRUCT in the order of the file, those without contours too.

    Raises:
        OutlineError: The file is damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values that are not used here
        try:
            dataset = dcmread(path, force=True)
            names = {int(one.ROINumber): str(one.ROIName) for one in dataset.StructureSetROISequence}
            drawn = {int(one.ReferencedROINumber): one for one in dataset.get("ROIContourSequence") or ()}
            return [_roi(name, drawn.get(number)) for number, name in names.items()]
        except Exception as error:  # damaged files make pydicom raise nearly anything
            raise OutlineError(path, f"cannot be read as RTSTRUCT: {error}", "copy it again") from error


def _roi(name: str, drawn: Dataset | None) -> RoiContours:
    contours, left_out = [], 0
    for contour in (drawn.get("ContourSequence") if drawn is not None else None) or ():
        points = np.array([float(v) for v in contour.ContourData], dtype=float).reshape(-1, 3)
        if len(points) >= 3 and contour.get("ContourGeometricType") in (
            None,
            "CLOSED_PLANAR",
            "CLOSEDPLANAR_XOR",
        ):
            contours.append(points)
        else:
            left_out += 1
    return RoiContours(name.strip(), tuple(contours), left_out)
