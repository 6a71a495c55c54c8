"""Which features are computed, and what stands beside the table about it."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from radiogen.config import Settings
from radiogen.errors import ConfigError
from radiogen.features.deep import LEVELS


class FeatureOptions(Settings):
    """Which features are computed."""

    levels: tuple[str, ...] = LEVELS  # of the network, from which deep features are taken
    ring_mm: tuple[float, float] | None = None  # lung between these distances from the lesion's surface
    lungs: bool = False  # pool over both lungs as well
    paper: bool = False  # the published 8192 in their place
    outside: bool = True  # the same of lung far from the lesion: a negative control
    radiomics: bool = False
    radiomics_parameters: Path | dict[str, Any] | None = None  # a PyRadiomics parameter file, or its content
    perturb: int = Field(default=0, ge=0)  # repeats with perturbed masks
    patches: int = Field(default=0, ge=0, le=16)  # pieces of each lesion, for a classifier that pools bags
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
            raise ValueError("paper is of the whole lungs as published; leave ring and lungs out")
        if self.paper and self.patches:
            raise ValueError("paper has no lesion that could be cut; leave patches out")
        return self

    def described(self) -> dict[str, Any]:
        """All that decides a number of the table, without the place of a file."""
        how = {"split", "batch", "existing", "radiomics_parameters"}
        return self.model_dump(mode="json", exclude=how)

    def extractor(self) -> dict[str, Any]:
        """What a table must share with the one a classifier learned from."""
        return self.model_dump(mode="json", include={"levels", "ring_mm", "lungs", "paper"})

    @classmethod
    def like(cls, extractor: dict[str, Any], **others: Any) -> Self:
        """The options that give the features of an extractor again, as a table's JSON describes it."""
        shared = cls().extractor()
        known = {name: extractor[name] for name in shared if name in extractor}
        radiomics = extractor.get("radiomics")
        if radiomics:
            others |= {"radiomics": True, "radiomics_parameters": radiomics["parameters"]}
        return cls(**known, **others)


def parse_ring(text: str) -> tuple[float, float]:
    """Two distances in millimetres.

    Raises:
        ConfigError: They are not two rising numbers.

    >>> parse_ring("2,10")
    (2.0, 10.0)
    """
    try:
        first, last = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--ring {text}", "is not two numbers", "write 2,10 for 2 to 10 mm") from error
    return first, last
