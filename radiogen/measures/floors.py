"""The floors: the Dice that needs no network, of filling the box of a lesion with and without a threshold.

A network that is shown the box of a lesion has to do better than these. The box may be exact, loosened or
jittered: a floor is fair where it knows the same box as the network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from radiogen.measures.detection import NumberedLesions

# Denser than aerated lung and looser than bone: what a solid or part-solid nodule is made of.
TISSUE_HU = (-300.0, 250.0)
# Fat and air lie below the first of these HU of a box round a nodule, the nodule's core above the second.
MID_PERCENTILES = (10, 90)
FLOORS = (
    "floor_box",
    "floor_ellipsoid",
    "floor_threshold",
    "floor_threshold_ellipsoid",
    "floor_mid_threshold_ellipsoid",
)
FLOOR_WORDS = {
    "floor_box": "the box filled",
    "floor_ellipsoid": "the ellipsoid in the box",
    "floor_threshold": "a threshold in the box",
    "floor_threshold_ellipsoid": "a threshold within the ellipsoid",
    "floor_mid_threshold_ellipsoid": "a mid-threshold within the ellipsoid",
}

Voxels = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class BoxFaces:
    """The faces of a box round a lesion, in voxels along z, y, x; voxel i reaches from i - 0.5 to i + 0.5."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @property
    def size(self) -> Floats:
        """Voxels along z, y, x."""
        return np.subtract(self.high, self.low)


def exact_boxes(lesions: NumberedLesions) -> list[BoxFaces]:
    """Return the exact box of each lesion, by number."""
    return [
        BoxFaces(_triple([side.start - 0.5 for side in where]), _triple([side.stop - 0.5 for side in where]))
        for where in lesions.boxes()
    ]


def loosen_box(faces: BoxFaces, share: float) -> BoxFaces:
    """Make a box longer by a share of its length on each axis, half of it at either end.

    Each end moves outward by whole voxels, the next that suffice, since a box that a person draws ends on a
    slice. So a nodule on three thick slices gets one slice more at either end from any share above 0.

    >>> loosen_box(BoxFaces((9.5, 9.5, 9.5), (39.5, 109.5, 12.5)), 0.1)
    BoxFaces(low=(7.5, 4.5, 8.5), high=(41.5, 114.5, 13.5))
    """
    # Less 1e-9: 0.1 / 2 * 20 is one voxel, not two by rounding.
    grow = np.ceil(share / 2 * faces.size - 1e-9)
    return BoxFaces(_triple(faces.low - grow), _triple(faces.high + grow))


def jitter_box(faces: BoxFaces, draw: Floats, share: float) -> BoxFaces:
    """Shift each face of a box by up to a share of the box's size along that axis.

    Args:
        faces: The exact box.
        draw: (2, 3), uniform in [-1, 1]: of the low and the high face along z, y, x.
        share: Below 0.5. The box always keeps the voxel in its middle, so that no nodule of one slice loses
            its box.
    """
    # Faces stop at the middle voxel from either side, so that low stays at or below high.
    middle = np.floor(np.add(faces.low, faces.high) / 2)
    low = np.minimum(faces.low + share * draw[0] * faces.size, middle)
    high = np.maximum(faces.high + share * draw[1] * faces.size, middle)
    return BoxFaces(_triple(low), _triple(high))


def measure_floors(
    lesions: NumberedLesions, boxes: Sequence[BoxFaces], hu: npt.NDArray[np.number] | None
) -> dict[str, float]:
    """Measure the Dice of five guesses that know a box for every lesion of a scan and nothing else.

    The box filled; the ellipsoid that touches its six faces; of either the voxels from -300 to 250 HU; of
    the ellipsoid those above the mid-threshold, the mean of the 10th and the 90th percentile of the HU in the
    box.

    Args:
        lesions: Lesions of the reference.
        boxes: One each, by number; parts beyond the voxels are left out.
        hu: On the same voxels; without it the floors by threshold are NaN.

    Returns:
        By the names of `FLOORS`; all NaN where there is no lesion, for there is no box.
    """
    # Without a lesion there is no box, and a floor of 0 would flatter the network.
    if not len(lesions):
        return dict.fromkeys(FLOORS, nan)
    guess_of_scan: dict[str, Voxels] = {}
    for box in boxes:
        where, guesses = _guesses(box, lesions.numbers.shape, hu)
        for name, guess in guesses.items():
            # Boxes of neighbours may overlap: the guess of a scan is the union of those of its lesions.
            guess_of_scan.setdefault(name, np.zeros(lesions.numbers.shape, np.bool_))[where] |= guess
    inside = lesions.numbers > 0
    dice = {
        name: _dice(guess, inside, int(np.count_nonzero(inside))) for name, guess in guess_of_scan.items()
    }
    return {name: dice.get(name, nan) for name in FLOORS}


