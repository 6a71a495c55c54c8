"""Plan and do the runs of the segmentation benchmark: RA-Seg dense, with pruned weights, or narrower."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from radiogen.config import Settings
from radiogen.errors import CaseError, ConfigError
from radiogen.evaluation.case import EvaluateOptions
from radiogen.evaluation.evaluate import evaluate
from radiogen.io.cases import cases_of_split
from radiogen.model.folder import WEIGHTS, load_model
from radiogen.model.priors import PriorName
from radiogen.networks.raseg import weight_count
from radiogen.provenance import RunRecord, write_json
from radiogen.pruning.channel_choice import ChannelSettings
from radiogen.pruning.settings import CriterionSettings, Scope
from radiogen.segmentation.segment import SegmentOptions, segment
from radiogen.training.prune import PrunedNetwork, PruneOptions, prune
from radiogen.training.settings import RunSettings, TrainOptions
from radiogen.training.train import train

Structure = Literal["dense", "weight", "channel"]


@dataclass(frozen=True)
class Variant:
    """One run: the dense network, one with a share of the weights removed, or of the channels kept."""

    structure: Structure
    criterion: str
    share: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder: `weight-fts-0_9-42`, `dense-0`."""
        share = f"{self.share:g}".replace(".", "_") if self.share else ""
        parts = (self.structure, self.criterion, share, str(self.seed))
        return "-".join(part for part in parts if part)


def plan_variants(
    criteria: Sequence[str], sparsities: Sequence[float], keep: Sequence[float], seeds: Sequence[int]
) -> list[Variant]:
    """Return all runs, each once, those of a seed together.

    Args:
        criteria: Criteria by which weights and channels are scored.
        sparsities: Shares of the weights that are removed.
        keep: Shares of the channels that stay.
        seeds: Of weights, patches and scores.

    Raises:
        ConfigError: A share of channels is not one.
    """
    for share in keep:
        if not 0 < share < 1:
            raise ConfigError(f"--keep {share:g}", "is not a share to keep", "give shares between 0 and 1")
    plans = []
    for seed in seeds:
        plans.append(Variant("dense", "", 0.0, seed))
        for criterion in criteria:
            plans += [Variant("weight", criterion, sparsity, seed) for sparsity in sparsities]
            plans += [Variant("channel", criterion, share, seed) for share in keep]
    return list(dict.fromkeys(plans))


class VariantSettings(Settings):
    """The settings of the segmentation benchmark, beside cases, variant and seed.

    Attributes:
        preset: Name of the preset that `run` starts from.
        prior: Prior of the networks in the test.
    """

    preset: str = "modern"
    run: RunSettings = RunSettings()
    scope: Scope = "global"  # of the weights; channels narrow all layers alike
    samples: int = Field(32, ge=1, description="patches that are scored")
    prior: PriorName = "box"


@dataclass(frozen=True)
class SegmentationBench:
    """A segmentation benchmark in its folder; called with a variant, it does that run."""

    cases: Path
    settings: VariantSettings
    runs: Path

    def __call__(self, variant: Variant, device: torch.device) -> None:
        """Prune, train, segment the cases of the split `test`, evaluate; then NAME.json and its record.

        Raises:
            RadiogenError: The run cannot be done.
        """
        home = self.runs / variant.name
        record = RunRecord("benchmark segmentation-pruning", asdict(variant), variant.seed)
        pruned = None if variant.structure == "dense" else self._prune(variant, home / "pruned", device)
        start = pruned.folder if pruned else None
        training = TrainOptions(preset=self.settings.preset, seed=variant.seed, pruned=start)
        trained = train(self.cases, home / "model", self.settings.run, training, device)
        model = load_model(home / "model", device)
        options = SegmentOptions(prior=self.settings.prior, split="test", picture=False)
        segmented = segment(self.cases, home / "segmented", model, options)
        without_outline = {case.case_id for case in cases_of_split(self.cases, "test") if not case.has_lesion}
        # A test case that failed would make the mean one over other cases than those of the other variants.
        for case_id, reason, hint in segmented.failures:
            if case_id not in without_outline:
                raise CaseError(case_id, reason, hint)
        evaluation = evaluate(
            home / "segmented", self.cases, home / "evaluation.csv", EvaluateOptions(split="test")
        )
        for case_id, reason, hint in evaluation.failures:
            raise CaseError(case_id, reason, hint)
        found = evaluation.summary[0]
        result: dict[str, Any] = {
            **asdict(variant),
            "dice": found["dice_mean"],
            "prompt": found["prompt"],
            "test_cases": found["n"],
            # A Dice with a box of the true outline says little without that of the box alone.
            "dice_of_the_box": found["floor_box_mean"],
            "loss": trained.metrics["epochs"][-1]["loss"],
            "collapsed": [row.name for row in pruned.layers if row.is_cut] if pruned else [],
            "weights": weight_count(model.network),
            "not_zero": sum(int(weight.count_nonzero()) for weight in model.network.parameters()),
            "checkpoint_bytes": (home / "model" / WEIGHTS).stat().st_size,
        }
        write_json(self.result(variant), result)
        record.device = str(device)
        record.finish(self.result(variant))

    def result(self, variant: Variant) -> Path:
        """Return the file of a run's numbers."""
        return self.runs / f"{variant.name}.json"

    def _prune(self, variant: Variant, out: Path, device: torch.device) -> PrunedNetwork:
        """Prune a network by the variant; a network without any path is a result here."""
        settings, of_channels = self.settings, variant.structure == "channel"
        # Channels are removed by their own share: no single weight is masked as well.
        sparsity = 0.0 if of_channels else variant.share
        criterion = CriterionSettings.model_validate(
            {"criterion": variant.criterion, "sparsity": sparsity, "scope": settings.scope}
        )
        options = PruneOptions(
            preset=settings.preset,
            seed=variant.seed,
            criterion=criterion,
            samples=settings.samples,
            allow_collapse=True,
            channels=ChannelSettings(target="keep", share=variant.share) if of_channels else None,
        )
        return prune(self.cases, out, settings.run, options, device)
