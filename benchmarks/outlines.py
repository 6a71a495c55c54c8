"""Time the reading of a large RTSTRUCT against the way of many notebooks, in one run.

    python benchmarks/outlines.py [--repeats 5]

30 structures on a CT of 512 x 512 x 300: the names alone, one structure as voxels, all of them; processor
and wall seconds, medians over the repeats, the two sides in turn, and the ratio of their processor seconds.
The other side takes pydicom's own numbers and PIL's polygons, which draw the line too; the volumes of both
are shown beside that of the polygons.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageDraw
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from radiogen.io.contours import fill_contours
from radiogen.io.dicom.rtstruct import contours_of, read_rtstruct

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
SIZE, SPACING = (512, 512, 300), (0.78, 0.78, 1.0)


def write_rtstruct(path: Path, rois: int, points: int = 200) -> None:
    """A structure set of wavy tubes through all slices."""
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = RTSTRUCT
    item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    item.Modality = "RTSTRUCT"
    item.StructureSetROISequence, item.ROIContourSequence = [], []
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    for number in range(1, rois + 1):
        named, drawn = Dataset(), Dataset()
        named.ROINumber, named.ROIName = number, f"structure {number}"
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for k in range(SIZE[2]):
            radii = 20 + 2 * number + 3 * np.sin(5 * angles + k / 10)
            ring = np.stack([radii * np.cos(angles) + 200, radii * np.sin(angles) + 200], axis=1)
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", points
            contour.ContourData = [f"{v:.4f}" for x, y in ring for v in (x, y, k * SPACING[2])]
            drawn.ContourSequence.append(contour)
        item.StructureSetROISequence.append(named)
        item.ROIContourSequence.append(drawn)
    item.save_as(path, enforce_file_format=True)


def grid() -> sitk.Image:
    """The CT, without values."""
    ct = sitk.Image(SIZE, sitk.sitkUInt8)
    ct.SetSpacing(SPACING)
    return ct


def ours(path: Path, wanted: int, ct: sitk.Image) -> int:
    """Voxels of the first structures."""
    rois = read_rtstruct(path)[:wanted]
    return sum(int(fill_contours(contours_of(roi, path).contours, ct, path).inside.sum()) for roi in rois)


def notebook(path: Path, wanted: int) -> int:
    """Voxels of the first structures, by pydicom's numbers and PIL's polygons."""
    count = 0
    for drawn in list(dcmread(path).ROIContourSequence)[:wanted]:
        voxels = np.zeros(SIZE[::-1], dtype=bool)
        for contour in drawn.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3) / SPACING
            image = Image.new("L", SIZE[:2], 0)
            ImageDraw.Draw(image).polygon([(x, y) for x, y, _ in points.tolist()], outline=1, fill=1)
            voxels[round(points[0, 2])] ^= np.array(image, dtype=bool)
        count += int(voxels.sum())
    return count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        path, ct = Path(folder) / "structures.dcm", grid()
        write_rtstruct(path, 30)
        print(f"RTSTRUCT of 30 structures, {path.stat().st_size / 1e6:.0f} MB, on {SIZE}; {repeats} repeats")
        sides: dict[str, Callable[[], int]] = {
            "names of all": lambda: len(read_rtstruct(path)),
            "one structure": lambda: ours(path, 1, ct),
            "one structure, notebook": lambda: notebook(path, 1),
            "all structures": lambda: ours(path, 30, ct),
            "all structures, notebook": lambda: notebook(path, 30),
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        counts = {}
        for _ in range(repeats):
            for name, side in sides.items():
                start = time.process_time(), time.perf_counter()
                counts[name] = side()
                seconds[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
        for name, taken in seconds.items():
            cpu, wall = (statistics.median(one[i] for one in taken) for i in (0, 1))
            print(f"{name:26} {cpu:7.2f} s processor {wall:7.2f} s wall   {counts[name]}")
        for name in ("one structure", "all structures"):
            one, other = (
                statistics.median(cpu for cpu, _ in seconds[side]) for side in (name, f"{name}, notebook")
            )
            print(f"{name}: notebook / ours {other / one:.1f}")
        roi, ml = read_rtstruct(path)[0], np.prod(SPACING) / 1000
        polygons = fill_contours(contours_of(roi, path).contours, ct, path).polygon_ml
        print(
            f"ml of one structure: polygons {polygons:.3f}, ours {counts['one structure'] * ml:.3f}, "
            f"notebook {counts['one structure, notebook'] * ml:.3f}"
        )


if __name__ == "__main__":
    main()
