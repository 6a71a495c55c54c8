"""Measure pages: one of a cohort of 100 phantoms, and one of a case as large as a real scan.

    PYTHONPATH=tests python benchmarks/report_pages.py [FOLDER]

The limits: a cohort page in under 60 s and under 30 MB, a case page under 15 MB whatever the CT. Ten made
patients stand for a hundred (files linked under other ids), which changes nothing for the page: each is
read, measured and drawn by itself. The large CT is noise over a chest, which packs worse than any scan.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tiny_cases import tiny_case, tiny_cases

from radiogen.io.cases import find_cases, read_manifest, write_manifest
from radiogen.io.nifti import read_volume, write_volume
from radiogen.phantoms.chest import ChestSize
from radiogen.provenance import write_json
from radiogen.report.page import ReportOptions, report
from radiogen.volume import array_of, volume_like

PATIENTS, DISTINCT = 100, 10
LIKE_PHANTOMS = ChestSize((112, 96, 64), (3.1, 3.1, 5.0), variation=0.04)
SMALL, TIMES = ChestSize((128, 128, 100), (2.8, 2.8, 3.2), variation=0.0), (4, 4, 4)


def make_cohort(run: Path) -> None:
    """A run of PATIENTS segmented cases; the masks are the outlines."""
    cases = run / "cases"
    made = tiny_cases(cases, DISTINCT, size=LIKE_PHANTOMS)
    rows = read_manifest(cases)
    for number in range(DISTINCT, PATIENTS):
        source, case_id = made[number % DISTINCT], f"phantom-{number + 1:03d}"
        shutil.copytree(source.folder, cases / case_id, copy_function=os.link)
        (cases / case_id / "case.json").unlink()
        write_json(
            cases / case_id / "case.json", {**source.about(), "case_id": case_id, "patient_id": case_id}
        )
        row = {**rows[number % DISTINCT], "case_id": case_id, "patient_id": case_id}
        rows.append({**row, **{name: f"{case_id}/{name}.nii.gz" for name in ("ct", "lesion", "lungs")}})
    write_manifest(cases, rows)
    for case in find_cases(cases):
        folder = run / "segmented" / case.case_id
        folder.mkdir(parents=True)
        os.link(case.lesion_path, folder / "lesion.nii.gz")
        header = "case_id,lesion,volume_ml,longest_diameter_mm\n"
        (folder / "lesions.csv").write_text(f"{header}{case.case_id},1,10.0,30.0\n", encoding="utf-8")
        write_json(
            folder / "lesion.run.json", {"verb": "segment", "options": {"prior": "box", "prompt": "oracle"}}
        )


def make_large(folder: Path) -> Path:
    """A case of a thin-slice scan with strong noise: a small phantom, each voxel in many."""
    case = tiny_case(folder, size=SMALL)
    for path in (case.ct_path, case.lesion_path, case.lungs_path):
        small = read_volume(path)
        large = sitk.Expand(small, TIMES, sitk.sitkNearestNeighbor)
        if path == case.ct_path:
            noise = np.random.default_rng(0).normal(0, 40, large.GetSize()[::-1]).astype(np.float32)
            large = volume_like((array_of(large) + noise).astype(np.int16), large)
        write_volume(large, path)
    return folder


def measure(name: str, run: Path, page: Path, jobs: int, limit_mb: float) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    report(run, page, ReportOptions(jobs=jobs))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    mb = page.stat().st_size / 1e6
    took = f"{wall:.1f} s wall, {cpu:.1f} s CPU of this process"
    print(f"{name}, {jobs} at a time: {took}, {mb:.1f} MB ({limit_mb:g} allowed)", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        home = Path(name)
        make_cohort(home / "run")
        for jobs in (1, 2):
            measure(f"cohort of {PATIENTS}", home / "run", home / "cohort.html", jobs, 30)
        large = make_large(home / "large")
        size = " x ".join(str(count * times) for count, times in zip(SMALL.voxels, TIMES, strict=True))
        measure(f"case of {size}", large, home / "case.html", 1, 15)


if __name__ == "__main__":
    main()
