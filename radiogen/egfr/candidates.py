"""List the classifiers that are compared in the same folds: the model, its baselines, and two controls.

The controls must fail. Shuffled features: each patient has the features of another one. Lung outside: the
same features of lung far from every lesion; if they do as well as the lesion, the model reads the scan (the
hospital, the scanner, the lungs) and not the tumour. No model ever gets those columns.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier

from radiogen.egfr.classifiers import TunedClassifier, make_baseline, make_classifier
from radiogen.egfr.cohort import EgfrCohort, number_sites
from radiogen.egfr.feature_table import count_instances
from radiogen.egfr.preprocessing import SITE, choose_stable
from radiogen.egfr.settings import EgfrSettings, SeedStream, derive_seed
from radiogen.errors import TableError

DEEP_PREFIX = "deep_"
SHUFFLED, OUTSIDE = "shuffled features", "lung outside"  # the controls
SHUFFLES = 5  # in a cohort of 23 a single shuffle once gave an AUC of 0.88

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Candidate:
    """A classifier not yet fitted, with its inputs: the clinical columns first, then the features."""

    name: str
    inputs: Floats  # (patients, columns)
    clinical_columns: tuple[str, ...]
    feature_columns: tuple[str, ...]
    settings: EgfrSettings
    baseline: bool  # logistic regression on all columns, whatever the settings say
    perturbed: Floats | None = None  # (patients, repeats, features) under perturbed masks
    draws: int = 1  # smallest number of repeats of the cross-validation

    def build(self, seed: int, train: Rows) -> TunedClassifier | DummyClassifier:
        """Return the classifier, not yet fitted; the rows `train` decide which features are stable."""
        clinical, features = len(self.clinical_columns), len(self.feature_columns)
        if clinical + features == 0:
            return DummyClassifier(strategy="prior")
        if self.baseline:
            return make_baseline(clinical + features, self.settings.inner_folds, seed)
        kept = None
        if self.perturbed is not None:
            kept = choose_stable(self.perturbed[train], self.settings.stable)
        instances = count_instances(self.feature_columns)
        return make_classifier(self.settings, clinical, features, seed, kept, instances)

    def inputs_of(self, repeat: int, seed: int) -> Floats:
        """Return the inputs in one repeat; only the shuffled control has others in each repeat."""
        if self.name != SHUFFLED:
            return self.inputs
        order = np.random.default_rng(derive_seed(seed, SeedStream.SHUFFLED_FEATURES, repeat)).permutation(
            len(self.inputs)
        )
        clinical = len(self.clinical_columns)
        return np.hstack([self.inputs[:, :clinical], self.inputs[order, clinical:]])


def list_candidates(cohort: EgfrCohort, settings: EgfrSettings) -> dict[str, Candidate]:
    """Return all candidates that the tables allow, by name, in the order of the report.

    These are majority, site, clinical, volume, the features in their blocks, and the controls. Columns that
    start with `deep_` are the deep block, the others radiomics.

    Raises:
        TableError: The inputs of the settings are not in the tables.
    """
    clinical, features = cohort.clinical, cohort.features
    sites = pd.get_dummies(pd.Series(cohort.sites, index=features.index), dtype=float, prefix="site")
    no_columns = pd.DataFrame(index=features.index)
    candidates = {"majority": _candidate("majority", no_columns, no_columns, settings, baseline=True)}
    if sites.shape[1] > 1:
        candidates["site"] = _candidate("site", sites, no_columns, settings, baseline=True)
    if clinical.shape[1]:
        candidates["clinical"] = _candidate("clinical", clinical, no_columns, settings, baseline=True)
    if cohort.volume_column in features.columns:
        volume = features[[cohort.volume_column]]
        candidates["volume"] = _candidate("volume", no_columns, volume, settings, baseline=True)
    if settings.harmonise and len(cohort.hospitals) < 2:
        raise TableError("tables", "do not name two hospitals to harmonise", "leave --harmonise out")
    for name, block in _blocks(features).items():
        candidates[name] = _candidate(name, no_columns, block, settings, cohort)
        if clinical.shape[1] and name != "radiomics":
            candidates[f"clinical+{name}"] = _candidate(f"clinical+{name}", clinical, block, settings, cohort)
    if features.shape[1] and "features" in settings.inputs:
        used = clinical if settings.inputs == "clinical+features" else no_columns
        candidates[SHUFFLED] = _candidate(SHUFFLED, used, features, settings, cohort, draws=SHUFFLES)
        if cohort.outside.shape[1]:
            candidates[OUTSIDE] = _candidate(OUTSIDE, used, cohort.outside, settings, cohort)
    if settings.inputs not in candidates:
        raise TableError(
            "tables", f"do not hold the inputs {settings.inputs}", f"take one of {', '.join(candidates)}"
        )
    return candidates


def _blocks(features: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return radiomics and deep features apart where there are both, then all features together."""
    deep = features[[name for name in features.columns if name.startswith(DEEP_PREFIX)]]
    radiomics = features.drop(columns=deep.columns)
    both = bool(deep.shape[1] and radiomics.shape[1])
    blocks = {"radiomics": radiomics, "deep": deep} if both else {}
    return {**blocks, "features": features} if features.shape[1] else blocks


def _candidate(
    name: str,
    clinical: pd.DataFrame,
    features: pd.DataFrame,
    settings: EgfrSettings,
    cohort: EgfrCohort | None = None,
    baseline: bool = False,
    draws: int = 1,
) -> Candidate:
    perturbed = None
    if cohort is not None and cohort.perturbed is not None and name != OUTSIDE:
        columns = cohort.features.columns.get_indexer(features.columns)
        perturbed = cohort.perturbed[:, :, columns]
    if cohort is not None and settings.harmonise:
        codes = pd.Series(number_sites(cohort.sites, cohort.hospitals), features.index, name=SITE)
        features = pd.concat([codes, features], axis=1)
    return Candidate(
        name=name,
        inputs=np.hstack([clinical.to_numpy(dtype=float), features.to_numpy(dtype=float)]),
        clinical_columns=tuple(map(str, clinical.columns)),
        feature_columns=tuple(map(str, features.columns)),
        settings=settings,
        baseline=baseline,
        perturbed=perturbed,
        draws=draws,
    )
