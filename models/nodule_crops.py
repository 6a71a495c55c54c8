"""Sort the crops of LIDC nodules in patients that the starter model learns from and patients that measure it.

    python models/nodule_crops.py lidc_nodules work

Links `work/nodules-training/{ct,mask}` and `work/nodules-held-out/{ct,mask}`. A patient is held out where the
first eight hex digits of the SHA-256 of the patient's id, as a number, leave 1 when divided by 5.
"""

import csv
import hashlib
import sys
from pathlib import Path


def is_held_out(patient: str) -> bool:
    """Tell whether a patient measures the starter model, rather than being learned from."""
    return int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) % 5 == 1


def main(source: Path, work: Path) -> None:
    with (source / "nodules.csv").open(encoding="utf-8") as file:
        nodules = [(row["name"], row["patient"]) for row in csv.DictReader(file)]
    for name, patient in nodules:
        part = work / ("nodules-held-out" if is_held_out(patient) else "nodules-training")
        for kind in ("ct", "mask"):
            link = part / kind / f"{name}.nii.gz"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to((source / kind / link.name).resolve())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
