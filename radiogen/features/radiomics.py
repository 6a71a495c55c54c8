"""Measure radiomics with PyRadiomics, under its own feature names and with its own parameter files."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from radiogen.config import read_yaml
from radiogen.errors import ConfigError
from radiogen.optional import require

# Bins 25 HU wide from a fixed zero, as is usual for CT. No resampling: interpolation changes textures.
DEFAULT_PARAMETERS: dict[str, Any] = {"setting": {"binWidth": 25, "label": 1}, "imageType": {"Original": {}}}


class Radiomics:
    """PyRadiomics with fixed settings.

    Args:
        parameters: A PyRadiomics parameter file (setting, imageType, featureClass) or its content; None
            takes bins of 25 HU on the original image, all feature classes.

    Raises:
        MissingPackageError: PyRadiomics is not installed.
        ConfigError: PyRadiomics refuses the parameters.
    """

    def __init__(self, parameters: Path | dict[str, Any] | None = None) -> None:
        package = require("radiomics", extra="radiomics")
        logging.getLogger("radiomics").setLevel(logging.CRITICAL)  # it logs what it raises
        self.version = str(package.__version__).lstrip("v")
        content = read_yaml(parameters) if isinstance(parameters, Path) else parameters
        self.parameters: dict[str, Any] = content or DEFAULT_PARAMETERS
        extractor = require("radiomics.featureextractor", extra="radiomics").RadiomicsFeatureExtractor
        try:
            with warnings.catch_warnings():  # its schema checker uses a deprecated import
                warnings.simplefilter("ignore", DeprecationWarning)
                self._extractor = extractor(self.parameters)
        except Exception as error:  # its schema checker has exceptions of its own
            source = parameters if isinstance(parameters, Path) else "radiomics"
            wrong = f"are no parameters of PyRadiomics: {' '.join(str(error).split())[:200]}"
            raise ConfigError(source, wrong, "see its documentation of parameter files") from error

    def measure(self, ct: sitk.Image, lesion: sitk.Image) -> dict[str, float]:
        """Return the features of one lesion, such as `original_firstorder_Mean`.

        Args:
            ct: HU.
            lesion: All that is not 0, on the grid of `ct`.

        Returns:
            Empty where PyRadiomics refuses the lesion, as it does one of a single voxel.
        """
        mask = sitk.Cast(lesion != 0, sitk.sitkUInt8)
        try:
            values: Mapping[str, Any] = self._extractor.execute(ct, mask, label=1)
        except ValueError:
            return {}
        return {name: float(value) for name, value in values.items() if not name.startswith("diagnostics_")}

    def about(self) -> dict[str, Any]:
        """Return what determines the numbers, for the JSON beside the table."""
        return {
            "package": "pyradiomics",
            "version": self.version,
            "parameters": self.parameters,
            "settings": dict(sorted(self._extractor.settings.items())),
            "image_types": dict(self._extractor.enabledImagetypes),
            "features": {kind: list(names or ()) for kind, names in self._extractor.enabledFeatures.items()},
        }
