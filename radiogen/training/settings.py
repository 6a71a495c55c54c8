"""Settings of a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from radiogen.config import Settings, load_settings, read_yaml
from radiogen.errors import ConfigError
from radiogen.model.network_input import Preprocessing
from radiogen.model.priors import PriorName
from radiogen.networks.raseg import RASegSettings
from radiogen.training.augmentation import Augmentation


class TrainingSettings(Settings):
    """How a network is trained. Optimiser, epochs and rate of the paper are unpublished: our choice.

    Attributes:
        optimizer: `adamw` or `sgd`.
        learning_rate: At the start.
        weight_decay: Of the optimiser.
        epochs: How long.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: float = Field(1e-2, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    decay_power: float = Field(0.9, ge=0, description="rate = learning_rate (1 - epoch/epochs)^decay_power")
    epochs: PositiveInt = 100
    batch_size: PositiveInt = Field(2, description="patches in a mini-batch of each process")
    accumulate: PositiveInt = Field(1, description="mini-batches to a step, as if they were one batch")
    patches_per_case: PositiveInt = Field(2, description="patches drawn from each case in an epoch")
    gradient_norm: PositiveFloat = Field(12.0, description="longer gradients are cut to this length")
    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which the model says lesion")
    least_candidate: float = Field(
        0.5,
        ge=0,
        le=1,
        description="mean probability of a part of the first look of `auto` to be a candidate",
    )
    dice: Literal["batch", "patch"] = Field("batch", description="what Dice is taken over in the loss")
    priors: tuple[PriorName, ...] = Field(
        ("box", "lungs", "none"), min_length=1, description="drawn equally often; one may stand twice"
    )
    lesion_share: float = Field(0.75, ge=0, le=1, description="share of patches that hold a lesion")
    box_jitter: float = Field(0.15, ge=0, le=0.5, description="shift of a box's faces, share of its size")
    box_loosen: float = Field(0.15, ge=0, le=1, description="how far faces may also move out")
    box_careless: float = Field(0.1, ge=0, le=1, description="share of boxes far too large or partly beside")
    box_empty: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of boxes drawn round tissue without a lesion, where nothing is found",
    )
    lungs_empty: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of patches without box or mask that lie anywhere over lung and get no made lesion",
    )
    lung_share: float = Field(0.2, gt=0, le=1, description="least share of lung in a patch without a lesion")
    augmentation: Augmentation = Augmentation()
    synthetic_lesions: float = Field(0.0, ge=0, le=1, description="share of patches that get a made lesion")
    synthetic_mm: tuple[PositiveFloat, PositiveFloat] = Field((4.0, 90.0), description="their diameters")
    synthetic_outside: Literal["always", "box", "never"] = Field(
        "box", description="which patches may get a made tumour whose middle lies outside the lungs"
    )
    cohort_draws: dict[str, PositiveInt] = Field(
        {}, description="how often as much cases of a cohort are drawn"
    )
    lungs_only_cohorts: tuple[str, ...] = Field((), description="cohorts whose true lesions are never seen")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="of the mean of the weights; 0 takes the weights")
    validate_every: int = Field(0, ge=0, description="epochs between validations; 0 only after the last")
    patience: int = Field(0, ge=0, description="validations without a better one before it ends; 0 never")
    checkpoint_minutes: float = Field(5.0, ge=0, description="between checkpoints; 0 after every step")
    checkpoint_activations: bool = Field(False, description="less memory, a third more time; same result")
    tensorboard: bool = Field(False, description="write events for TensorBoard too")
    workers: int = Field(0, ge=0, description="processes that draw patches")
    amp: bool = Field(True, description="mixed precision on CUDA")
    amp_cpu: bool = Field(False, description="and in bfloat16 on a CPU that has the instructions for it")
    channels_last: bool = Field(True, description="memory layout, on CUDA only")
    compile: bool = Field(False, description="by torch.compile; dropout then draws otherwise")

    @property
    def prior_names(self) -> tuple[PriorName, ...]:
        """Each of the priors once."""
        return tuple(dict.fromkeys(self.priors))


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
