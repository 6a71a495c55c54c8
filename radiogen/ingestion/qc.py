"""Judge what is odd about a case, in words and numbers, and how much that weighs.

The weights are judgement, not statistics: 7 and 8 make a case unusable as it is (no lungs, no air, the lesion
far outside the lungs), 4 to 6 are likely to matter (one lung, lungs cut widely, interpolated slices), 2 and 3
deserve viewing, 1 is worth knowing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from radiogen.ingestion.case_facts import CaseFacts, LesionFacts, LungFacts

LOOK_FIRST = 6  # sum of the weights from which a case is to be viewed before the others
LEVELS = ("nothing odd", "look", "look first")

# Shares of the voxels; a chest CT has 0.2 to 0.7 of air and 0.15 to 0.5 of soft tissue.
LEAST_AIR, LEAST_SOFT_TISSUE = 0.03, 0.05
# Median of an inflated lung; consolidation lies above, a mask that holds the windpipe or the table below.
LUNG_HU = (-950.0, -600.0)
# Adults have 3 to 7 litres together; the left lung is the smaller by a tenth, where none is missing.
SMALL_LUNGS_ML, ASYMMETRY = 1500.0, 0.4
# Shares of the largest cross-section that lie on the first or last slice.
CUT, CUT_WIDELY = 0.02, 0.25
# Adult lungs are 200 to 300 mm high; 3.2 and 5.5 leave room for slices of 3 and 5 mm.
SHORT_MM, THICK_MM, VERY_THICK_MM, COARSE_MM = 150.0, 3.2, 5.5, 1.5
IN_AIR_HU, TINY_ML, HUGE_ML, FAR_MM = -850.0, 0.05, 500.0, 5.0
CLIPPED = 0.001  # share of the voxels at one end of the range
# Scanners of twelve bits end there; a CT that is clipped elsewhere was windowed by somebody.
TOP_HU = (3071, 3072)
BOTTOM_HU = -1000

# Decisions of ingest that weigh; what is measured here anyway does not count twice.
DECISIONS = (
    (5, re.compile(r"interpolated|moved sideways|resampled")),
    (4, re.compile(r"slices? may be missing|slices that are not here|places? the corners")),
    (3, re.compile(r"what lies between is not seen|metres, turned into|made perpendicular")),
    (2, re.compile(r"doubled|without orientation|no frame of reference|tolerant")),
)


@dataclass(frozen=True)
class Oddity:
    """One odd property of a case, and its weight from 1 (worth knowing) to 10 (cannot be read)."""

    weight: int
    text: str


@dataclass(frozen=True)
class Suspicion:
    """All oddities of a case, the heaviest first."""

    oddities: tuple[Oddity, ...]

    @property
    def score(self) -> int:
        return sum(oddity.weight for oddity in self.oddities)

    @property
    def level(self) -> int:
        """0, 1 or 2: index of `LEVELS`. Oddities of weight 1 alone are no reason to look."""
        # Many trifles do not add up to a reason.
        heaviest = max((oddity.weight for oddity in self.oddities), default=0)
        if self.score >= LOOK_FIRST and heaviest > 1:
            return 2
        return int(heaviest > 1)


def judge(
    facts: CaseFacts,
    decisions: Sequence[str] = (),
    thickness_mm: float | None = None,
    was_segmented: bool = False,
) -> Suspicion:
    """Judge the measurements of a case.

    Args:
        facts: The measurements.
        decisions: Decisions of ingest, in sentences.
        thickness_mm: Slice thickness in the DICOM header.
        was_segmented: Whether the lesions are those of a network, not of an outline.
    """
    oddities = [
        *_by_decisions(decisions),
        *_by_values(facts),
        *_by_extent(facts, thickness_mm),
        *(() if facts.is_crop else _by_lungs(facts.lungs)),
        *_by_lesions(facts.lesions, was_segmented, facts.is_crop),
    ]
    return Suspicion(tuple(sorted(oddities, key=lambda oddity: -oddity.weight)))


def _by_decisions(decisions: Sequence[str]) -> Iterator[Oddity]:
    for decision in decisions:
        weight = next((weight for weight, pattern in DECISIONS if pattern.search(decision)), 0)
        if weight:
            yield Oddity(weight, f"ingest: {decision}")


def _by_values(facts: CaseFacts) -> Iterator[Oddity]:
    low, high = facts.lowest_hu, facts.highest_hu
    # A crop may hold next to nothing but lung, or next to nothing but a mass.
    if facts.air < LEAST_AIR and not facts.is_crop:
        yield Oddity(7, f"hardly any air: {_percent(facts.air)} of the voxels are -1024 to -850 HU")
    if facts.soft_tissue < LEAST_SOFT_TISSUE and not facts.is_crop:
        share = _percent(facts.soft_tissue)
        yield Oddity(7, f"hardly any soft tissue: {share} of the voxels are -150 to 150 HU")
    if facts.at_highest > CLIPPED and high not in TOP_HU:
        yield Oddity(4, f"clipped at the top: {_percent(facts.at_highest)} of the voxels are {high} HU")
    if facts.at_lowest > CLIPPED and low > BOTTOM_HU:
        yield Oddity(5, f"clipped at the bottom: {_percent(facts.at_lowest)} of the voxels are {low} HU")


def _by_extent(facts: CaseFacts, thickness_mm: float | None) -> Iterator[Oddity]:
    step = facts.spacing_mm[2]
    if step > THICK_MM:
        weight, word = (3, "very thick") if step > VERY_THICK_MM else (2, "thick")
        yield Oddity(weight, f"{word} slices: {step:.1f} mm apart")
    if max(facts.spacing_mm[:2]) > COARSE_MM:
        yield Oddity(1, f"coarse pixels: {max(facts.spacing_mm[:2]):.1f} mm")
    # A third of the distance between slices was not scanned.
    if thickness_mm and thickness_mm < 0.67 * step:
        yield Oddity(3, f"gaps between slices: {thickness_mm:.1f} mm thick, {step:.1f} mm apart")
    if facts.extent_mm < SHORT_MM and not facts.is_crop:
        yield Oddity(3, f"a part of a chest: {facts.slices} slices over {facts.extent_mm:.0f} mm")
    if facts.tilt_degrees > 1:
        yield Oddity(1, f"axes turned against the patient's by up to {facts.tilt_degrees:.0f} degrees")


def _by_lungs(lungs: LungFacts | None) -> Iterator[Oddity]:
    if lungs is None:
        yield Oddity(8, "no lungs found")
        return
    right, left = lungs.right_ml, lungs.left_ml
    small, large = min(right, left), max(right, left)
    if small == 0:
        yield Oddity(6, f"no {'right' if right == 0 else 'left'} lung found; the other has {large:.0f} mL")
    elif small < ASYMMETRY * large:
        yield Oddity(4, f"lungs unlike in size: right {right:.0f} mL, left {left:.0f} mL")
    if right + left < SMALL_LUNGS_ML:
        yield Oddity(3, f"small lungs: {right + left:.0f} mL together")
    low, high = LUNG_HU
    if not low <= lungs.median_hu <= high:
        yield Oddity(4, f"lungs of odd density: median {lungs.median_hu:.0f} HU")
    for share, end in zip(lungs.cut, ("bottom", "top"), strict=True):
        if share > CUT:
            text = f"lungs cut off at the {end}, at {_percent(share)} of their largest area"
            yield Oddity(5 if share > CUT_WIDELY else 2, text)


def _by_lesions(
    lesions: Sequence[LesionFacts], was_segmented: bool, is_crop: bool = False
) -> Iterator[Oddity]:
    if not lesions:
        nothing = (4, "no lesion was found") if was_segmented else (1, "no lesion: no outline is known")
        yield Oddity(*nothing)
    for lesion in lesions:
        name = f"lesion {lesion.label}" if len(lesions) > 1 else "lesion"
        if lesion.in_lungs == 0 and lesion.from_lungs_mm is not None:
            far = lesion.from_lungs_mm > FAR_MM
            yield Oddity(7 if far else 3, f"{name} outside the lungs, {lesion.from_lungs_mm:.0f} mm away")
        if lesion.median_hu < IN_AIR_HU:
            yield Oddity(5, f"{name} lies in air: median {lesion.median_hu:.0f} HU")
        if lesion.volume_ml < TINY_ML:
            yield Oddity(2, f"{name} is tiny: {lesion.volume_ml:.3f} mL")
        if lesion.volume_ml > HUGE_ML:
            yield Oddity(3, f"{name} is very large: {lesion.volume_ml:.0f} mL")
        if lesion.at_end:
            # Crops are cut close to their lesion: worth knowing, and no reason to look at each of them.
            yield Oddity(1 if is_crop else 3, f"{name} reaches the first or last slice")


def _percent(share: float) -> str:
    """Return a share in per cent, with two digits below 1 %.

    >>> _percent(0.0012), _percent(0.354), _percent(1.0)
    ('0.12 %', '35 %', '100 %')
    """
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.2g} %"
