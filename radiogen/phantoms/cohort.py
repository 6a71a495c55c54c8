"""Write a cohort of phantoms: patients as DICOM, their clinical table, some broken on purpose."""

import csv
import io
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from radiogen.errors import ConfigError, OutputError
from radiogen.phantoms.chest import ChestSize, make_chest
from radiogen.phantoms.dicom import DOUBLED_SLICE, MISSING_SLICE, NO_OUTLINE, write_patient
from radiogen.phantoms.traits import Traits, draw_traits, rng_for
from radiogen.provenance import RunRecord, is_done, record_path, write_text
from radiogen.runtime import Progress, no_progress

# The headers of NSCLC-Radiogenomics as published (TCIA), the trailing blank of `Histology ` too.
HEADERS = (
    "Case ID",
    "Patient affiliation",
    "Age at Histological Diagnosis",
    "Weight (lbs)",
    "Gender",
    "Ethnicity",
    "Smoking status",
    "Pack Years",
    "Quit Smoking Year",
    "%GG",
    "Histology ",
    "Pathological T stage",
    "EGFR mutation status",
    "KRAS mutation status",
    "ALK translocation status",
)
SMOKING = {"never": "Nonsmoker", "former": "Former", "current": "Current"}
ETHNICITIES = {
    "caucasian": "Caucasian",
    "asian": "Asian",
    "african-american": "African-American",
    "hispanic/latino": "Hispanic/Latino",
    "": "Not Recorded In Database",
}
GROUND_GLASS = ((0.1, "0%"), (0.25, ">0 - 25%"), (0.5, "25 - 50%"), (0.75, "50 - 75%"))  # upper ends
# Upper ends in per cent of the patients, drawn independently of the lesion.
T_STAGES = ((30, "T1a"), (40, "T1b"), (60, "T2a"), (80, "T2b"), (101, "T3"))


def clinical_text(seed: int, patients: Iterable[Traits]) -> str:
    """Return the table as CSV, one row a patient, each row independent of the others.

    Args:
        seed: Seed of the cohort.
        patients: Who is in it.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADERS)
    writer.writerows(_row(seed, traits) for traits in patients)
    return text.getvalue()


def _row(seed: int, traits: Traits) -> tuple[str, ...]:
    rng = rng_for(seed, traits.number, "clinical")
    # Pounds, as in the published table.
    weight = f"{rng.normal(155 if traits.sex == 'female' else 185, 25):.0f}"
    no_weight, no_years = rng.random(2) < 0.15
    quit_year = str(int(rng.integers(1970, 2008)))
    percent = int(rng.integers(0, 101))
    stage = next(name for end, name in T_STAGES if percent < end)
    kras = "Mutant" if rng.random() < (0.02 if traits.egfr == "mutant" else 0.3) else "Wildtype"
    return (
        traits.patient_id,
        traits.site,
        str(traits.age),
        "Not Collected" if no_weight else weight,
        traits.sex.capitalize(),
        ETHNICITIES[traits.ethnicity],
        SMOKING[traits.smoking],
        _pack_years(traits, bool(no_years)),
        quit_year if traits.smoking == "former" else "N/A",
        next((name for end, name in GROUND_GLASS if traits.ground_glass <= end), "75 - < 100%"),
        traits.histology.capitalize(),
        stage,
        _egfr(traits, rng),
        kras if traits.egfr_known else "Unknown",
        "Wildtype" if traits.egfr_known else "Unknown",
    )


def _pack_years(traits: Traits, is_lost: bool) -> str:
    if traits.smoking == "never":
        return "N/A"
    return "Not Collected" if is_lost else str(traits.pack_years)


def _egfr(traits: Traits, rng: np.random.Generator) -> str:
    if traits.egfr_known:
        return traits.egfr.capitalize()
    return "Not collected" if rng.random() < 0.5 else "Unknown"


DICOM = "dicom"
UNFINISHED = "unfinished.txt"
THREE_BROKEN_FROM = 8  # patients
ONE_BROKEN_FROM = 4  # patients


@dataclass(frozen=True)
class PhantomPatient:
    """One synthetic patient: the EGFR status in the table, and what is broken, if anything."""

    patient_id: str
    egfr: str
    broken: str


@dataclass(frozen=True)
class PhantomCohort:
    """A cohort of phantoms: its folder, the DICOM below it, the clinical table, and who is in it."""

    folder: Path
    dicom: Path
    clinical: Path
    patients: tuple[PhantomPatient, ...]


def ensure_phantoms(
    out: Path,
    patients: int,
    seed: int,
    size: ChestSize | None = None,
    first: int = 1,
    progress: Progress = no_progress,
) -> Path:
    """Write a cohort with its run record, or keep the same one of an earlier run; returns `out`.

    Raises:
        OutputError: The folder holds another cohort.
    """
    options = {"patients": patients, "seed": seed, "size": asdict(size) if size else None, "first": first}
    if is_done(out, options, [], None):
        return out
    if out.is_dir() and record_path(out).is_file():
        hint = "take its --patients, --seed and --spacing, or another folder"
        raise OutputError(out, "holds another cohort", hint)
    # An earlier run was stopped: its DICOM may be incomplete and is written anew.
    if (out / UNFINISHED).is_file():
        shutil.rmtree(out / DICOM, ignore_errors=True)
    _check_empty(out / DICOM)
    write_text(out / UNFINISHED, "radiogen phantoms was stopped; the same command begins anew\n")
    record = RunRecord("phantoms", options, seed=seed)
    cohort = make_phantoms(out, patients, seed, size, first=first, progress=progress)
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
    progress: Progress = no_progress,
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
        progress: Called with the number of patients written.

    Raises:
        ConfigError: Less than one patient, or the grid is too small.
        OutputError: The folder holds DICOM already, or cannot be written to.
    """
    if patients < 1:
        raise ConfigError(f"{patients} patients", "are no cohort", "give at least 1")
    dicom, clinical = out / DICOM, out / "clinical.csv"
    _check_empty(dicom)
    defects = _defects(patients) if broken else {}
    written = []
    drawn = [draw_traits(seed, number) for number in range(first, first + patients)]
    progress("phantoms", 0, patients)
    for place, traits in enumerate(drawn, start=1):
        defect = defects.get(place, "")
        write_patient(make_chest(traits, seed, size), traits, seed, dicom, defect)
        written.append(PhantomPatient(traits.patient_id, traits.known_egfr, defect))
        progress("phantoms", place, patients)
    write_text(clinical, clinical_text(seed, drawn))
    return PhantomCohort(out, dicom, clinical, tuple(written))


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(folder, "is there already", "choose an empty folder, or remove it")


def _defects(patients: int) -> dict[int, str]:
    """Return what is broken, by the place in the cohort, from 1."""
    if patients >= THREE_BROKEN_FROM:
        return {patients - 2: MISSING_SLICE, patients - 1: NO_OUTLINE, patients: DOUBLED_SLICE}
    return {patients: MISSING_SLICE} if patients >= ONE_BROKEN_FROM else {}
