"""Time the reading of a CT series against SimpleITK, pydicom and dcm2niix, in one run.

    python benchmarks/ingest.py [--like FOLDER] [--slices 300] [--repeats 5] [--files 20000] [--part NAME]

Makes a series of `--slices` slices of 512 x 512 from the slices of a real one (`--like`), or of noise,
and lets every side read it in a process of its own, in turn, warm: seconds of processor and wall time
round the work itself (imports left out), and the peak memory of the whole process (imports included).
Then: eight series ingested by one job and by two, and the crawl of the headers of `--files` files.
Parts: read, write, jobs, crawl.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from radiogen.io.dicom.file_kind import CT_IMAGE
from radiogen.io.dicom.files import find_dicom
from radiogen.runtime import cpu_count

SIDES = {
    "read": ("radiogen", "SimpleITK", "pydicom"),
    "write": ("radiogen gz", "SimpleITK gz", "pydicom gz", "dcm2niix gz", "dcm2niix"),
}


def work(side: str, series: Path, out: Path) -> None:
    """One side, in this process; prints its seconds and the peak memory as JSON."""
    kind, _, packed = side.partition(" ")
    if kind == "radiogen":
        from radiogen.ingestion.ct import read_ct
        from radiogen.io.dicom.series import group_series
        from radiogen.io.nifti import write_volume
    elif kind == "SimpleITK":
        import SimpleITK as sitk
    elif kind == "pydicom":
        import nibabel
    wall, processor = time.perf_counter(), time.process_time()
    if kind == "radiogen":
        (one,) = group_series(find_dicom(series).slices)
        ct = read_ct(one)
        if packed:
            write_volume(ct.volume, out / "ct.nii.gz")
    elif kind == "SimpleITK":
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
        volume = reader.Execute()
        if packed:
            sitk.WriteImage(volume, str(out / "ct.nii.gz"), useCompression=True)
    elif kind == "pydicom":
        items = sorted(map(dcmread, series.iterdir()), key=lambda one: float(one.ImagePositionPatient[2]))
        stack = [one.pixel_array * one.RescaleSlope + one.RescaleIntercept for one in items]
        voxels = np.stack(stack).astype(np.int16)
        if packed:
            nibabel.Nifti1Image(voxels.T, np.eye(4)).to_filename(out / "ct.nii.gz")
    elif kind == "dcm2niix":
        import dcm2niix

        how = ["-z", "y", "-1"] if packed else ["-z", "n"]
        subprocess.run([dcm2niix.bin, *how, "-b", "n", "-o", str(out), str(series)], check=True, stdout=2)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    who = resource.RUSAGE_CHILDREN if kind == "dcm2niix" else resource.RUSAGE_SELF
    usage = resource.getrusage(who)
    if kind == "dcm2niix":
        processor = usage.ru_utime + usage.ru_stime
    print(json.dumps({"cpu": processor, "wall": wall, "mb": usage.ru_maxrss / 1024}))


def compare(sides: tuple[str, ...], series: Path, room: Path, repeats: int, volume_mb: float) -> None:
    """Every side in turn, `repeats` times; medians, and the ratio to SimpleITK."""
    seen: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for n in range(repeats + 1):  # the first round only warms the cache
        for side in sides:
            out = room / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            program = [sys.executable, __file__, "--side", side, "--series", str(series), "--out", str(out)]
            ran = subprocess.run(program, check=True, capture_output=True, text=True)
            if n:
                seen[side].append(json.loads(ran.stdout.splitlines()[-1]))
    reference = next(side for side in sides if side.startswith("SimpleITK"))
    base = statistics.median(one["cpu"] for one in seen[reference])
    for side, runs in seen.items():
        cpu, wall, mb = (statistics.median(one[key] for one in runs) for key in ("cpu", "wall", "mb"))
        print(
            f"  {side:12} {cpu:6.2f} s cpu ({cpu / base:4.2f}x)  {wall:6.2f} s wall  "
            f"{mb:5.0f} MB peak ({mb / volume_mb:4.2f}x the volume)"
        )


def make_series(folder: Path, slices: int, like: Path | None, seed: int = 0) -> None:
    """A CT series of 512 x 512 slices under names that say nothing."""
    folder.mkdir(parents=True)
    found = find_dicom(like).slices if like else []
    kept = [one for one in found if one.size == (512, 512)]
    models = [dcmread(one.path) for one in sorted(kept, key=lambda one: one.position_mm[2])]
    models = models or [noise(np.random.default_rng(seed))]
    uid = generate_uid()
    for k in range(slices):
        item = models[k % len(models)]
        item.SeriesInstanceUID = uid
        item.PatientID = f"P{seed}"
        item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        item.ImagePositionPatient = [-250.0, -250.0, -1.25 * k]
        item.save_as(folder / f"{(7919 * k) % 100003:06d}", enforce_file_format=True)


def noise(rng: np.random.Generator) -> Dataset:
    """A slice of noise with the header of a CT."""
    item = Dataset()
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = CT_IMAGE
    item.Modality, item.ImageType, item.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], 1
    item.StudyInstanceUID, item.FrameOfReferenceUID = generate_uid(), generate_uid()
    item.ImageOrientationPatient, item.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.75, 0.75]
    item.SliceThickness, item.RescaleSlope, item.RescaleIntercept = 1.25, 1, -1024
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.Rows, item.Columns, item.PixelRepresentation = 512, 512, 0
    item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
    hu = np.clip(rng.normal(-400, 300, (512, 512)), -1000, 1000)
    item.PixelData = (hu + 1024).astype(np.uint16).tobytes()
    return item


def jobs(room: Path, slices: int, like: Path | None) -> None:
    """Eight series by one job and by two, wall seconds; with all of ITK's threads, and with one."""
    for n in range(8):
        make_series(room / "many" / str(n), slices, like, seed=n)
    for threads in (cpu_count(), 1):
        seconds = {}
        for count in (1, 2):
            out = room / f"cases-{threads}-{count}"
            program = [
                sys.executable,
                "-m",
                "radiogen.cli.main",
                "ingest",
                str(room / "many"),
                "-o",
                str(out),
            ]
            limit = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
            started = time.perf_counter()
            subprocess.run(
                [*program, "--jobs", str(count), "-q"],
                check=True,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **limit},
            )
            seconds[count] = time.perf_counter() - started
        print(
            f"  8 series of {slices} slices, ITK on {threads} threads: 1 job {seconds[1]:.1f} s, "
            f"2 jobs {seconds[2]:.1f} s ({seconds[1] / seconds[2]:.2f}x)"
        )


