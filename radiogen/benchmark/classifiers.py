"""One run of the classifier benchmark: warm up, score, prune, train, test."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn

from radiogen.benchmark.images import ImageSet, read_image_set
from radiogen.benchmark.plans import DENSE, RunPlan
from radiogen.benchmark.protocol import (
    ImageEpoch,
    ImagesOnDevice,
    ProtocolSettings,
    ScoringImages,
    accuracy,
    classification_loss,
    train_classifier,
)
from radiogen.config import Settings
from radiogen.networks.classifiers import OUTPUT_LAYER, build_classifier
from radiogen.provenance import RunRecord, write_json
from radiogen.pruning.choosing import choose_weights
from radiogen.pruning.prunable import prunable
from radiogen.pruning.scoring import Scoring
from radiogen.pruning.settings import CriterionSettings, FisherScale, Scope, WeightMasks
from radiogen.pruning.warmup import WarmUpSettings, warm_up
from radiogen.pruning.weight_masks import apply_weight_masks, save_weight_masks

SCORING_SEED = 100_003  # added to the seed, so that scores and controls draw other numbers than the weights


class ClassifierSettings(Settings):
    """The settings of the classifier benchmark, beside images, criterion, sparsity and seed.

    Attributes:
        network: Name of the classifier.
        width: Channels of its first stage; else the usual.
        warmup: Against layer collapse, before the scoring.
        scope: Over which weights the scores compete.
        fisher_scale: Factor of the Fisher term of fts and fbss.
    """

    network: str = "resnet18"
    width: PositiveInt | None = None
    training: ProtocolSettings = ProtocolSettings()
    warmup: Literal["none", "bn", "epoch"] = "epoch"
    scope: Scope = "global"
    fisher_scale: FisherScale = "batch"
    samples: int | None = Field(
        10, ge=1, description="images of each class that are scored; none: all of them"
    )
    held_out: float = Field(0.0, ge=0, lt=1, description="share of the training images that is left out")
    scoring_batch: int = Field(1, ge=1, description="images in a mini-batch of the scoring, one in the paper")


@dataclass(frozen=True)
class ClassifierBench:
    """A classifier benchmark in its folder; called with a plan, it does that run."""

    source: Path
    side: int
    limit: int | None
    settings: ClassifierSettings
    runs: Path  # folder of the results

    def __call__(self, plan: RunPlan, device: torch.device) -> None:
        """Write NAME.safetensors (weight masks), NAME.json (the result), NAME.run.json (last).

        Raises:
            RadiogenError: The run cannot be done.
        """
        record = RunRecord("benchmark pruning", asdict(plan), seed=plan.seed, device=str(device))
        images = read_images(self.source, self.side, self.limit)
        run = _Run(plan, self.settings, images, device)
        result, masks = run.perform()
        outputs = [self.result(plan)]
        if masks:
            save_weight_masks(self.masks(plan), masks, asdict(plan))
            outputs.append(self.masks(plan))
        write_json(self.result(plan), result)
        record.finish(self.result(plan), outputs)

    def result(self, plan: RunPlan) -> Path:
        """Return the file of a run's numbers."""
        return self.runs / f"{plan.name}.json"

    def masks(self, plan: RunPlan) -> Path:
        """Return the file of a run's weight masks."""
        return self.runs / f"{plan.name}.safetensors"


# A worker process does many runs, and a picklable bench carries no images: each reads them once.
@lru_cache(maxsize=1)
def read_images(source: Path, side: int, limit: int | None) -> ImageSet:
    """Return the images of a benchmark, read once in each process."""
    return read_image_set(source, side).limited(limit)


class _Run:
    """A run with its images, its network and its random numbers."""

    def __init__(
        self, plan: RunPlan, settings: ClassifierSettings, images: ImageSet, device: torch.device
    ) -> None:
        self.plan, self.settings = plan, settings
        learned = images.train.without(settings.held_out)
        self.train = ImagesOnDevice(learned, learned, device)
        # Standardised by the training images: statistics of the test images would leak.
        self.test = ImagesOnDevice(images.test, learned, device)
        channels, classes = learned.pixels.shape[1], len(images.classes)
        self.network = build_classifier(settings.network, channels, classes, plan.seed, settings.width)
        self.network.to(device)
        self.rng = torch.Generator().manual_seed(plan.seed + SCORING_SEED)

    def perform(self) -> tuple[dict[str, Any], WeightMasks]:
        """Return the numbers of the run, and its weight masks; a dense network has none."""
        plan, training = self.plan, self.settings.training
        warm = WarmUpSettings(
            kind=self.settings.warmup,
            rate=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
        # The epoch after the last: the warm-up must not see the mini-batches of the training beforehand.
        first = ImageEpoch(self.train, training, plan.seed, training.epochs)
        warm_up(self.network, first, classification_loss, warm, self.rng)
        about, masks = (_about_dense(self.network), {}) if plan.criterion == DENSE else self._prune()
        # Tested after the last epoch: the best one would be chosen on the test images.
        losses = train_classifier(self.network, self.train, training, masks, plan.seed)
        result = {
            **asdict(plan),
            "accuracy": accuracy(self.network, self.test),
            **about,
            "loss": losses,
        }
        return result, masks

    def _prune(self) -> tuple[dict[str, Any], WeightMasks]:
        plan, settings = self.plan, self.settings
        scoring_set = ScoringImages(self.train, settings.samples, settings.scoring_batch, plan.seed)
        criterion = CriterionSettings.model_validate(
            {
                "criterion": plan.criterion,
                "sparsity": plan.sparsity,
                "scope": settings.scope,
                "fisher_scale": settings.fisher_scale,
            }
        )
        # `radiogen prune` refuses a network without any path; in a benchmark that is a result.
        choice = choose_weights(
            self.network,
            scoring_set,
            classification_loss,
            criterion,
            self.rng,
            [OUTPUT_LAYER],
            plan.control or "none",
            allow_collapse=True,
        )
        apply_weight_masks(self.network, choice.masks)
        return {
            "weights": sum(row.weights for row in choice.layers),
            "kept": sum(row.kept for row in choice.layers),
            "collapsed": [row.name for row in choice.layers if row.is_cut],
            **_about_scoring(choice.scoring),
        }, {name: mask.cpu() for name, mask in choice.masks.items()}


def _about_dense(network: nn.Module) -> dict[str, Any]:
    weights = sum(weight.numel() for weight in prunable(network, [OUTPUT_LAYER]).values())
    return {"weights": weights, "kept": weights, "collapsed": []}


def _about_scoring(scoring: Scoring) -> dict[str, Any]:
    terms = scoring.second_order
    return {
        "samples_scored": scoring.samples,
        "second_to_first": terms.ratio if terms and terms.first else None,
    }
