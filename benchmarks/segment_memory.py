"""Peak memory of `radiogen segment` on a CT of 512 x 512 x 1000, against 6 GB.

Run: python benchmarks/segment_memory.py CASE [--model FOLDER] [--slices 1000] [--priors box lungs auto]

CASE is a case folder of a whole chest with an outline, such as the 4D-Lung one that `radiogen ingest` makes.
Its slices are repeated to the number that is asked for, at a spacing that keeps the chest's length. The
command runs in a process of its own, whose largest resident size (VmHWM) its run record tells. Without a
model the one that is shipped is used.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from radiogen.io.cases import Case, find_cases
from radiogen.io.nifti import read_grid, write_volume
from radiogen.provenance import write_json
from radiogen.volume import array_of

LIMIT_GB = 6.0


def lengthen(case: Case, folder: Path, slices: int) -> Path:
    """A case with each slice of another repeated."""
    for name, volume in (("ct", case.ct()), ("lungs", case.lungs()), ("lesion", case.lesion())):
        array = array_of(volume)
        long = sitk.GetImageFromArray(array[np.arange(slices) * len(array) // slices])
        x, y, z = volume.GetSpacing()
        long.SetOrigin(volume.GetOrigin())
        long.SetDirection(volume.GetDirection())
        long.SetSpacing((x, y, z * len(array) / slices))
        write_volume(long, folder / f"{name}.nii.gz")
    write_json(folder / "case.json", {"case_id": folder.name, "patient_id": "repeated"})
    return folder


def segment(case: Path, out: Path, prior: str, model: Path | None) -> tuple[int, float, float]:
    """Lesions found, largest resident size in GB, seconds."""
    words = [
        sys.executable,
        "-m",
        "radiogen.cli.main",
        "segment",
        str(case),
        "-o",
        str(out),
        "--prior",
        prior,
    ]
    words += ["--model", str(model)] if model else []
    began = time.perf_counter()
    done = subprocess.run([*words, "--save-probabilities"], check=True, stdout=subprocess.PIPE, text=True)
    record = json.loads((out / case.name / "lesion.run.json").read_text(encoding="utf-8"))
    seconds = time.perf_counter() - began
    return done.stdout.count("\tlesion "), record["peak_memory_mb"] * 2**20 / 1e9, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--priors", nargs="+", default=["box", "lungs", "auto"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        long = lengthen(find_cases(given.case)[0], Path(folder) / "repeated", given.slices)
        print(f"a CT of {read_grid(long / 'ct.nii.gz').GetSize()}")
        for prior in given.priors:
            lesions, gb, seconds = segment(long, Path(folder) / prior, prior, given.model)
            share = gb / LIMIT_GB
            print(f"{prior}: {gb:.2f} GB, {share:.2f} of {LIMIT_GB:g} GB; {lesions} lesions, {seconds:.0f} s")


if __name__ == "__main__":
    main()
