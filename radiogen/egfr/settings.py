"""Settings of the EGFR classifier and of its validation, and the seeds that follow from them."""

import re
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from radiogen.config import Settings

ClassifierName = Literal[
    "qda", "tree", "forest", "svc", "logistic", "elasticnet", "boosting", "mlp", "attention"
]
ReductionName = Literal["lda", "paper", "pca", "pls", "none"]
MARKER = "EGFR"
Inputs = Literal["features", "clinical", "clinical+features"]
ClinicalName = Literal["age", "sex", "smoking", "pack_years", "histology", "ethnicity"]


class EgfrSettings(Settings):
    """Options of the EGFR classifier and its validation. Without features the model is the clinical one.

    The hospital is never an input, since it is a confounder: in NSCLC-Radiogenomics 35 of 97 patients of one
    and 8 of 75 of the other are mutant. It stands among the baselines instead.
    """

    classifier: ClassifierName = "logistic"
    reduction: ReductionName | None = None  # None: the usual one of the classifier
    components: int = Field(default=10, ge=1)  # number of PCA components; PLS takes at most 3 of them
    inputs: Inputs = "features"
    clinical_mapping: Path | None = None  # YAML of radiogen.io.clinical.ClinicalMapping
    clinical_columns: tuple[ClinicalName, ...] = ("age", "sex", "smoking", "pack_years")
    """Inputs of the clinical model."""
    lesion: Literal["largest", "mean", "bag"] = "largest"  # by volume; bag: all of them, for attention
    volume_column: str | None = None  # by which the largest lesion is found; None: radiogen's or PyRadiomics'
    folds: int = Field(default=5, ge=2)  # folds of the cross-validation, by patient
    repeats: int = Field(default=5, ge=1)  # repeats of the cross-validation, each with other folds
    inner_folds: int = Field(default=3, ge=2)  # in which tuning, calibration and threshold are learned
    permutations: int = Field(default=200, ge=0)
    bootstraps: int = Field(default=2000, ge=100)  # draws of patients for the intervals
    stable: float = Field(default=0.0, ge=0, le=1)  # lowest ICC over perturbed masks; 0 keeps all features
    harmonise: bool = False  # ComBat by hospital, inside the folds
    seed: int = Field(default=0, ge=0)
    jobs: int = 1
    device: str = "cpu"
    allow_overlap: bool = False
    id_column: str | None = None  # id column of a foreign table, which needs no features.json
    id_pattern: str | None = None  # regular expression of the id within that column, or within a path
    label_column: str | None = None
    allow_columns: tuple[str, ...] = ()  # features that may separate the classes as no feature should
    positive: str = "mutant"
    target: str | None = None  # the marker; None: what label_column names, else EGFR
    target_column: str | None = None  # its column in the clinical table, where the header does not name it

    @property
    def marker(self) -> str:
        """Name of what is predicted, as every file and page calls it.

        >>> EgfrSettings(label_column="KRAS mutation status").marker
        'KRAS'
        """
        if self.target or not (self.target_column or self.label_column):
            return self.target or MARKER
        header = " ".join(str(self.target_column or self.label_column).split())
        name = re.sub(r"[ _](mutation|translocation)?[ _]?status$", "", header, flags=re.IGNORECASE)
        return MARKER if name.lower() == MARKER.lower() else name

    def options(self) -> dict[str, Any]:
        """Return the settings as a run record holds them, without the path of a file."""
        return self.model_dump(mode="json", exclude={"clinical_mapping"})

    def fit_settings(self) -> dict[str, Any]:
        """Return the settings on which a fitted model depends, beside its inputs."""
        names = "classifier reduction components inner_folds lesion stable harmonise device"
        return self.model_dump(mode="json", include=set(names.split()))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.jobs == 0:
            raise ValueError("jobs must not be 0; use 1, or -1 for all processors")
        if self.lesion == "bag" and self.classifier != "attention":
            raise ValueError(
                "lesion bag needs the classifier attention, which pools the lesions of a patient"
            )
        if self.lesion == "bag" and (self.stable or self.harmonise):
            raise ValueError(
                "stable and harmonise need one lesion per patient; they do not work with lesion bag"
            )
        return self


class SeedStream(IntEnum):
    """Second number of `derive_seed` for each random part, so that no two parts draw the same numbers."""

    PERMUTATIONS = 1
    BOOTSTRAPS = 2
    LEFT_OUT_BOOTSTRAPS = 3
    LEFT_OUT_MODELS = 4
    SHUFFLED_FEATURES = 5


def derive_seed(*numbers: int) -> int:
    """Return one seed made from several numbers; neighbouring numbers give unrelated streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)
