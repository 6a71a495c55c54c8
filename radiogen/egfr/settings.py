"""Settings of the EGFR classifier and of how it is judged."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from radiogen.config import Settings

ClassifierName = Literal[
    "qda", "tree", "forest", "svc", "logistic", "elasticnet", "boosting", "mlp", "attention"
]
ReductionName = Literal["lda", "paper", "pca", "pls", "none"]
Inputs = Literal["features", "clinical", "clinical+features"]
ClinicalName = Literal["age", "sex", "smoking", "pack_years", "histology", "ethnicity"]


class EgfrSettings(Settings):
    """How the EGFR classifier is made and judged. Without features the model is the clinical one.

    The hospital is never an input, it is a confounder; it stands among the baselines instead.
    """

    classifier: ClassifierName = "logistic"
    reduction: ReductionName | None = None  # None: what the classifier is usually given
    components: int = Field(default=10, ge=1)  # of PCA; PLS takes at most 3 of them
    inputs: Inputs = "features"
    clinical_mapping: Path | None = None  # YAML of radiogen.io.clinical.ClinicalMapping
    clinical_columns: tuple[ClinicalName, ...] = (
        "age",
        "sex",
        "smoking",
        "pack_years",
    )  # inputs of the clinical model
    lesion: Literal["largest", "mean", "bag"] = "largest"  # by volume; bag: all of them, for attention
    volume_column: str = "shape_volume_ml"  # by which the largest lesion is found
    folds: int = Field(default=5, ge=2)  # of the cross-validation, by patient
    repeats: int = Field(default=5, ge=1)  # of it, each with other folds
    inner_folds: int = Field(default=3, ge=2)  # in which tuning, calibration and threshold are learned
    permutations: int = Field(default=200, ge=0)
    bootstraps: int = Field(default=2000, ge=100)  # draws of patients for the intervals
    stable: float = Field(default=0.0, ge=0, le=1)  # least ICC over perturbed masks; 0 asks for none
    harmonise: bool = False  # ComBat by hospital, inside the folds
    seed: int = Field(default=0, ge=0)
    jobs: int = 1
    device: str = "cpu"
    allow_overlap: bool = False
    id_column: str | None = None  # of a foreign table; its other columns need no features.json
    label_column: str | None = None
    positive: str = "mutant"

    def options(self) -> dict[str, Any]:
        """The settings as a run record holds them, without the place of a file."""
        return self.model_dump(mode="json", exclude={"clinical_mapping"})

    def fitting(self) -> dict[str, Any]:
        """The settings that decide what a model of given numbers becomes."""
        names = {
            "classifier",
            "reduction",
            "components",
            "inner_folds",
            "lesion",
            "stable",
            "harmonise",
            "device",
        }
        return self.model_dump(mode="json", include=names)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.jobs == 0:
            raise ValueError("jobs 0 is no number of processes; take 1, or -1 for all")
        if self.lesion == "bag" and self.classifier != "attention":
            raise ValueError("lesion bag needs the classifier attention, which pools the lesions")
        if self.lesion == "bag" and (self.stable or self.harmonise):
            raise ValueError("stable and harmonise are for one lesion a patient, not for a bag")
        return self
