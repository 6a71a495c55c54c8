"""Convert a mask from one format to another, and check that another reader finds it in the same place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from radiogen.errors import ConfigError, OutputError
from radiogen.io.colour_table import write_colour_table
from radiogen.io.dicom_facts import OutlineFile
from radiogen.io.dicom_new import Maker, Outlines, write_dicom
from radiogen.io.dicom_scan import read_scan
from radiogen.io.make_rtstruct import make_rtstruct
from radiogen.io.make_seg import make_seg
from radiogen.io.nifti import NIFTI_ENDINGS, read_mask, write_volume
from radiogen.measures.lesions import measure_lesions
from radiogen.preprocess.certificate import certify
from radiogen.preprocess.references import ReferenceCt, read_reference
from radiogen.preprocess.sources import outline_of, scan_id
from radiogen.preprocess.structures import Labelled, read_labelled
from radiogen.volume import array_of, same_grid, volume_like

DicomKind = Literal["dicom-seg", "rtstruct"]
WRITTEN_ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".mha")
CENTRE_MM = 0.1  # how far the centroid of a structure may lie from where it was
WITHOUT_CT = "refers to a CT series, and none is given"


@dataclass(frozen=True)
class Converted:
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
    to: DicomKind | None = None,
    reference: Path | None = None,
    roi: str | None = None,
    segment: str | None = None,
    series: str | None = None,
    made_by: str = "",
    keep_patient: bool = False,
) -> Converted:
    """Convert a mask; voxels and place stay, which is checked by reading the result back.

    Args:
        source: NIfTI, NRRD or MHA mask, DICOM SEG or RTSTRUCT.
        out: File to write; its ending says which volume file it is.
        to: Which DICOM object, where it ends in .dcm.
        reference: The CT: a case folder, a volume file, or the DICOM folder that DICOM output needs.
        roi: Which ROIs of an RTSTRUCT; else all.
        segment: Which segments of a SEG; else all.
        series: Which series of the reference.
        made_by: The program that outlined, for DICOM; empty if a person did.
        keep_patient: Copy the patient's identity from the reference into DICOM.

    Raises:
        ConfigError: Ending and format do not go together.
        OutlineError: The mask cannot be read or does not fit the CT.
        OutputError: The result cannot be written, or was not found in its place.
    """
    _check_target(out, to)
    outline = outline_of(source)
    ct = read_reference(reference, outline, series) if reference is not None else None
    if to is not None and (ct is None or ct.series is None):
        raise ConfigError(f"--to {to}", WITHOUT_CT, "give its DICOM folder with --reference")
    read = read_labelled(outline, ct, roi, segment)
    files = [out]
    if to is None:
        write_volume(read.labels, out)
        files.append(_colours_beside(out))
        write_colour_table(read.names, files[1])
    elif ct is not None:
        _write_dicom(read, out, to, ct, Maker(made_by, "not stated" if made_by else ""), keep_patient)
    try:
        reader, centre_mm = _check(read, out, to, ct)
    except OutputError:
        for path in files:
            path.unlink(missing_ok=True)
        raise
    voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(read.labels)))
    return Converted(tuple(files), read.names, voxels, reader, centre_mm, read.decisions)


def _check_target(out: Path, to: DicomKind | None) -> None:
    name = out.name.lower()
    if to is None and not name.endswith(WRITTEN_ENDINGS):
        way_out = f"end it in {', '.join(WRITTEN_ENDINGS)}, or add --to dicom-seg or --to rtstruct"
        raise ConfigError(f"-o {out.name}", "does not say what to write", way_out)
    if to is not None and not name.endswith(".dcm"):
        raise ConfigError(f"-o {out.name}", f"is given with --to {to}", "end it in .dcm")


def _colours_beside(out: Path) -> Path:
    ending = next(one for one in WRITTEN_ENDINGS if out.name.lower().endswith(one))
    return out.with_name(out.name[: -len(ending)] + ".ctbl")


def _write_dicom(
    read: Labelled, out: Path, to: DicomKind, ct: ReferenceCt, maker: Maker, keep_patient: bool
) -> None:
    if ct.series is None or ct.patient is None:
        raise ConfigError(f"--to {to}", WITHOUT_CT, "give its DICOM folder with --reference")
    scan = read_scan(ct.series)
    if not keep_patient:
        scan = scan.without_patient(scan_id(ct.patient.name, ct.series.name))
    outlines = Outlines(read.labels, read.names, maker, scan)
    write_dicom(make_seg(outlines) if to == "dicom-seg" else make_rtstruct(outlines), out)


def _check(read: Labelled, out: Path, to: DicomKind | None, ct: ReferenceCt | None) -> tuple[str, float]:
    """Who read the result back, and how far off the centroids are.

    Raises:
        OutputError: A voxel is another, or the grid lies elsewhere.
    """
    if to is not None and ct is not None:
        back = read_labelled(OutlineFile(out, "seg" if to == "dicom-seg" else "rtstruct"), ct, None, None)
        order = np.zeros(256, np.uint8)  # DICOM numbers structures from 1
        order[np.arange(1, len(read.names) + 1)] = list(read.names)
        found = volume_like(order[array_of(back.labels)], back.labels)
        reader = "highdicom" if to == "dicom-seg" else "radiogen's own reader of contours"
    elif out.name.lower().endswith(NIFTI_ENDINGS):
        found, reader = read_mask(out), str(certify([out], read.labels)["reader"])
    else:
        found, reader = sitk.ReadImage(str(out)), f"SimpleITK {sitk.Version_VersionString()}"
    if not same_grid(found, read.labels) or not np.array_equal(array_of(found), array_of(read.labels)):
        wrong = f"was not found again voxel by voxel by {reader}, and is removed"
        raise OutputError(out, wrong, "this is a fault of radiogen; report it with the mask's geometry")
    pairs = zip(measure_lesions(found), measure_lesions(read.labels), strict=True)
    off = [float(np.linalg.norm(np.subtract(a.center_mm, b.center_mm))) for a, b in pairs]
    if max(off) > CENTRE_MM:
        wrong = f"lies {max(off):.2f} mm beside its place, and is removed"
        raise OutputError(out, wrong, "this is a fault of radiogen; report it with the mask's geometry")
    return reader, max(off)
