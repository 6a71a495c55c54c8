"""Presets: the settings of network, preprocessing and training under one name."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import model_validator

from radiogen.config import Settings, load_settings, read_yaml
from radiogen.training.settings import TrainingSettings
from radiogen.errors import ConfigError
from radiogen.networks.raseg import RASegSettings
from radiogen.model.network_input import Preprocessing

PRESET_FOLDER = Path(__file__).parent / "presets"
PRESETS = ("paper", "modern", "small")


class RunSettings(Settings):
    """All that decides a trained network, beside the cases and the seed."""

    network: RASegSettings = RASegSettings()
    preprocessing: Preprocessing = Preprocessing()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _channels(self) -> "RunSettings":
        windows = len(self.preprocessing.windows)
        if self.network.in_channels != windows:
            raise ValueError(f"network.in_channels {self.network.in_channels} must equal {windows} windows")
        return self


def load_preset(name: str, file: Path | None = None, overrides: Sequence[str] = ()) -> RunSettings:
    """The settings of a preset, with a YAML file and `key=value` pairs laid over it.

    Raises:
        ConfigError: An unknown preset or key, or a value that the settings refuse.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}", "is not a preset", f"there are {', '.join(PRESETS)}")
    return load_settings(RunSettings, read_yaml(PRESET_FOLDER / f"{name}.yaml"), file, overrides)
