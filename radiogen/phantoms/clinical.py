"""The clinical table of a made cohort, with the headers and spellings of NSCLC-Radiogenomics."""

import csv
import io
from collections.abc import Iterable

import numpy as np

from radiogen.phantoms.traits import Traits, generator_for

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
T_STAGES = ((30, "T1a"), (40, "T1b"), (60, "T2a"), (80, "T2b"), (101, "T3"))


def clinical_text(seed: int, patients: Iterable[Traits]) -> str:
    """The table as CSV, one row a patient, each row independent of the others.

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
    chance = generator_for(seed, traits.number, "clinical")
    weight = f"{chance.normal(155 if traits.sex == 'female' else 185, 25):.0f}"
    no_weight, no_years = chance.random(2) < 0.15
    quit_year = str(int(chance.integers(1970, 2008)))
    percent = int(chance.integers(0, 101))
    stage = next(name for end, name in T_STAGES if percent < end)
    kras = "Mutant" if chance.random() < (0.02 if traits.egfr == "mutant" else 0.3) else "Wildtype"
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
        _egfr(traits, chance),
        kras if traits.egfr_known else "Unknown",
        "Wildtype" if traits.egfr_known else "Unknown",
    )


def _pack_years(traits: Traits, is_lost: bool) -> str:
    if traits.smoking == "never":
        return "N/A"
    return "Not Collected" if is_lost else str(traits.pack_years)


def _egfr(traits: Traits, chance: np.random.Generator) -> str:
    if traits.egfr_known:
        return traits.egfr.capitalize()
    return "Not collected" if chance.random() < 0.5 else "Unknown"
