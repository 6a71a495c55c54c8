"""Make lesions of the structures that were chosen: which of them are one, and which stay apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.io.polygons import BoolArray
from radiogen.measures.lesions import MOST_LESIONS, split_lesions
from radiogen.volume import array_of, volume_like, voxel_ml


@dataclass(frozen=True)
class Part:
    """One structure on the grid of the CT, shape (z, y, x)."""

    name: str
    inside: BoolArray


@dataclass(frozen=True)
class Lesions:
    """Lesion labels 1..n by falling size, the structures each is made of, and what was decided."""

    labels: sitk.Image
    names: tuple[str, ...]
    decisions: tuple[str, ...]


def lesions_of(parts: Sequence[Part], ct: sitk.Image, source: Path) -> Lesions:
    """Label the lesions of one or several structures.

    Structures that share voxels are one lesion; structures that only touch stay two. Within them every
    connected part is a lesion of its own (parts that touch by a corner are one).

    Raises:
        OutlineError: There are more lesions than a mask can hold.
    """
    groups, said = _overlapping(parts, ct)
    found: list[tuple[int, str, BoolArray, int]] = []  # voxels, name, labels of the group, label within
    for group in groups:
        inside = np.logical_or.reduce([part.inside for part in group])
        labels = array_of(split_lesions(volume_like(inside.astype(np.uint8), ct)))
        name = " + ".join(part.name for part in group)
        counts = np.bincount(labels.ravel())
        found += [(int(counts[label]), name, labels, label) for label in range(1, len(counts))]
    if len(found) > MOST_LESIONS:
        raise OutlineError(source, f"holds {len(found)} lesions, a mask {MOST_LESIONS}", "choose fewer")
    found.sort(key=lambda one: -one[0])
    if len(groups) == 1:  # already numbered by size
        return Lesions(volume_like(found[0][2], ct), tuple(name for _, name, _, _ in found), tuple(said))
    numbered = np.zeros(ct.GetSize()[::-1], dtype=np.uint8)
    for number, (_, _, labels, label) in enumerate(found, start=1):
        numbered[labels == label] = number
    return Lesions(volume_like(numbered, ct), tuple(name for _, name, _, _ in found), tuple(said))


def _overlapping(parts: Sequence[Part], ct: sitk.Image) -> tuple[list[list[Part]], list[str]]:
    groups: list[list[Part]] = []
    said = []
    for part in parts:
        met = []
        for group in groups:
            for other in group:
                if shared := int((part.inside & other.inside).sum()):
                    ml = shared * voxel_ml(ct)
                    said.append(f"{other.name} and {part.name} share {ml:.3f} ml and are one lesion")
                    met.append(group)
        joined = [one for group in groups if group in met for one in group] + [part]
        groups = [group for group in groups if group not in met] + [joined]
    return groups, said
