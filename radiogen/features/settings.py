"""Options of the feature extraction, and how a table describes them."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from radiogen.config import Settings
from radiogen.errors import ConfigError

LEVELS = ("encoder2", "decoder3", "decoder2")  # stages of RA-Seg


class FeatureOptions(Settings):
    """Which features are computed, and of which cases."""

    levels: tuple[str, ...] = LEVELS  # stages of the network from which deep features are taken
    ring_mm: tuple[float, float] | None = None  # lung between these distances from the lesion's surface
    lungs: bool = False  # deep features of both lungs as well
    paper: bool = False  # the published 8192 deep features in place of the others
    outside: bool = True  # the same features of lung far from the lesions: a negative control
    radiomics: bool = False
    radiomics_parameters: Path | dict[str, Any] | None = None  # a PyRadiomics parameter file, or its content
    perturb: int = Field(default=0, ge=0)  # number of perturbed masks a lesion
    patches: int = Field(default=0, ge=0, le=16)  # patches a lesion, for a classifier that pools a bag
    seed: int = Field(default=0, ge=0)  # of the perturbations
    split: str | None = None  # only the cases of this split
    batch: int = Field(default=1, ge=1)  # windows that go through the network at once
    existing: Literal["skip", "overwrite", "fail"] = "skip"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ring_mm is not None and not 0 <= self.ring_mm[0] < self.ring_mm[1] <= 50:
            raise ValueError("ring_mm must be two rising distances between 0 and 50")
        if not self.levels:
            raise ValueError("levels must name at least one level")
        if self.paper and (self.ring_mm or self.lungs):
            raise ValueError("the features of paper are those of the whole lungs; leave ring and lungs out")
        if self.paper and self.patches:
            raise ValueError("the features of paper have no patches of lesions; leave patches out")
        return self

    def for_record(self) -> dict[str, Any]:
        """Return all options that decide a number of the table, without the path of a file."""
        return self.model_dump(mode="json", exclude={"split", "batch", "existing", "radiomics_parameters"})

    def extractor(self) -> dict[str, Any]:
        """Return the options that a table must share with the one a classifier was trained on."""
        return self.model_dump(mode="json", include={"levels", "ring_mm", "lungs", "paper"})

    @classmethod
    def like(cls, extractor: dict[str, Any], **others: Any) -> Self:
        """Return the options that give the features of an extractor, as the JSON of a table describes it."""
        shared = cls().extractor()
        known = {name: extractor[name] for name in shared if name in extractor}
        radiomics = extractor.get("radiomics")
        if radiomics:
            others |= {"radiomics": True, "radiomics_parameters": radiomics["parameters"]}
        return cls(**known, **others)


def parse_ring(text: str) -> tuple[float, float]:
    """Parse the two distances of a ring, in millimetres.

    Raises:
        ConfigError: The text is not two numbers.

    >>> parse_ring("2,10")
    (2.0, 10.0)
    """
    try:
        first, last = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--ring {text}", "is not two numbers", "write 2,10 for 2 to 10 mm") from error
    return first, last
