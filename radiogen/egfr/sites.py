"""Does the model hold in a hospital it has not seen, and within each hospital?"""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from radiogen.egfr.candidates import Candidate
from radiogen.egfr.cohort import EgfrCohort
from radiogen.egfr.folds import derive_seed
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.statistics import bootstrap_auc, brier, calibration
from radiogen.egfr.validation import OutOfFold

FEWEST = 5  # patients of each class in a hospital for an AUC to be given


def judge_sites(
    candidate: Candidate, said: OutOfFold, cohort: EgfrCohort, settings: EgfrSettings
) -> dict[str, Any]:
    """For each hospital: the AUC of a model of the other hospitals, and that of the folds within it.

    Where the overall AUC is much better than both, the model has learned to tell hospitals apart. A hospital
    with fewer than five patients of a class, or with so few left elsewhere, is given without figures.
    """
    sites = np.array(cohort.sites)
    judged: dict[str, Any] = {}
    for site, count in sorted(Counter(cohort.sites).items()):
        here = sites == site
        labels = cohort.labels[here]
        entry: dict[str, Any] = {"patients": count, "positives": int(labels.sum())}
        if site and _enough(labels) and _enough(cohort.labels[~here]):
            rng = np.random.default_rng(derive_seed(settings.seed, 3))
            within = bootstrap_auc(said.scores[:, here], labels, settings.bootstraps, rng)
            model = candidate.build(derive_seed(settings.seed, 4), np.flatnonzero(~here))
            model.fit(candidate.inputs[~here], cohort.labels[~here])
            probabilities = model.predict_proba(candidate.inputs[here])[:, 1]
            slope, intercept = calibration(probabilities, labels)
            entry |= {
                "auc_within": asdict(within),
                "auc_left_out": asdict(bootstrap_auc(probabilities, labels, settings.bootstraps, rng)),
                "brier_left_out": brier(probabilities, labels),
                "calibration_slope_left_out": slope,
                "calibration_intercept_left_out": intercept,
            }
        judged[site or "unknown"] = entry
    return judged if len(judged) > 1 else {}


def _enough(labels: np.ndarray[Any, Any]) -> bool:
    return bool(min(labels.sum(), len(labels) - labels.sum()) >= FEWEST)
