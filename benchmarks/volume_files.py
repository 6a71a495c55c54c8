"""Write and read a CT as .nii.gz: radiogen beside SimpleITK and nibabel, as ratios of one run.

    python benchmarks/volume_files.py [CT] [--slices 300] [--rounds 5]

CT is any volume file that radiogen reads; its slices are repeated to the number asked for. Without it a
phantom chest is taken. Each side runs in a process of its own, in turn, `--rounds` times; medians of CPU
seconds, wall seconds and peak memory beyond the volume itself are printed, and the size of the file.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDES = ("radiogen", "simpleitk", "nibabel")


def made_ct(path: Path | None, slices: int):
    """A CT of 512 x 512 x slices, int16."""
    import SimpleITK as sitk

    if path is not None:
        from radiogen.io.nifti import read_volume
        from radiogen.volume import array_of

        volume = read_volume(path)
        hu, spacing = array_of(volume), volume.GetSpacing()
    else:
        rng = np.random.default_rng(0)
        z, y, x = np.ogrid[:60, :512, :512]
        body = ((x - 256) / 200) ** 2 + ((y - 256) / 140) ** 2 < 1
        lung = ((np.abs(x - 256) - 95) / 70) ** 2 + ((y - 250) / 100) ** 2 < 1 - ((z - 30) / 60) ** 2
        hu = np.where(lung, -850, np.where(body, 40, -1000)) + rng.normal(0, 20, (60, 512, 512))
        spacing = (0.7, 0.7, 1.25)
    hu = np.clip(hu, -1024, 3071).astype(np.int16)
    volume = sitk.GetImageFromArray(np.resize(hu, (slices, *hu.shape[1:])))
    volume.SetSpacing(spacing)
    return volume


def peak_mb() -> float:
    """Peak memory of this process since the mark was last cleared (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def work(side: str, verb: str, ct: str, target: str) -> dict[str, float]:
    """One side once, in this process: seconds, memory beyond what was there before."""
    import nibabel
    import SimpleITK as sitk

    from radiogen.io.nifti import affine_of, read_volume, write_volume

    if verb == "write":
        volume = sitk.ReadImage(ct)
        array = np.asarray(sitk.GetArrayViewFromImage(volume))
        work_of = {
            "radiogen": lambda: write_volume(volume, Path(target)),
            "simpleitk": lambda: sitk.WriteImage(volume, target, useCompression=True),
            "nibabel": lambda: nibabel.save(nibabel.Nifti1Image(array.T, affine_of(volume)), target),
        }
    else:
        work_of = {
            "radiogen": lambda: read_volume(Path(target)),
            "simpleitk": lambda: sitk.ReadImage(target),
            "nibabel": lambda: np.asanyarray(nibabel.load(target).dataobj),
        }
    Path("/proc/self/clear_refs").write_text("5")  # peak memory starts anew
    before, cpu, wall = peak_mb(), time.process_time(), time.perf_counter()
    work_of[side]()
    return {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "memory": max(0.0, peak_mb() - before),
    }


def measure(ct: Path, rounds: int, folder: Path) -> None:
    """Run all sides in turn and print medians and ratios."""
    environment = {**os.environ, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    for verb in ("write", "read"):
        times: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                target = folder / (f"{side}.nii.gz" if verb == "write" else "radiogen.nii.gz")
                words = [sys.executable, __file__, "--one", side, verb, str(ct), str(target)]
                done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
                times[side].append(json.loads(done.stdout))
        print(f"{verb:9}  CPU s   wall s  memory MB  file MB   CPU to simpleitk")
        peer = statistics.median(one["cpu"] for one in times["simpleitk"])
        for side in SIDES:
            cpu, wall, memory = (
                statistics.median(one[key] for one in times[side]) for key in ("cpu", "wall", "memory")
            )
            size = (folder / f"{side}.nii.gz").stat().st_size / 1e6
            print(f"{side:9} {cpu:6.2f} {wall:8.2f} {memory:10.0f} {size:8.1f} {cpu / peer:10.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("ct", nargs="?", type=Path)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(work(*asked.one)))
        return
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory() as folder:
        ct = Path(folder) / "ct.mha"
        volume = made_ct(asked.ct, asked.slices)
        sitk.WriteImage(volume, str(ct))
        print(f"{volume.GetSize()} int16, {2e-6 * np.prod(volume.GetSize()):.0f} MB")
        measure(ct, asked.rounds, Path(folder))


if __name__ == "__main__":
    main()
