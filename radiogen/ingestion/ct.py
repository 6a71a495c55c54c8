"""Read the CT of a case, from a DICOM series or a volume file, as int16 HU."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydicom import dcmread

from radiogen.errors import VolumeError
from radiogen.ingestion.lungs import is_crop
from radiogen.io.dicom.acquisition import ACQUISITION_KEYS, describe_acquisition
from radiogen.io.dicom.pixels import HIGHEST_HU, LOWEST_HU
from radiogen.io.dicom.series import Series, SeriesRules, read_series
from radiogen.io.nifti import read_volume_file
from radiogen.volume import array_of, volume_like

# Wider than the tissues themselves, so that noise and contrast medium never fail a chest.
AIR_HU = (-1100, -500)
TISSUE_HU = (-200, 300)
CHECKED_SLICES = 30  # spread over the volume
LEAST_SHARE = 0.001  # of the voxels: a chest has more of both; an image that is not in HU may not
# Below lies micro-CT or a header in metres, above a header in micrometres.
SPACING_MM = (0.05, 25.0)


@dataclass(frozen=True)
class CtScan:
    """A CT in HU and how it was acquired."""

    volume: sitk.Image
    kind: str  # dicom, or the ending of the volume file
    files: tuple[Path, ...]
    decisions: tuple[str, ...]
    scanner: Mapping[str, Any] = field(default_factory=dict)
    slice_positions: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by SOPInstanceUID


def read_ct(source: Series | Path, rules: SeriesRules | None = None, keep_dates: bool = False) -> CtScan:
    """Read a CT as int16 HU, not below -1024.

    Args:
        source: A DICOM series or a volume file.
        rules: What happens to gaps and tilt of a series.
        keep_dates: Keep the date of a series, not only its year.

    Raises:
        SeriesError: The slices do not form a volume, or a file is damaged.
        VolumeError: The file cannot be read, is flat, or its values are no HU of a chest.
    """
    ct = _read_series(source, rules, keep_dates) if isinstance(source, Series) else _read_file(source)
    where = source.folder if isinstance(source, Series) else source
    spacing = ct.volume.GetSpacing()
    if not SPACING_MM[0] <= min(spacing) <= max(spacing) <= SPACING_MM[1]:
        raise VolumeError(where, f"a spacing of {spacing} is not in millimetres", "correct its header")
    _check_hu(where, sitk.GetArrayViewFromImage(ct.volume), is_crop(ct.volume))
    return ct


def _check_hu(where: Path, values: npt.NDArray[np.int16], of_crop: bool) -> None:
    """Refuse values that are plainly no HU: a chest has air and soft tissue, whatever else.

    A crop round ground glass may show no soft tissue, but always some lung.
    """
    values = values[:: max(1, len(values) // CHECKED_SLICES)]
    low, high = int(values.min()), int(values.max())
    air, tissue = (float(np.mean((values > a) & (values < b))) for a, b in (AIR_HU, TISSUE_HU))
    is_ground_glass = of_crop and low < high
    if air < LEAST_SHARE or (tissue < LEAST_SHARE and not is_ground_glass):
        wrong = (
            f"values from {low} to {high} are no HU of a chest ({100 * air:.1f} % are air, "
            f"{100 * tissue:.1f} % soft tissue)"
        )
        hint = "export it as HU (air is -1000)"
        if of_crop:
            hint += ", or cut it wide enough to show some lung"
        raise VolumeError(where, wrong, hint)


def _read_series(series: Series, rules: SeriesRules | None, keep_dates: bool) -> CtScan:
    ct = read_series(series, rules)
    return CtScan(
        volume=ct.volume,
        kind="dicom",
        files=tuple(item.path for item in ct.slices),
        decisions=ct.decisions,
        scanner=_scanner(ct.slices[0].path, keep_dates),
        slice_positions={item.sop_uid: item.position_mm for item in ct.slices},
    )


def _scanner(path: Path, keep_dates: bool) -> dict[str, Any]:
    """Read the acquisition from the header of one slice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values that are not used here
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(ACQUISITION_KEYS), force=True)
        return describe_acquisition(header, keep_dates)


def _read_file(path: Path) -> CtScan:
    file = read_volume_file(path)
    volume = file.volume
    if min(volume.GetSize()) < 2:
        raise VolumeError(path, f"is flat, it has {volume.GetSize()} voxels", "give the whole volume")
    values = array_of(volume)
    rounded = np.rint(values) if values.dtype.kind == "f" else values
    decisions = [*file.decisions]
    if np.any(rounded != values):
        decisions.append("HU rounded to whole numbers")
    raised, lowered = int((rounded < LOWEST_HU).sum()), int((rounded > HIGHEST_HU).sum())
    if raised:
        decisions.append(f"{raised} voxels below {LOWEST_HU} HU set to {LOWEST_HU}")
    if lowered:
        decisions.append(f"{lowered} voxels above {HIGHEST_HU} HU set to {HIGHEST_HU}")
    # As DICOM series: below air nothing is measured, and int16 ends at 32767.
    hu = np.clip(rounded, LOWEST_HU, HIGHEST_HU).astype(np.int16)
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    return CtScan(volume_like(hu, volume), kind, (path,), tuple(decisions))
