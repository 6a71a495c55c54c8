"""The classifiers that are judged side by side in the same folds: the model and what it must beat."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier

from radiogen.egfr.classifiers import make_baseline, make_classifier
from radiogen.egfr.cohort import EgfrCohort, number_sites
from radiogen.egfr.feature_table import places_of
from radiogen.egfr.harmonise import SITE
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.stability import choose_stable
from radiogen.egfr.tuning import TunedClassifier, derive_seed
from radiogen.errors import TableError

DEEP_PREFIX = "deep_"
SHUFFLED = "shuffled features"  # negative control: each patient has the features of another one
OUTSIDE = "lung outside"  # negative control: the same features of lung far from the lesion
SHUFFLES = 5  # a single shuffle comes out at 0.9 now and then in a small cohort

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Candidate:
    """A classifier not yet fitted, with the numbers it sees: the clinical columns first, then features."""

    name: str
    inputs: Floats  # (patients, columns)
    clinical_columns: tuple[str, ...]
    feature_columns: tuple[str, ...]
    settings: EgfrSettings
    baseline: bool  # logistic regression on all columns, whatever the settings say
    measured: Floats | None = None  # (patients, repeats, features) of perturbed masks
    draws: int = 1  # least number of repeats it is judged in

    def build(self, seed: int, train: Rows) -> TunedClassifier | DummyClassifier:
        """The classifier, unfitted; which features are stable is known from the patients `train`."""
        clinical, features = len(self.clinical_columns), len(self.feature_columns)
        if clinical + features == 0:
            return DummyClassifier(strategy="prior")
        if self.baseline:
            return make_baseline(clinical + features, self.settings.inner_folds, seed)
        kept = None
        if self.measured is not None:
            kept = choose_stable(self.measured[train], self.settings.stable)
        places = places_of(self.feature_columns)
        return make_classifier(self.settings, clinical, features, seed, kept, places)

    def inputs_of(self, repeat: int, seed: int) -> Floats:
        """What it sees in one repeat; only the shuffled control sees another thing in each."""
        if self.name != SHUFFLED:
            return self.inputs
        order = np.random.default_rng(derive_seed(seed, 5, repeat)).permutation(len(self.inputs))
        clinical = len(self.clinical_columns)
        return np.hstack([self.inputs[:, :clinical], self.inputs[order, clinical:]])


def list_candidates(cohort: EgfrCohort, settings: EgfrSettings) -> dict[str, Candidate]:
    """All that the tables allow: majority, site, clinical, volume, the features in their blocks, controls.

    Columns that start with `deep_` are the deep block, the others radiomics.

    Raises:
        TableError: The inputs of the settings are not in the tables.
    """
    clinical, features = cohort.clinical, cohort.features
    sites = pd.get_dummies(pd.Series(cohort.sites, index=features.index), dtype=float, prefix="site")
    nothing = pd.DataFrame(index=features.index)
    found = {"majority": _candidate("majority", nothing, nothing, settings, baseline=True)}
    if sites.shape[1] > 1:
        found["site"] = _candidate("site", sites, nothing, settings, baseline=True)
    if clinical.shape[1]:
        found["clinical"] = _candidate("clinical", clinical, nothing, settings, baseline=True)
    if cohort.volume_column in features.columns:
        volume = features[[cohort.volume_column]]
        found["volume"] = _candidate("volume", nothing, volume, settings, baseline=True)
    if settings.harmonise and len(cohort.hospitals) < 2:
        raise TableError("tables", "name no two hospitals to harmonise", "leave --harmonise out")
    for name, block in _blocks(features).items():
        found[name] = _candidate(name, nothing, block, settings, cohort)
        if clinical.shape[1] and name != "radiomics":
            found[f"clinical+{name}"] = _candidate(f"clinical+{name}", clinical, block, settings, cohort)
    if features.shape[1] and "features" in settings.inputs:
        used = clinical if settings.inputs == "clinical+features" else nothing
        found[SHUFFLED] = _candidate(SHUFFLED, used, features, settings, cohort, draws=SHUFFLES)
        if cohort.outside.shape[1]:
            found[OUTSIDE] = _candidate(OUTSIDE, used, cohort.outside, settings, cohort)
    if settings.inputs not in found:
        raise TableError(
            "tables", f"do not hold the inputs {settings.inputs}", f"take one of {', '.join(found)}"
        )
    return found


def _blocks(features: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Radiomics and deep apart where there are both, then all together."""
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
    measured = None
    if cohort is not None and cohort.measured is not None and name != OUTSIDE:
        places = cohort.features.columns.get_indexer(features.columns)
        measured = cohort.measured[:, :, places]
    if cohort is not None and settings.harmonise:
        codes = pd.Series(number_sites(cohort.sites, cohort.hospitals), features.index, name=SITE)
        features = pd.concat([codes, features], axis=1)
    inputs = np.hstack([clinical.to_numpy(dtype=float), features.to_numpy(dtype=float)])
    columns = tuple(map(str, clinical.columns)), tuple(map(str, features.columns))
    return Candidate(name, inputs, *columns, settings, baseline, measured, draws)
