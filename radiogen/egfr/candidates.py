"""The classifiers that are judged side by side in the same folds: the model and what it must beat."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier

from radiogen.egfr.classifiers import make_baseline, make_classifier
from radiogen.egfr.cohort import EgfrCohort
from radiogen.egfr.folds import derive_seed
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.tuning import TunedClassifier
from radiogen.errors import TableError

DEEP_PREFIX = "deep_"
SHUFFLED = "shuffled features"  # the negative control: each patient has the features of another one


@dataclass(frozen=True)
class Candidate:
    """A classifier not yet fitted, with the numbers it sees: the clinical columns first, then features."""

    name: str
    inputs: NDArray[np.float64]
    clinical_columns: tuple[str, ...]
    feature_columns: tuple[str, ...]
    settings: EgfrSettings
    baseline: bool  # logistic regression on all columns, whatever the settings say

    def build(self, seed: int) -> TunedClassifier | DummyClassifier:
        """The classifier, unfitted."""
        clinical, features = len(self.clinical_columns), len(self.feature_columns)
        if clinical + features == 0:
            return DummyClassifier(strategy="prior")
        if self.baseline:
            return make_baseline(clinical + features, self.settings.inner_folds, seed)
        return make_classifier(self.settings, clinical, features, seed)


def list_candidates(cohort: EgfrCohort, settings: EgfrSettings) -> dict[str, Candidate]:
    """All that the tables allow: majority, site, clinical, volume, and the features in their blocks.

    Columns that start with `deep_` are the deep block, the others radiomics.

    Raises:
        TableError: The inputs of the settings are not in the tables.
    """
    clinical, features = cohort.clinical, cohort.features
    sites = pd.get_dummies(pd.Series(cohort.sites, index=features.index), dtype=float, prefix="site")
    nothing = pd.DataFrame(index=features.index)
    deep = features[[name for name in features.columns if name.startswith(DEEP_PREFIX)]]
    radiomics = features.drop(columns=deep.columns)
    found = {"majority": _candidate("majority", nothing, nothing, settings, baseline=True)}
    if sites.shape[1] > 1:
        found["site"] = _candidate("site", sites, nothing, settings, baseline=True)
    if clinical.shape[1]:
        found["clinical"] = _candidate("clinical", clinical, nothing, settings, baseline=True)
    if settings.volume_column in features.columns:
        volume = features[[settings.volume_column]]
        found["volume"] = _candidate("volume", nothing, volume, settings, baseline=True)
    both = bool(deep.shape[1] and radiomics.shape[1])
    blocks = {"radiomics": radiomics, "deep": deep} if both else {}
    if features.shape[1]:
        blocks["features"] = features
    for name, block in blocks.items():
        found[name] = _candidate(name, nothing, block, settings)
        if clinical.shape[1] and name != "radiomics":
            found[f"clinical+{name}"] = _candidate(f"clinical+{name}", clinical, block, settings)
    if features.shape[1] and "features" in settings.inputs:
        order = np.random.default_rng(derive_seed(settings.seed, len(features))).permutation(len(features))
        shuffled = features.iloc[order].set_axis(features.index)
        used = clinical if settings.inputs == "clinical+features" else nothing
        found[SHUFFLED] = _candidate(SHUFFLED, used, shuffled, settings)
    if settings.inputs not in found:
        raise TableError(
            "tables", f"do not hold the inputs {settings.inputs}", f"take one of {', '.join(found)}"
        )
    return found


def _candidate(
    name: str, clinical: pd.DataFrame, features: pd.DataFrame, settings: EgfrSettings, baseline: bool = False
) -> Candidate:
    inputs = np.hstack([clinical.to_numpy(dtype=float), features.to_numpy(dtype=float)])
    return Candidate(
        name, inputs, tuple(map(str, clinical.columns)), tuple(map(str, features.columns)), settings, baseline
    )
