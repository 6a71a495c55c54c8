"""Make a whole cohort: patients as DICOM, their clinical table, and a few that are broken on purpose."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from radiogen.errors import ConfigError, OutputError
from radiogen.phantoms.chest import ChestSize, make_chest
from radiogen.phantoms.clinical import clinical_text
from radiogen.phantoms.dicom import DOUBLED_SLICE, MISSING_SLICE, NO_OUTLINE, write_patient
from radiogen.phantoms.traits import draw_traits
from radiogen.provenance import RunRecord, is_done, record_path, write_text
from radiogen.runtime import Tick, no_tick

DICOM, UNFINISHED = "dicom", "unfinished.txt"
LARGE, SMALL = 8, 4  # from how many patients on three are broken, and one


@dataclass(frozen=True)
class PhantomPatient:
    """One made patient: the EGFR status that the table tells, and what is broken, if anything."""

    patient_id: str
    egfr: str
    broken: str


@dataclass(frozen=True)
class PhantomCohort:
    """A made cohort: its folder, the DICOM below it, the clinical table, and who is in it."""

    folder: Path
    dicom: Path
    clinical: Path
    patients: tuple[PhantomPatient, ...]


def keep_phantoms(
    out: Path, patients: int, seed: int, size: ChestSize | None = None, first: int = 1, tick: Tick = no_tick
) -> Path:
    """Make a cohort with its run record, or take the same one that an earlier run made whole; returns `out`.

    Raises:
        OutputError: The folder holds another cohort.
    """
    options = {"patients": patients, "seed": seed, "size": asdict(size) if size else None, "first": first}
    if is_done(out, options, [], None):
        return out
    if out.is_dir() and record_path(out).is_file():
        way_out = "take its --patients, --seed and --spacing, or another folder"
        raise OutputError(out, "holds another cohort", way_out)
    if (out / UNFINISHED).is_file():
        shutil.rmtree(out / DICOM, ignore_errors=True)
    _check_empty(out / DICOM)
    write_text(out / UNFINISHED, "radiogen phantoms was stopped; the same command begins anew\n")
    record = RunRecord("phantoms", options, seed=seed)
    cohort = make_phantoms(out, patients, seed, size, first=first, tick=tick)
    (out / UNFINISHED).unlink()
    record.finish(out, [cohort.clinical])
    return out


def make_phantoms(
    out: Path,
    patients: int = 36,
    seed: int = 0,
    size: ChestSize | None = None,
    broken: bool = True,
    first: int = 1,
    tick: Tick = no_tick,
) -> PhantomCohort:
    """Write `out/dicom` and `out/clinical.csv`; the same seed and size give the same bytes.

    Of the first two patients one is a mutant. With eight patients or more the last three are
    broken: a missing slice, no outline, a slice there twice (harmless). From four on the last has a missing
    slice. A patient's files depend on seed, size, number and defect, not on how many there are.

    Args:
        out: An empty or new folder.
        patients: How many.
        seed: Seed of the cohort.
        size: The grid of a chest; about 112 x 96 x 40 voxels if not given.
        broken: Whether some are broken at all.
        first: Number of the first patient, so that cohorts share nobody.
        tick: Is told how many patients are written.

    Raises:
        ConfigError: Less than one patient, or the grid is too small.
        OutputError: The folder holds DICOM already, or cannot be written to.
    """
    if patients < 1:
        raise ConfigError(f"{patients} patients", "make no cohort", "take at least 1")
    dicom, clinical = out / DICOM, out / "clinical.csv"
    _check_empty(dicom)
    defects = _defects(patients) if broken else {}
    made = []
    drawn = [draw_traits(seed, number) for number in range(first, first + patients)]
    tick("phantoms", 0, patients)
    for place, traits in enumerate(drawn, start=1):
        defect = defects.get(place, "")
        write_patient(make_chest(traits, seed, size), traits, seed, dicom, defect)
        made.append(PhantomPatient(traits.patient_id, traits.known_egfr, defect))
        tick("phantoms", place, patients)
    write_text(clinical, clinical_text(seed, drawn))
    return PhantomCohort(out, dicom, clinical, tuple(made))


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(folder, "is there already", "choose an empty folder, or remove it")


def _defects(patients: int) -> dict[int, str]:
    """What is broken, by the place in the cohort, from 1."""
    if patients >= LARGE:
        return {patients - 2: MISSING_SLICE, patients - 1: NO_OUTLINE, patients: DOUBLED_SLICE}
    return {patients: MISSING_SLICE} if patients >= SMALL else {}
