"""One volume through a model: prompt in, lesion mask on the scanner's grid out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch

from radiogen.engines.inference import predict, window_round
from radiogen.engines.model_folder import Model
from radiogen.errors import ConfigError
from radiogen.measures.lesions import split_lesions
from radiogen.preprocess.network_input import NetworkInput, to_array, to_network_grid
from radiogen.preprocess.priors import BoxMm, PriorName, box_prior, box_voxels, mask_prior
from radiogen.volume import FloatArray, array_of, bounding_box, crop, resample_to, volume_like, voxel_ml

BOX_MARGIN_MM = 5.0  # a lesion may reach this far out of its box
LUNG_MARGIN_MM = 10.0  # a lesion may lie this far from the lungs (a tumour in the wall or the hilum)


@dataclass(frozen=True)
class Prompt:
    """Where the network is told to look."""

    prior: PriorName
    boxes: tuple[BoxMm, ...] = ()
    mask: sitk.Image | None = None


@dataclass(frozen=True)
class Segmentation:
    """Lesions 1..n on the scanner's grid, and what was decided on the way."""

    lesion: sitk.Image
    decisions: tuple[str, ...]


def segment_volume(
    model: Model, ct: sitk.Image, lungs: sitk.Image, prompt: Prompt, smallest_ml: float = 0.03
) -> Segmentation:
    """Segment the lesions of one CT.

    Args:
        model: A loaded model.
        ct: HU.
        lungs: Lung mask on the same grid.
        prompt: With boxes each box gives one lesion; else every connected part is one.
        smallest_ml: Parts below this volume are left out (not of boxes).

    Raises:
        ConfigError: A box or mask that does not reach the lungs.
        CaseError: The lung mask is empty.
    """
    asked = _asked_for(ct, prompt)
    sample = to_network_grid(ct, lungs, asked, model.config.preprocessing)
    if prompt.boxes:
        return _segment_boxes(model, ct, sample, prompt.boxes)
    prior = _whole_prior(sample, prompt)
    window = model.config.preprocessing.size
    probability = predict(
        model.network, to_array(sample, model.config.preprocessing), prior, window, _device(model)
    )
    found = _on_scanner_grid(probability, sample, ct) >= model.config.threshold
    return _clean(sitk.Cast(found, sitk.sitkUInt8), lungs, smallest_ml)


def _device(model: Model) -> torch.device:
    return next(model.network.parameters()).device


def _asked_for(ct: sitk.Image, prompt: Prompt) -> sitk.Image | None:
    """What the prompt points at, as a mask on the CT's grid, so that the network's grid holds it."""
    if prompt.boxes:
        inside = np.any([box_voxels(box, ct) for box in prompt.boxes], axis=0)
        return volume_like(inside.astype(np.uint8), ct)
    if prompt.mask is not None:
        return resample_to(prompt.mask, ct, outside=0, nearest=True)
    return None


def _whole_prior(sample: NetworkInput, prompt: Prompt) -> FloatArray:
    if prompt.prior == "lungs":
        return mask_prior(sample.lungs)
    if prompt.prior == "none":
        return np.ones(sample.ct.GetSize()[::-1], np.float32)
    if prompt.mask is None or sample.lesion is None:
        raise ConfigError(f"--prior {prompt.prior}", "comes without its box or mask", "give --box or --mask")
    prior = mask_prior(sample.lesion)
    if not prior.any():
        raise ConfigError("--mask", "holds no voxel of the CT", "give a mask of this patient")
    return prior


def _segment_boxes(
    model: Model, ct: sitk.Image, sample: NetworkInput, boxes: Sequence[BoxMm]
) -> Segmentation:
    """One window and one lesion a box; where two lesions meet, the more probable one wins."""
    preprocessing = model.config.preprocessing
    image = to_array(sample, preprocessing)
    lungs = array_of(sample.lungs) != 0
    best = np.zeros(ct.GetSize()[::-1], np.float32)
    lesion = np.zeros(best.shape, np.uint8)
    decisions = []
    for label, box in enumerate(boxes, start=1):
        if not lungs[box_voxels(box, sample.ct, LUNG_MARGIN_MM)].any():
            corners = f"{box.low} to {box.high} mm"
            raise ConfigError(f"box {corners}", "lies outside the lungs", "give x0,y0,z0,x1,y1,z1 in LPS mm")
        prior = box_prior(box, sample.ct)
        near = window_round(prior > 0, preprocessing.size)
        probability = np.zeros(prior.shape, np.float32)
        probability[near] = predict(
            model.network, image[(slice(None), *near)], prior[near], preprocessing.size, _device(model)
        )
        probability[~box_voxels(box, sample.ct, BOX_MARGIN_MM)] = 0.0
        on_scanner = array_of(_on_scanner_grid(probability, sample, ct))
        wins = (on_scanner >= model.config.threshold) & (on_scanner > best)
        wins &= box_voxels(box, ct, BOX_MARGIN_MM)  # resampling smears over the edge of the network's voxels
        lesion[wins], best[wins] = label, on_scanner[wins]
        if not wins.any():
            decisions.append(f"box {label}: nothing above the threshold {model.config.threshold:g}")
    return Segmentation(volume_like(lesion, ct), tuple(decisions))


def _on_scanner_grid(probability: FloatArray, sample: NetworkInput, ct: sitk.Image) -> sitk.Image:
    """Probabilities on the whole of the scanner's grid; 0 outside the lungs' box."""
    on_network = volume_like(probability, sample.ct)
    piece = resample_to(on_network, crop(ct, sample.roi), outside=0.0)
    whole = sitk.Image(ct.GetSize(), sitk.sitkFloat32)
    whole.CopyInformation(ct)
    return sitk.Paste(whole, piece, piece.GetSize(), destinationIndex=sample.roi.start)


def _clean(found: sitk.Image, lungs: sitk.Image, smallest_ml: float) -> Segmentation:
    """Leave out what is too small or lies away from the lungs, and say so."""
    kept = split_lesions(found, smallest_ml)
    labels = array_of(kept)
    decisions = []
    small_ml = (np.count_nonzero(array_of(found)) - np.count_nonzero(labels)) * voxel_ml(found)
    if small_ml > 0:
        decisions.append(f"{small_ml:.2f} ml in parts below {smallest_ml:g} ml left out")
    away = [label for label in range(1, int(labels.max()) + 1) if not _is_near(kept == label, lungs)]
    if away:
        away_ml = np.isin(labels, away).sum() * voxel_ml(kept)
        decisions.append(f"{len(away)} parts of {away_ml:.2f} ml away from the lungs left out")
        labels[np.isin(labels, away)] = 0
        kept = split_lesions(volume_like(labels, kept))
    return Segmentation(kept, tuple(decisions))


def _is_near(part: sitk.Image, lungs: sitk.Image) -> bool:
    box = bounding_box(part, LUNG_MARGIN_MM)
    return box is not None and bool(array_of(crop(lungs, box)).any())
