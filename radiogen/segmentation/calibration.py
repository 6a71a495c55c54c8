"""Learn how probable the candidates of the automatic mode are lesions, on whole scans with known lesions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from radiogen.errors import CaseError
from radiogen.io.cases import Case, find_cases
from radiogen.io.nifti import read_mask
from radiogen.model.folder import CandidateModel, check_prior, load_model, write_candidates
from radiogen.runtime import Progress, no_progress
from radiogen.segmentation.automatic import FEATURES
from radiogen.segmentation.inference import Inference
from radiogen.segmentation.volume import AutoSettings, Prompt, SegmentationSettings, VolumeSegmenter
from radiogen.volume import array_of, resample_to

OWN_LESION = "own_lesion.nii.gz"  # of a scan to which lesions were added: what lies here is not judged
SAME_DICE = 0.2  # of a candidate and a known lesion, from which it is that lesion
LEAST_OF_EACH = 10  # lesions, and false candidates
FOLDS = 5
SURE = 0.8


@dataclass(frozen=True)
class KnownCandidate:
    """A candidate of which it is known whether it is a lesion."""

    patient_id: str
    features: dict[str, float]
    is_lesion: bool


def calibrate(
    folder: Path, cases: Path, device: str = "auto", progress: Progress = no_progress
) -> CandidateModel:
    """Fit the candidate model of a model folder on cases, and write it into its config.json.

    Args:
        folder: The model; trained with lungs and boxes.
        cases: Whole scans with their lesions outlined; one without an outline holds none. They should be
            other patients than those the network has learned from, or probabilities are too sure.
        device: Where the network runs.
        progress: Called with cases done.

    Raises:
        CaseError: There are too few lesions or false candidates to learn from.
        ModelError: The folder is an ensemble, or the model was not trained for `auto`.
    """
    model = load_model(folder, device)
    check_prior(model.config, "auto", folder)
    auto = AutoSettings(least_candidate=0.0, least_score=0.0)
    inference = Inference(model, SegmentationSettings(auto=auto))
    whole = [case for case in find_cases(cases) if not case.is_crop]
    known: list[KnownCandidate] = []
    for number, case in enumerate(whole, start=1):
        known += known_candidates(inference, case, SegmentationSettings(auto=auto))
        progress("calibrate", number, len(whole))
    fitted = fit(known, len(whole))
    write_candidates(folder, fitted)
    return fitted


def known_candidates(
    inference: Inference, case: Case, settings: SegmentationSettings
) -> list[KnownCandidate]:
    """Return the candidates of one case, without those that touch lesions which are not to be judged."""
    inference.begin()
    segmenter = VolumeSegmenter(inference, case.ct(), case.lungs(), Prompt("auto"), settings)
    judged = segmenter.judge_candidates(is_calibrated=True).judged
    grid = segmenter.sample.ct
    lesion = _on_grid(case.lesion(), grid) if case.has_lesion else np.zeros(segmenter.hu.shape, np.uint8)
    own = case.folder / OWN_LESION
    left_out = _on_grid(read_mask(own), grid) > 0 if own.is_file() else np.zeros(lesion.shape, bool)
    sizes = np.bincount(lesion.ravel(), minlength=2)
    known = []
    for each in judged:
        if left_out[each.region.box][each.voxels].any():
            continue
        shared = np.bincount(lesion[each.region.box][each.voxels], minlength=len(sizes))
        dice = 2 * shared[1:] / (sizes[1:] + np.count_nonzero(each.voxels))
        known.append(KnownCandidate(case.patient_id, each.features, bool((dice >= SAME_DICE).any())))
    return known


def _on_grid(mask: sitk.Image, grid: sitk.Image) -> npt.NDArray[np.uint8]:
    return np.asarray(array_of(resample_to(mask, grid, outside=0, nearest=True)), np.uint8)


def fit(known: Sequence[KnownCandidate], scans: int) -> CandidateModel:
    """Fit a logistic regression, and measure it on patients that were left out of the fit.

    Raises:
        CaseError: There are too few lesions or false candidates.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.array([[each.features[name] for name in FEATURES] for each in known])
    y = np.array([each.is_lesion for each in known], int)
    if min(y.sum(), len(y) - y.sum()) < LEAST_OF_EACH:
        wrong = f"give {y.sum()} lesions and {len(y) - y.sum()} false candidates, too few to learn from"
        raise CaseError("the cases", wrong, f"give scans with {LEAST_OF_EACH} and more of each")
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    patients = [each.patient_id for each in known]
    folds = min(FOLDS, len(set(patients)))
    measured = f"fitted on {len(y)} candidates of {scans} scans, {y.sum()} of them lesions"
    if folds > 1:
        by_patient = GroupKFold(folds)
        p = cross_val_predict(pipeline, x, y, groups=patients, cv=by_patient, method="predict_proba")[:, 1]
        right = y[p >= SURE]
        measured += (
            f"; left out by patient: AUC {roc_auc_score(y, p):.3f}, and {right.sum()} of the {len(right)} "
            f"candidates at {SURE:g} and more are lesions"
        )
    scaler, regression = (step for _, step in pipeline.fit(x, y).steps)
    return CandidateModel(
        features=FEATURES,
        means=tuple(scaler.mean_.tolist()),
        scales=tuple(scaler.scale_.tolist()),
        weights=tuple(regression.coef_[0].tolist()),
        intercept=float(regression.intercept_[0]),
        measured=measured,
    )
