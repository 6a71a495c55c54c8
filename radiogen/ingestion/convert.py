"""Convert a mask from one format to another, and check that another reader finds it in the same place.

The result is written beside its target, read back by a reader that did not write it, and only then renamed:
no earlier file is lost to a conversion that failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import center_of_mass

from radiogen.errors import ConfigError, OutputError
from radiogen.ingestion.certificate import certify
from radiogen.ingestion.sources import hashed_scan_id, outline_of
from radiogen.ingestion.structures import LabelMap, ReferenceGrid, read_label_map, read_reference
from radiogen.io.dicom.referenced_ct import ReferencedCt, one_line, read_scan
from radiogen.io.dicom.seg import BY_HIGHDICOM
from radiogen.io.dicom.slice_header import OutlineFile
from radiogen.io.dicom.write_object import OutlineAuthor, Outlines, write_dicom
from radiogen.io.dicom.write_rtstruct import make_rtstruct
from radiogen.io.dicom.write_seg import make_seg
from radiogen.io.nifti import NIFTI_ENDINGS, read_mask, write_colour_table, write_volume
from radiogen.provenance import whole_file
from radiogen.volume import array_of, same_grid, volume_like

Code = Literal["neoplasm", "tissue"]
Target = Literal["nifti", "dicom-seg", "rtstruct"]
DICOM = ("dicom-seg", "rtstruct")
WRITTEN_ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".mha")
CENTRE_MM = 0.1  # how far the centroid of a structure may lie from where it was
WITHOUT_CT = "refers to a CT series, and none is given"


@dataclass(frozen=True)
class ConvertedMask:
    """What was written, and how well another reader finds it.

    Attributes:
        files: The mask, and beside a volume file the colour table with the names.
        names: Structures by label.
        voxels: Of all structures.
        reader: Who read it back.
        centre_mm: The largest distance of a structure's centroid from where it was.
        decisions: What was decided, in sentences.
    """

    files: tuple[Path, ...]
    names: dict[int, str]
    voxels: int
    reader: str
    centre_mm: float
    decisions: tuple[str, ...]


def convert(
    source: Path,
    out: Path,
    to: Target | None = None,
    reference: Path | None = None,
    roi: str | None = None,
    segment: str | None = None,
    series: str | None = None,
    made_by: str = "",
    keep_patient: bool = False,
    code: Code | None = None,
) -> ConvertedMask:
    """Convert a mask; voxels and place stay, which is checked by reading the result back.

    Args:
        source: NIfTI, NRRD or MHA mask, DICOM SEG or RTSTRUCT.
        out: File to write; it appears when it was read back. Its ending says which volume file it is.
        to: The format; needed where it ends in .dcm.
        reference: The CT: a case folder, a volume file, or the DICOM folder that DICOM output needs.
        roi: Which ROIs of an RTSTRUCT; else all.
        segment: Which segments of a SEG; else all.
        series: Which series of the reference.
        made_by: The program that outlined, for DICOM; empty if a person did.
        keep_patient: Copy the patient's identity from the reference into DICOM.
        code: What a SEG says its segments are; else neoplasm of the lung where a mask file was given, and
            tissue for the structures of an RTSTRUCT or SEG, which may be anything.

    Raises:
        ConfigError: Ending and format do not go together.
        OutlineError: The mask cannot be read or does not fit the CT.
        OutputError: The result cannot be written, or was not found in its place.
    """
    _check_target(source, out, to)
    outline = outline_of(source)
    ct = read_reference(reference, outline, series) if reference is not None else None
    is_dicom = to in DICOM
    if is_dicom and (ct is None or ct.series is None):
        raise ConfigError(f"--to {to}", WITHOUT_CT, "give its DICOM folder with --reference")
    label_map = read_label_map(outline, ct, roi, segment)
    files = [out]
    with whole_file(out) as draft:
        if is_dicom and ct is not None:
            author = OutlineAuthor(one_line(made_by), "not stated" if made_by else "")
            # What a name means is never guessed; a mask file holds lesions, since radiogen writes those.
            code = code or ("neoplasm" if outline.kind == "mask" else "tissue")
            make = make_seg if to == "dicom-seg" else make_rtstruct
            scan = _scan(ct, keep_patient)
            outlines = Outlines(label_map.labels, label_map.names, author, scan, code == "neoplasm")
            write_dicom(make(outlines), draft)
            back, reader = _read_dicom(label_map, draft, to == "dicom-seg", ct)
        else:
            write_volume(label_map.labels, draft)
            back, reader = _read_volume(label_map, draft)
        centre_mm = _check(label_map.labels, back, out, reader)
    if not is_dicom:
        files.append(_colours_beside(out))
        write_colour_table(label_map.names, files[1])
    voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(label_map.labels)))
    return ConvertedMask(tuple(files), label_map.names, voxels, reader, centre_mm, label_map.decisions)


def _check_target(source: Path, out: Path, to: Target | None) -> None:
    name = out.name.lower()
    if to is None and not name.endswith(WRITTEN_ENDINGS):
        hint = f"end it in {', '.join(WRITTEN_ENDINGS)}, or add --to dicom-seg or --to rtstruct"
        raise ConfigError(f"-o {out.name}", "does not say what to write", hint)
    endings = (".dcm",) if to in DICOM else NIFTI_ENDINGS if to == "nifti" else WRITTEN_ENDINGS
    if not name.endswith(endings):
        raise ConfigError(f"-o {out.name}", f"is given with --to {to}", f"end it in {' or '.join(endings)}")
    # By inode, not by name: a link to the mask would lose it just as well.
    if out.exists() and source.exists() and out.samefile(source):
        raise ConfigError(f"-o {out.name}", "is the mask itself", "choose another name")


def _colours_beside(out: Path) -> Path:
    ending = next(one for one in WRITTEN_ENDINGS if out.name.lower().endswith(one))
    return out.with_name(out.name[: -len(ending)] + ".ctbl")


def _scan(ct: ReferenceGrid, keep_patient: bool) -> ReferencedCt:
    if ct.series is None or ct.patient is None:
        raise ConfigError("--reference", "is no DICOM", "give the DICOM folder of the CT")
    scan = read_scan(ct.series)
    return scan if keep_patient else scan.without_patient(hashed_scan_id(ct.patient.name, ct.series.name))


def _read_dicom(label_map: LabelMap, path: Path, is_seg: bool, ct: ReferenceGrid) -> tuple[sitk.Image, str]:
    """Return the labels that a DICOM file holds, and who read them."""
    back = read_label_map(OutlineFile(path, "seg" if is_seg else "rtstruct"), ct, None, None)
    order = np.zeros(256, np.uint8)  # DICOM numbers structures from 1
    order[np.arange(1, len(label_map.names) + 1)] = list(label_map.names)
    by_highdicom = any(line == BY_HIGHDICOM for line in back.decisions)
    reader = "highdicom" if by_highdicom else "the reader of radiogen ingest"
    return volume_like(order[array_of(back.labels)], back.labels), reader


def _read_volume(label_map: LabelMap, path: Path) -> tuple[sitk.Image, str]:
    """Return the labels that a volume file holds, and who read them."""
    if path.name.lower().endswith(NIFTI_ENDINGS):
        return read_mask(path), str(certify([path], label_map.labels)["reader"])
    # ITK wrote this file too: nibabel reads neither NRRD nor MHA.
    return sitk.ReadImage(str(path)), f"SimpleITK {sitk.Version_VersionString()}"


def _check(expected: sitk.Image, found: sitk.Image, out: Path, reader: str) -> float:
    """Return how far off the centroids are at most, in mm.

    Raises:
        OutputError: A voxel is another, or the grid lies elsewhere.
    """
    hint = "this is a fault of radiogen; report it with the mask's geometry"
    if not same_grid(found, expected) or not np.array_equal(array_of(found), array_of(expected)):
        raise OutputError(out, f"would not be found again voxel by voxel by {reader}", hint)
    labels = array_of(expected)
    centres = center_of_mass(labels, labels, np.unique(labels[labels > 0]))
    off_mm = max(
        float(np.linalg.norm(np.subtract(_place(found, zyx), _place(expected, zyx)))) for zyx in centres
    )
    if off_mm > CENTRE_MM:
        raise OutputError(out, f"would lie {off_mm:.2f} mm beside its place", hint)
    return off_mm


def _place(grid: sitk.Image, zyx: Sequence[float]) -> tuple[float, ...]:
    place: tuple[float, ...] = grid.TransformContinuousIndexToPhysicalPoint([float(v) for v in zyx[::-1]])
    return place
