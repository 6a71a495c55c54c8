"""Draw the traits of a synthetic patient: EGFR status, and the sex, smoking and lesion that go with it."""

from dataclasses import dataclass

import numpy as np

# Blocks spread mutants and untested patients evenly, so that a small cohort holds both classes too.
EGFR_BLOCK = 5
UNKNOWN_BLOCK = 12


@dataclass(frozen=True)
class Traits:
    """One synthetic patient before any voxel is drawn; the same for the same seed and number."""

    number: int
    egfr: str  # mutant or wildtype, what the tumour is
    egfr_known: bool
    site: str
    age: int
    sex: str
    smoking: str
    pack_years: int
    histology: str
    ethnicity: str
    ground_glass: float  # share of the lesion's radius that is ground glass
    texture_hu: float  # standard deviation inside the solid part
    solid_hu: float

    @property
    def patient_id(self) -> str:
        return f"PHANTOM-{self.number:03d}"

    @property
    def known_egfr(self) -> str:
        """EGFR status in the clinical table: mutant, wildtype, or nothing."""
        return self.egfr if self.egfr_known else ""


def rng_for(seed: int, number: int, purpose: str) -> np.random.Generator:
    """Return the random generator of one part of one patient, independent of every other part and patient."""
    return np.random.default_rng([seed, number, *purpose.encode()])


def is_mutant(seed: int, number: int) -> bool:
    """Return whether a patient is a mutant: two of five in a row are, one of them among the first two."""
    block, place = divmod(number - 1, EGFR_BLOCK)
    rng = rng_for(seed, block, "egfr block")
    return place in (rng.integers(0, 2), rng.integers(2, EGFR_BLOCK))


def is_tested(seed: int, number: int) -> bool:
    """Return whether a patient has an EGFR result: one of twelve, never of the first six, has none."""
    block, place = divmod(number - 1, UNKNOWN_BLOCK)
    half = UNKNOWN_BLOCK // 2
    return bool(place != rng_for(seed, block, "untested block").integers(half, UNKNOWN_BLOCK))


def draw_traits(seed: int, number: int, egfr: str | None = None) -> Traits:
    """Draw one patient, counted from 1.

    Args:
        seed: Seed of the cohort.
        number: Number of the patient.
        egfr: mutant or wildtype, instead of the status that the number gives.
    """
    egfr = egfr or ("mutant" if is_mutant(seed, number) else "wildtype")
    mutant = egfr == "mutant"
    rng = rng_for(seed, number, "traits")
    # Mutants are more often women, never-smokers, Asian, with more ground glass, as in published cohorts.
    female = rng.random() < (0.55 if mutant else 0.32)
    smoking = str(
        rng.choice(("never", "former", "current"), p=(0.40, 0.48, 0.12) if mutant else (0.15, 0.60, 0.25))
    )
    years = 0 if smoking == "never" else int(np.clip(rng.gamma(2.0, 14.0 if mutant else 18.0), 2, 120))
    ethnicity = str(
        rng.choice(
            ("caucasian", "asian", "african-american", "hispanic/latino", ""),
            p=(0.60, 0.16, 0.04, 0.04, 0.16) if mutant else (0.66, 0.10, 0.05, 0.04, 0.15),
        )
    )
    return Traits(
        number=number,
        egfr=egfr,
        egfr_known=is_tested(seed, number),
        site="Stanford" if rng.random() < (0.62 if mutant else 0.54) else "VA",
        age=int(np.clip(rng.normal(67, 9), 34, 88)),
        sex="female" if female else "male",
        smoking=smoking,
        pack_years=years,
        histology="squamous cell carcinoma"
        if rng.random() < (0.08 if mutant else 0.16)
        else "adenocarcinoma",
        ethnicity=ethnicity,
        ground_glass=float(np.clip(rng.normal(0.36 if mutant else 0.14, 0.22), 0, 0.75)),
        texture_hu=float(np.exp(rng.normal(np.log(30 if mutant else 42), 0.35))),
        solid_hu=float(rng.normal(28 if mutant else 38, 14)),
    )
