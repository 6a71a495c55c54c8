"""Attention priors as people and programs give them: never quite where the lesion is."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, find_objects

from radiogen.training.settings import TrainingSettings
from radiogen.volume import FloatArray

Mask = npt.NDArray[np.bool_]
GROWTH = (0.5, 1.5)  # a box that is much too large: its faces move out by this share of the lesion's width
BESIDE = (0.25, 0.5)  # a box partly beside: shifted by this share of the lesion's width


def drawn_box(lesion: Mask, training: TrainingSettings, chance: np.random.Generator) -> FloatArray:
    """The box round a lesion of a patch as a person would draw it; 1 inside, 0 outside.

    Its faces are shifted (`box_jitter`) and moved out (`box_loosen`); a share of the boxes
    (`box_careless`) is much too large or partly beside the lesion. Where the lesion reaches out of the
    patch, so does the box.

    Args:
        lesion: The lesion in the patch as the network will see it, not empty.
        training: How far.
        chance: Decides alone what is drawn.
    """
    careless: Literal["", "large", "beside"] = ""
    if chance.random() < training.box_careless:
        careless = "large" if chance.random() < 0.5 else "beside"
    widest = training.box_jitter + training.box_loosen
    prior = np.zeros(lesion.shape, np.float32)
    slices = []
    for edge, size in zip(find_objects(lesion.astype(np.uint8))[0], lesion.shape, strict=True):
        width = edge.stop - edge.start
        out_low, out_high = chance.uniform(-training.box_jitter, widest, size=2) * width
        grown, shift = chance.uniform(*GROWTH, size=2) * width, chance.uniform(*BESIDE) * width
        shift *= chance.choice([-1, 1])
        if careless == "large":
            out_low, out_high = grown
        if careless == "beside":
            out_low, out_high = out_low - shift, out_high + shift
        low = 0 if edge.start == 0 else round(edge.start - out_low)
        high = size if edge.stop == size else round(edge.stop + out_high)
        low = int(np.clip(low, 0, size - 1))
        slices.append(slice(low, int(np.clip(high, low + 1, size))))
    prior[tuple(slices)] = 1.0
    return prior


def rough_mask(lesion: Mask, chance: np.random.Generator) -> FloatArray:
    """A mask that is up to three voxels too large."""
    rounds = int(chance.integers(0, 4))
    rough = binary_dilation(lesion, iterations=rounds) if rounds else lesion
    return np.asarray(rough, dtype=np.float32)