def crawl(room: Path, files: int, like: Path | None) -> None:
    """The headers of many files, wall seconds."""
    make_series(room / "one", 100, like)
    for n in range(files // 100):
        shutil.copytree(
            room / "one", room / "tree" / str(n), copy_function=lambda a, b: Path(b).hardlink_to(a)
        )
    started = time.perf_counter()
    found = find_dicom(room / "tree")
    seconds = time.perf_counter() - started
    print(f"  {len(found.slices)} headers in {seconds:.1f} s, {1e3 * seconds / files:.2f} ms each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--like", type=Path)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--part", action="append", choices=("read", "write", "jobs", "crawl"))
    parser.add_argument("--side")
    parser.add_argument("--series", type=Path)
    parser.add_argument("--out", type=Path)
    how = parser.parse_args()
    if how.side:
        work(how.side, how.series, how.out)
        return
    parts = how.part or ("read", "write", "jobs", "crawl")
    print(f"{platform.machine()}, {cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        series = room / "series"
        make_series(series, how.slices, how.like)
        volume_mb = how.slices * 512 * 512 * 2 / 2**20
        for part, sides in SIDES.items():
            if part in parts:
                print(
                    f"{part}: {how.slices} slices of 512 x 512, {volume_mb:.0f} MB, medians of {how.repeats}"
                )
                compare(sides, series, room, how.repeats, volume_mb)
        if "jobs" in parts:
            jobs(room, how.slices // 3, how.like)
        if "crawl" in parts:
            crawl(room, how.files, how.like)


if __name__ == "__main__":
    main()
