"""Settings of a training, its presets, and the options of `radiogen train`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from radiogen.config import Settings, load_settings, read_yaml
from radiogen.errors import ConfigError
from radiogen.model.network_input import Preprocessing
from radiogen.model.priors import PriorName
from radiogen.networks.raseg import RASegSettings
from radiogen.runtime import AnyPath

PRESET_FOLDER = Path(__file__).parent / "presets"
PRESETS = ("paper", "modern", "small")
Share = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Settings):
    """Random changes of each patch. A share of 0, or a strength of 0, switches a change off."""

    flip: bool = Field(True, description="flip each axis in half of the patches")
    affine: Share = Field(0.5, description="share of patches that are rotated and scaled")
    rotation_deg: float = Field(15.0, ge=0, le=90, description="largest rotation about z; half about x, y")
    scale: float = Field(0.15, ge=0, le=0.5, description="largest growth or shrinkage, a share of the size")
    zoom: Share = Field(0, description="share of patches sampled at coarser voxels, as large boxes are")
    zoom_most: float = Field(1.6, ge=1, le=2, description="largest factor of that coarsening")
    elastic: Share = Field(0.3, description="share of patches with an elastic deformation")
    elastic_mm: float = Field(4.0, ge=0, le=10, description="largest shift of control points 32 mm apart")
    kernel: Share = Field(0.3, description="share of patches that are blurred or sharpened in plane")
    blur_mm: NonNegativeFloat = Field(1.0, description="largest standard deviation of the blur")
    sharpen: NonNegativeFloat = Field(1.0, description="largest share of the detail that is added once more")
    thick: Share = Field(0.2, description="share of patches with simulated thick slices")
    thickness_mm: NonNegativeFloat = Field(5.0, description="thickest simulated slice")
    dose: Share = Field(0.3, description="share of patches with spatially correlated noise")
    dose_hu: NonNegativeFloat = Field(40.0, description="largest standard deviation of the correlated noise")
    noise_hu: NonNegativeFloat = Field(25.0, description="largest standard deviation of white noise")
    shift_hu: NonNegativeFloat = Field(20.0, description="standard deviation of a patch's intensity shift")
    slope: float = Field(0.03, ge=0, lt=1, description="largest relative change of the intensity scale")


class TrainingSettings(Settings):
    """Settings of the training loop, its patches and its loss.

    The paper does not publish optimiser, epochs and learning rate: these are our choice.
    """

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="optimiser of the weights")
    learning_rate: PositiveFloat = Field(1e-3, description="learning rate of the first epoch")
    weight_decay: NonNegativeFloat = Field(1e-2, description="weight decay of the optimiser")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    decay_power: float = Field(0.9, ge=0, description="rate = learning_rate (1 - epoch/epochs)^decay_power")
    epochs: PositiveInt = Field(100, description="number of epochs")
    batch_size: PositiveInt = Field(2, description="patches in a mini-batch of each process")
    accumulate: PositiveInt = Field(1, description="mini-batches a step, the gradient as of one batch")
    patches_per_case: PositiveInt = Field(2, description="patches drawn from each case in an epoch")
    gradient_norm: PositiveFloat = Field(12.0, description="largest norm of the gradient; longer is clipped")
    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which a voxel counts as lesion")
    least_candidate: Share = Field(
        0.5, description="least mean probability of a candidate in the first pass of `auto`"
    )
    dice: Literal["patch", "batch"] = Field(
        "patch", description="Dice loss of each patch, or of the whole mini-batch of a process"
    )
    priors: tuple[PriorName, ...] = Field(
        ("box", "lungs", "none"), min_length=1, description="priors, drawn equally often; one may stand twice"
    )
    lesion_share: Share = Field(0.75, description="share of patches around a lesion")
    box_jitter: float = Field(
        0.15, ge=0, le=0.5, description="largest shift of a box's faces, a share of its size"
    )
    box_loosen: Share = Field(0.15, description="largest extra shift of the faces outwards")
    box_careless: Share = Field(0.1, description="share of boxes far too large or partly beside")
    box_empty: Share = Field(0.0, description="share of boxes around tissue without a lesion, target empty")
    lungs_empty: Share = Field(
        0.0, description="share of patches without box or mask that lie anywhere over lung, none added"
    )
    crops_in_scans: Share = Field(
        0.5, description="share of the point patches of a crop that show it laid into the lungs of a scan"
    )
    lung_share: float = Field(0.2, gt=0, le=1, description="least share of lung in a patch without a lesion")
    augmentation: Augmentation = Augmentation()
    synthetic_lesions: Share = Field(0.0, description="share of patches with a synthetic lesion")
    synthetic_mm: tuple[PositiveFloat, PositiveFloat] = Field(
        (4.0, 90.0), description="smallest and largest diameter of a synthetic lesion"
    )
    synthetic_outside: Literal["always", "box", "never"] = Field(
        "box", description="patches in which the centre of a synthetic tumour may lie outside the lungs"
    )
    cohort_draws: dict[str, PositiveInt] = Field({}, description="sampling weight per cohort; else 1")
    lungs_only_cohorts: tuple[str, ...] = Field((), description="cohorts whose true lesions are never shown")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="decay of the weight average; 0 switches it off")
    validate_every: int = Field(0, ge=0, description="epochs between validations; 0: only after the last")
    patience: int = Field(0, ge=0, description="validations without improvement before it stops; 0: never")
    checkpoint_minutes: float = Field(5.0, ge=0, description="minutes between checkpoints; 0: every step")
    checkpoint_activations: bool = Field(False, description="less memory, a third more time, same result")
    tensorboard: bool = Field(False, description="write TensorBoard events too")
    workers: NonNegativeInt = Field(0, description="processes that draw patches")
    amp: bool = Field(True, description="mixed precision on CUDA")
    amp_cpu: bool = Field(False, description="bfloat16 on CPUs that have instructions for it")
    channels_last: bool = Field(True, description="channels-last memory layout, on CUDA only")
    compile: bool = Field(False, description="torch.compile; dropout then draws other numbers")

    @property
    def prior_names(self) -> tuple[PriorName, ...]:
        """Each of the priors once."""
        return tuple(dict.fromkeys(self.priors))

    def check_cohorts(self, cohorts: set[str]) -> None:
        """Refuse the name of a cohort without a case: misspelt, it would show lesions that must not be seen.

        Raises:
            ConfigError: `cohort_draws` or `lungs_only_cohorts` names a cohort without a case.
        """
        named = {"cohort_draws": self.cohort_draws, "lungs_only_cohorts": self.lungs_only_cohorts}
        for key, names in named.items():
            absent = set(names) - cohorts
            if absent:
                hint = f"the cohorts are {', '.join(sorted(name or '(none)' for name in cohorts))}"
                raise ConfigError(f"training.{key}", f"names {min(absent)!r}, which has no case", hint)


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


class TrainOptions(Settings):
    """Options of one call of `train`; with `pruned` or `start`, the network must be that of the folder."""

    preset: str = Field("modern", description="name of the preset, for the model card")
    seed: int = Field(0, description="seed of weights, folds, patches and dropout")
    pruned: Path | None = Field(None, description="folder of `prune` to start from")
    start: Path | None = Field(None, description="model folder to start from")
    folds: int = Field(0, description="number of folds of patients; 0 trains on all")
    fold: int = Field(0, description="the fold that is held out, from 0")
    resume: bool = Field(True, description="continue an unfinished training in the output folder")
    existing: Literal["skip", "overwrite", "fail"] = Field(
        "skip", description="if the output exists: skip, overwrite or fail"
    )


def load_preset(name: str, file: AnyPath | None = None, overrides: Sequence[str] = ()) -> RunSettings:
    """Return the settings of a preset, changed by a YAML file and then by `key=value` pairs.

    Args:
        name: `paper`, `modern` or `small`.
        file: YAML file of settings.
        overrides: Pairs such as `training.epochs=50`; a dotted key reaches into nested settings.

    Raises:
        ConfigError: An unknown preset or key, or a value that the settings refuse.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}", "is not a preset", f"there are {', '.join(PRESETS)}")
    path = None if file is None else Path(file)
    return load_settings(RunSettings, read_yaml(PRESET_FOLDER / f"{name}.yaml"), path, overrides)
