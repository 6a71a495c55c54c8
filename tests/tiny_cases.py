"""Phantoms as ready case folders, for tests and benchmarks that start behind ingest."""

from pathlib import Path

from radiogen.io.cases import Case, write_manifest
from radiogen.io.nifti import write_volume
from radiogen.phantoms.chest import ChestSize, make_chest
from radiogen.phantoms.traits import Traits, draw_traits
from radiogen.provenance import write_json

TINY = ChestSize((48, 40, 32), (6.0, 6.4, 7.0), variation=0.04)


def tiny_case(
    folder: Path, seed: int = 0, number: int = 1, egfr: str | None = None, size: ChestSize = TINY
) -> Case:
    """Write one made patient as a case folder: ct, lesion and lungs as .nii.gz, and case.json.

    Args:
        folder: The case folder; its name becomes the case_id.
        seed: Seed of the cohort.
        number: Number of the patient, from 1.
        egfr: mutant or wildtype; by default what the number gives, empty in case.json if not tested.
        size: The grid.

    Raises:
        ConfigError: The grid is too small for a chest.
        OutputError: The folder cannot be written to.
    """
    traits = draw_traits(seed, number, egfr)
    chest = make_chest(traits, seed, size)
    write_volume(chest.volume, folder / "ct.nii.gz")
    write_volume(chest.lesion, folder / "lesion.nii.gz")
    write_volume(chest.lungs, folder / "lungs.nii.gz")
    known = egfr or traits.known_egfr
    about = {
        "case_id": folder.name,
        "patient_id": traits.patient_id,
        "cohort": "phantoms",
        "egfr": known,
        "source": {"kind": "phantom", "seed": seed, "number": number},
    }
    write_json(folder / "case.json", about)
    return Case(folder.name, traits.patient_id, folder, cohort="phantoms", egfr=known)


def tiny_cases(root: Path, count: int = 4, seed: int = 0, size: ChestSize = TINY) -> list[Case]:
    """Write made patients 1..count as case folders with a manifest.csv that carries the clinical columns.

    Of the first two patients one is a mutant, so even two cases hold both classes.
    """
    cases, rows = [], []
    for number in range(1, count + 1):
        traits = draw_traits(seed, number)
        case = tiny_case(root / traits.patient_id.lower(), seed, number, size=size)
        cases.append(case)
        rows.append(_row(case, traits))
    write_manifest(root, rows)
    return cases


def _row(case: Case, traits: Traits) -> dict[str, str]:
    return {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "cohort": "phantoms",
        "split": "",
        "egfr": case.egfr,
        "ct": f"{case.case_id}/ct.nii.gz",
        "lesion": f"{case.case_id}/lesion.nii.gz",
        "lungs": f"{case.case_id}/lungs.nii.gz",
        "site": traits.site,
        "age": str(traits.age),
        "sex": traits.sex,
        "smoking": traits.smoking,
        "pack_years": str(traits.pack_years),
        "histology": traits.histology,
        "ethnicity": traits.ethnicity,
    }
