"""Whole scans with synthetic lesions, as case folders: what `candidate_limits.py` reads beside phantoms.

    python benchmarks/synthetic_scans.py build/starter/cases build/synthetic --cohorts starter_chests

Each scan of the cohorts is written several times, with other lesions each time: synthetic ones, and with
`--crops` true ones out of the crops of another folder of cases. Its own lesions stay where they are, no added
one touches them; they are not in the outline but in `own_lesion.nii.gz`, so that what is found there can be
left out of the count. The lungs are found in the scan with the lesions. Every third copy gets no lesion.
"""

import argparse
from pathlib import Path

import numpy as np

from radiogen.ingestion.lungs import find_lungs
from radiogen.io.cases import Case, find_cases, write_manifest
from radiogen.io.nifti import write_volume
from radiogen.provenance import write_json
from radiogen.training.laid_crops import LesionCrop, lay_crop
from radiogen.training.synthetic_lesions import add_synthetic_lesion
from radiogen.volume import array_of, volume_like

MARGIN = 8  # voxels of a crop beyond its faces


def read_crop(case: Case) -> LesionCrop:
    """Read a crop with its edge repeated, as training lays it into scans."""
    ct, lesion = case.ct(), array_of(case.lesion()) == 1
    hu = np.pad(array_of(ct).astype(np.float32), MARGIN, mode="edge")
    return LesionCrop(hu, np.pad(lesion, MARGIN), ct.GetSpacing())


def make(
    case: Case, copy: int, out: Path, crops: list[Case], options: argparse.Namespace
) -> dict[str, str] | None:
    """Write one scan with its added lesions; None if there was no room for any."""
    ct = case.ct()
    own = array_of(case.lesion()) > 0 if case.has_lesion else np.zeros(ct.GetSize()[::-1], bool)
    hu, lungs, lesion = (
        array_of(ct).astype(np.float32),
        array_of(case.lungs()) > 0,
        np.zeros(own.shape, np.uint8),
    )
    rng = np.random.default_rng([options.seed, copy, *case.case_id.encode()])
    count = 0 if copy % 3 == 2 else options.lesions
    for label in range(1, count + 1):
        taken = own | (lesion > 0)
        if crops and rng.random() < options.crop_share:
            crop = read_crop(crops[rng.integers(len(crops))])
            added = lay_crop(hu, lungs, taken, ct.GetSpacing(), crop, rng)
        else:
            added = add_synthetic_lesion(hu, lungs, ct.GetSpacing(), rng, tuple(options.sizes), taken)
        if added is not None:
            hu, lesion[added.lesion] = added.hu, label
    if count and not lesion.any():
        return None
    name = f"{case.case_id}-made{copy}"
    scan = volume_like(np.rint(hu).astype(np.int16), ct)
    found = find_lungs(scan).mask
    for volume, file in (
        (scan, "ct"),
        (volume_like(lesion, ct), "lesion"),
        (volume_like(own.astype(np.uint8), ct), "own_lesion"),
        (found, "lungs"),
    ):
        write_volume(volume, out / name / f"{file}.nii.gz")
    about = {"case_id": name, "patient_id": case.patient_id, "cohort": case.cohort, "egfr": ""}
    write_json(out / name / "case.json", about | {"source": {"kind": "made lesions", "seed": options.seed}})
    paths = {kind: f"{name}/{kind}.nii.gz" for kind in ("ct", "lesion", "lungs")}
    return about | {"split": ""} | paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cohorts", nargs="+", required=True)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--lesions", type=int, default=2, help="tried for each copy")
    parser.add_argument("--sizes", type=float, nargs=2, default=(5.0, 110.0), help="diameters in millimetres")
    parser.add_argument("--crops", type=Path, help="cases whose crops are laid in")
    parser.add_argument("--crop-share", type=float, default=0.7, help="of the lesions that are true ones")
    parser.add_argument("--seed", type=int, default=77)
    options = parser.parse_args()
    scans = [case for case in find_cases(options.cases) if case.cohort in options.cohorts]
    crops = [case for case in find_cases(options.crops) if case.is_crop] if options.crops else []
    rows = [make(case, copy, options.out, crops, options) for case in scans for copy in range(options.copies)]
    write_manifest(options.out, [row for row in rows if row is not None])


if __name__ == "__main__":
    main()
