"""Write the lesion mask of a CT as DICOM SEG, RTSTRUCT and SR beside the NIfTI, as ratios of one run.

    python benchmarks/mask_formats.py [DICOM --mask MASK] [--rounds 5] [--case]

DICOM is the folder of one CT series and MASK a mask on its grid; without them a made CT of 512 x 512 x 300
with a lesion of 30 mm and one of 8 mm is taken. The sides take turns in one process, `--rounds` times after
one that does not count; medians of CPU and wall seconds are printed. `read` is what the DICOM sides need once
a case before they write: the headers of the series, read as `radiogen segment --source` reads them.
With --case the whole of `radiogen segment` is timed instead, on a DICOM folder with an outline and with the
starter model, once with the NIfTI alone and once with each other format beside it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from radiogen.ingestion.ingest import ingest
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.referenced_ct import ReferencedCt, ScanSlice, read_scan
from radiogen.io.dicom.series import group_series
from radiogen.io.dicom.write_object import OutlineAuthor, Outlines, write_dicom
from radiogen.io.dicom.write_rtstruct import make_rtstruct
from radiogen.io.dicom.write_seg import make_seg, make_sr
from radiogen.io.nifti import read_mask, write_volume
from radiogen.measures.lesions import measure_lesions
from radiogen.model.folder import load_model, starter_model
from radiogen.segmentation.segment import SegmentOptions, segment


def made_scan() -> tuple[ReferencedCt, sitk.Image]:
    """A scan that exists in name only, and a mask on it."""
    z, y, x = np.ogrid[:300, :512, :512]
    labels = np.zeros((300, 512, 512), np.uint8)
    for label, (centre, radius_mm) in enumerate((((150, 260, 140), 15), ((220, 240, 360), 4)), start=1):
        away = ((z - centre[0]) * 1.25) ** 2 + ((y - centre[1]) * 0.7) ** 2 + ((x - centre[2]) * 0.7) ** 2
        labels[away < radius_mm**2] = label
    mask = sitk.GetImageFromArray(labels)
    mask.SetSpacing((0.7, 0.7, 1.25))
    slices = tuple(ScanSlice(f"1.2.3.{k}", mask.TransformIndexToPhysicalPoint((0, 0, k))) for k in range(300))
    from pydicom import Dataset

    scan = ReferencedCt("1.2.3", "1.2.4", "1.2.5", "1.2.840.10008.5.1.4.1.1.2", slices, Dataset())
    return scan.without_patient("made"), mask


def read_series(folder: Path) -> ReferencedCt:
    (series,) = group_series(find_dicom(folder).slices)
    return read_scan(series).without_patient("case")


def sides(scan: ReferencedCt, mask: sitk.Image, home: Path) -> dict[str, Callable[[], object]]:
    """What is written, by its name."""
    lesions = measure_lesions(mask)
    names = {one.label: f"Lesion {one.label}" for one in lesions}
    outlines = Outlines(mask, names, OutlineAuthor("radiogen RA-Seg", "0"), scan)
    seg = make_seg(outlines)
    return {
        "nifti": lambda: write_volume(mask, home / "lesion.nii.gz"),
        "dicom-seg": lambda: write_dicom(make_seg(outlines), home / "lesion.seg.dcm"),
        "rtstruct": lambda: write_dicom(make_rtstruct(outlines), home / "lesion.rtstruct.dcm"),
        "sr": lambda: write_dicom(make_sr(outlines, lesions, seg), home / "lesion.sr.dcm"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dicom", nargs="?", type=Path)
    parser.add_argument("--mask", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", action="store_true")
    given = parser.parse_args()
    if given.case:
        whole_case(given.dicom, given.rounds)
        return
    if (given.dicom is None) != (given.mask is None):
        parser.error("give the DICOM folder and --mask together")
    scan, mask = made_scan() if given.dicom is None else (read_series(given.dicom), read_mask(given.mask))
    with tempfile.TemporaryDirectory() as home:
        work = sides(scan, mask, Path(home))
        if given.dicom is not None:
            work["read"] = lambda: read_series(given.dicom)
        took = timed(work, given.rounds)
        print(f"{' x '.join(map(str, mask.GetSize()))} voxels, medians of {given.rounds}")
        size = {path.name.split(".")[-2]: path.stat().st_size / 1000 for path in Path(home).iterdir()}
        kb = {name: size.get({"nifti": "nii", "dicom-seg": "seg"}.get(name, name), 0) for name in work}
    tell(took, kb)


def whole_case(dicom: Path, rounds: int) -> None:
    """`radiogen segment` of one scan, its cases ingested before; NIfTI alone beside one more format."""
    with tempfile.TemporaryDirectory() as home:
        cases = Path(home) / "cases"
        ingest(dicom, cases)
        model = load_model(starter_model(), torch.device("cpu"))

        def run(*formats: str) -> None:
            options = SegmentOptions(prior="box", formats=formats, dicom=dicom, existing="overwrite")
            segment(cases, Path(home) / "out", model, options)

        names = {"nifti": (), "dicom-seg": ("dicom-seg",), "rtstruct": ("rtstruct",), "sr": ("sr",)}
        tell(timed({name: partial(run, *formats) for name, formats in names.items()}, rounds), {})


def timed(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of each side in each round but the first."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, write in work.items():
            cpu, wall = time.process_time(), time.perf_counter()
            write()
            if turn:
                took[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return took


def tell(took: dict[str, list[tuple[float, float]]], kb: dict[str, float]) -> None:
    print("\t".join(("", "CPU s", "/ nifti", "wall s", "/ nifti", "kB")))
    base = [statistics.median(column) for column in zip(*took["nifti"], strict=True)]
    for name, seconds in took.items():
        cpu, wall = (statistics.median(column) for column in zip(*seconds, strict=True))
        ratios = f"{cpu:.3f}\t{cpu / base[0]:.2f}\t{wall:.3f}\t{wall / base[1]:.2f}"
        print(f"{name}\t{ratios}\t{kb.get(name, 0):.0f}")


if __name__ == "__main__":
    main()
