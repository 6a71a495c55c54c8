"""Settings of a cohort run: which steps, and the options of each."""

from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from radiogen.config import Settings
from radiogen.features.settings import FeatureOptions
from radiogen.ingestion.options import IngestOptions
from radiogen.segmentation.segment import SegmentOptions

Step = Literal["ingest", "segment", "extract-features", "classify-egfr", "report"]
STEPS: tuple[Step, ...] = get_args(Step)
NEEDED = {"segment": "model", "extract-features": "model", "classify-egfr": "egfr"}


class CohortSettings(Settings):
    """What a run does with every case.

    Attributes:
        source: Folder of cases, or folder, zip archive or volume file of scans that are ingested first.
        steps: In their order.
        model: Model and ensemble folders: segment averages all networks, extract-features takes the first.
        egfr: EGFR model folder, for classify-egfr; the features are then those it learned from.
        clinical: Clinical table of classify-egfr and of ingest.
        clinical_mapping: YAML that names its columns.
        split: Only the cases of this split; of cases only.
        threads: Threads of the network in each worker. Part of the result: another number adds in another
            order, which changes last digits.
        device: Where networks run.
    """

    source: Path
    steps: tuple[Step, ...] = STEPS
    model: tuple[Path, ...] = ()
    egfr: Path | None = None
    clinical: Path | None = None
    clinical_mapping: Path | None = None
    split: str | None = None
    threads: int = Field(default=1, ge=1)
    device: str = "auto"
    ingest: IngestOptions = IngestOptions()
    segment: SegmentOptions = SegmentOptions()
    features: FeatureOptions = FeatureOptions()

    @field_validator("model", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return (value,) if isinstance(value, str | Path) else value or ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        order = [STEPS.index(step) for step in self.steps]
        if not order or order != sorted(set(order)):
            raise ValueError(f"name some of {', '.join(STEPS)}, each once and in this order")
        for step in self.steps:
            option = NEEDED.get(step)
            if option and not getattr(self, option):
                raise ValueError(f"the step {step} needs --{option}")
        if "classify-egfr" in self.steps and "extract-features" not in self.steps:
            raise ValueError("the step classify-egfr needs extract-features")
        if self.segment.box or self.segment.outline:
            raise ValueError("a box or outline is of one case; take the prior box, lungs, mask or none")
        return self

    @property
    def of_a_case(self) -> tuple[Step, ...]:
        """The steps that each case goes through by itself."""
        return tuple(step for step in self.steps if step in STEPS[:3])

    def described(self) -> dict[str, Any]:
        """Return what decides the results of a case, without places of files."""
        described = self.model_dump(mode="json", include={"of_a_case", "threads", "segment", "features"})
        described["steps"] = list(self.of_a_case)
        described["ingest"] = self.ingest.model_dump(mode="json", exclude={"jobs", "existing"})
        return described
