"""Warm a network up before it is scored, against layer collapse."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from radiogen.config import Settings
from radiogen.errors import PruningError
from radiogen.pruning.settings import Batch, Loss, loss_of, read_batches, scoring_state


class WarmUpSettings(Settings):
    """How a network is warmed up before scoring; the rates are those of the paper's training."""

    kind: Literal["none", "bn", "epoch"] = "none"
    rate: float = Field(0.01, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)


@dataclass(frozen=True)
class WarmUp:
    """Result of a warm-up, with a sentence for the run record."""

    batches: int
    note: str


def warm_up(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    settings: WarmUpSettings,
    rng: torch.Generator | None = None,
) -> WarmUp:
    """Warm a network up, in place; training then starts from these weights.

    `bn` is one pass that changes nothing but the statistics of BatchNorm (the successor of arXiv:2502.11450),
    `epoch` one epoch of SGD (that paper). Modes, gradients and random state are left as they were found, and
    nothing of the optimiser outlives the call.

    Args:
        model: The network; changed in place.
        batches: Mini-batches of the size of training.
        loss: Mean loss of a mini-batch.
        settings: Kind and rates.
        rng: Gives the seed of dropout during the epoch.

    Raises:
        PruningError: There is no mini-batch, or the loss of the epoch is not finite.
    """
    if settings.kind == "none":
        return WarmUp(0, "no warm-up")
    if settings.kind == "bn":
        return _update_statistics(model, batches, loss)
    return _train_one_epoch(model, batches, loss, settings, rng)


def _update_statistics(model: nn.Module, batches: Iterable[Batch], loss: Loss) -> WarmUp:
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return WarmUp(0, "warm-up bn: without effect, the network has no BatchNorm")
    count = 0
    with scoring_state(model, differentiate=(), restore_buffers=False), torch.no_grad():
        # Only the norms learn; dropout and the rest stay as in evaluation.
        for norm in norms:
            norm.train()
        for batch in read_batches(batches):
            try:
                loss_of(model, batch, loss)
            except ValueError as error:
                raise PruningError("warm-up bn", str(error), "take larger mini-batches") from error
            count += 1
    return WarmUp(count, f"warm-up bn: statistics of {len(norms)} BatchNorm layers from {count} mini-batches")


def _train_one_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    settings: WarmUpSettings,
    rng: torch.Generator | None,
) -> WarmUp:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        trained, settings.rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    # The optimiser is dropped with its momentum: kept, it would move "pruned" weights in the first steps.
    count = 0
    with scoring_state(model, trained, restore_buffers=False):
        torch.manual_seed(rng.initial_seed() if rng else 0)
        model.train()
        for batch in read_batches(batches):
            optimizer.zero_grad()
            value = loss_of(model, batch, loss)
            if not bool(value.isfinite()):
                raise PruningError(
                    "warm-up epoch", f"the loss of mini-batch {count} is not finite", "lower the rate"
                )
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            count += 1
    return WarmUp(count, f"warm-up epoch: {count} steps of SGD, rate {settings.rate:g}")