def measure_lesion_floors(
    lesions: NumberedLesions, boxes: Sequence[BoxFaces], hu: npt.NDArray[np.number] | None
) -> list[dict[str, float]]:
    """Measure the floors of every lesion by itself: its own box against its own voxels, by number."""
    sizes = np.bincount(lesions.numbers[lesions.numbers > 0], minlength=len(lesions) + 1)
    listed = []
    for number, box in enumerate(boxes, start=1):
        where, guesses = _guesses(box, lesions.numbers.shape, hu)
        inside = lesions.numbers[where] == number
        dice = {name: _dice(guess, inside, int(sizes[number])) for name, guess in guesses.items()}
        listed.append({name: dice.get(name, nan) for name in FLOORS})
    return listed


def unknown_floors(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the floors that are not known in every row, and so are compared with nothing.

    Those by threshold need a CT, and a table of an older version lacks the mid-threshold: a mean over the
    rows that have one would be of other scans.
    """
    return [name for name in FLOORS if any(row[name] is None for row in rows)]


def best_floor(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the floor with the highest mean over rows; None where no floor is known in every row.

    Chosen after the fact on the same scans, it is if anything too good: a difference to it is conservative.

    Args:
        rows: Of a table of an evaluation, with the columns `FLOORS`.
    """
    known = [name for name in FLOORS if name not in unknown_floors(rows)] if rows else []
    return max(known, key=lambda name: mean(row[name] for row in rows)) if known else None


def _guesses(
    box: BoxFaces, shape: tuple[int, ...], hu: npt.NDArray[np.number] | None
) -> tuple[Slices, dict[str, Voxels]]:
    """Return where a box lies on the voxels, and the five guesses there: voxels whose centre is inside."""
    # A voxel counts where its centre lies inside; parts of the box beyond the volume are left out.
    starts = [max(0, int(np.ceil(low))) for low in box.low]
    stops = [min(n, int(np.floor(high)) + 1) for high, n in zip(box.high, shape, strict=True)]
    z, y, x = (slice(start, max(start, stop)) for start, stop in zip(starts, stops, strict=True))
    middle, half = np.add(box.low, box.high) / 2, box.size / 2
    squares = []  # of the distance from the middle in half axes; their sum is 1 on the ellipsoid
    for side, center, reach in zip((z, y, x), middle, half, strict=True):
        # At least half a voxel, for a jittered box may be thinner than one, or flat.
        squares.append(((np.arange(side.start, side.stop) - center) / max(reach, 0.5)) ** 2)
    along_z, along_y, along_x = np.ix_(*squares)
    ellipsoid = np.asarray(along_z + along_y + along_x <= 1)
    guesses = {"floor_box": np.ones_like(ellipsoid), "floor_ellipsoid": ellipsoid}
    if hu is not None:
        near = hu[z, y, x]
        tissue = (near >= TISSUE_HU[0]) & (near <= TISSUE_HU[1])
        # Follows the lesion where a fixed threshold fails: ground glass, partial volume, a dense background.
        middle_hu = np.percentile(near, MID_PERCENTILES).mean() if near.size else nan
        guesses |= {
            "floor_threshold": tissue,
            "floor_threshold_ellipsoid": tissue & ellipsoid,
            "floor_mid_threshold_ellipsoid": (near >= middle_hu) & ellipsoid,
        }
    return (z, y, x), guesses


def _dice(guess: Voxels, lesion: Voxels, lesion_voxels: int) -> float:
    """Return the Dice where the lesion may reach out of the region that is compared."""
    return 2 * int(np.count_nonzero(guess & lesion)) / (int(np.count_nonzero(guess)) + lesion_voxels)


def _triple(values: Sequence[float] | Floats) -> tuple[float, float, float]:
    z, y, x = (float(value) for value in values)
    return z, y, x
