"""Per-mini-batch weight gradients from one backward pass over several: torch's own kernel, once for each."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.instance_norm import instance_norm, is_stock_instance_norm
from radiogen.pruning.joined import joined_loss
from radiogen.pruning.layer_kernels import (
    input_gradient,
    is_narrow_at_its_end,
    output_of,
    sloped,
    wants_channels_last,
)
from radiogen.pruning.memory_order import channels_last
from radiogen.pruning.moments import MomentSums
from radiogen.pruning.prunable import PRUNABLE_MODULES
from radiogen.pruning.settings import Batch, Loss
from radiogen.pruning.weight_gradients import Use, add_gradients


def native_chunk(
    sums: MomentSums,
    model: nn.Module,
    chunk: list[Batch],
    loss: Loss,
    weights: Mapping[str, nn.Parameter],
) -> None:
    """Add the gradients of some mini-batches of one shape.

    Forward and input gradients run over all of them together, and the weight gradient of each layer is taken
    for one mini-batch at a time, as soon as its last use in the network is known. Rows of a layer's input
    must come in the order of the mini-batches, and weights must be used by their own modules; the caller
    checks that by comparing with the loop.

    Raises:
        PruningError: A weight is none of a plain convolution or linear layer.
    """
    collector = Collector(sums, len(chunk))
    with _tapped(model, weights, collector), torch.enable_grad():
        total = joined_loss(model, chunk, loss)
        if total.requires_grad:
            torch.autograd.grad(total, [collector.anchor], allow_unused=True)
    collector.finish()
    sums.count(chunk)


class Collector:
    """Gathers the uses of each layer in one pass and turns them into gradients."""

    def __init__(self, sums: MomentSums, parts: int) -> None:
        self.sums = sums
        self.parts = parts
        self.anchor = torch.zeros((), requires_grad=True)  # makes every tapped layer part of the graph
        self.is_channels_last = False  # how volumes lie in memory
        self._awaited: dict[str, int] = {}
        self._uses: dict[str, list[Use]] = {}
        self._modules: dict[str, nn.Module] = {}

    def expect(self, name: str, module: nn.Module) -> None:
        """A layer ran forward."""
        self._awaited[name] = self._awaited.get(name, 0) + 1
        self._modules[name] = module

    def receive(self, name: str, use: Use) -> None:
        """A layer ran backward; after its last use the gradients are taken."""
        self._uses.setdefault(name, []).append(use)
        self._awaited[name] -= 1
        if self._awaited[name] == 0:
            self._take(name)

    def finish(self) -> None:
        """Take the gradients of layers of which some uses do not reach the loss."""
        for name in list(self._uses):
            self._take(name)

    def _take(self, name: str) -> None:
        by_shape: dict[tuple[int, ...], list[Use]] = {}
        for x, dy in self._uses.pop(name):
            use = (self._parted(x), self._parted(dy))
            by_shape.setdefault(tuple(use[0].shape[2:]), []).append(use)
        joined = [
            same[0]
            if len(same) == 1
            else (torch.cat([x for x, _ in same], 1), torch.cat([d for _, d in same], 1))
            for same in by_shape.values()
        ]
        add_gradients(self.sums, name, self._modules[name], joined)

    def _parted(self, tensor: Tensor) -> Tensor:
        if len(tensor) % self.parts:
            raise PruningError(
                "engine native", f"{len(tensor)} rows do not part into {self.parts}", "take engine loop"
            )
        return tensor.reshape(self.parts, -1, *tensor.shape[1:])


class _Tap(torch.autograd.Function):
    """A layer whose backward pass hands its input and output gradient to a collector, if it has a name."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _anchor: Tensor, name: str, module: nn.Module, to: Collector) -> Tensor:
        x = channels_last(x) if to.is_channels_last else x
        ctx.save_for_backward(x)
        ctx.told = (name, module, to)
        if name:
            to.expect(name, module)
        return output_of(module, x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        (x,) = ctx.saved_tensors
        name, module, to = ctx.told
        dy = channels_last(dy) if to.is_channels_last else dy
        dx = input_gradient(module, x, dy) if ctx.needs_input_grad[0] else None
        if name:
            to.receive(name, (x, dy))
        return dx, None, None, None, None


@contextmanager
def _tapped(model: nn.Module, weights: Mapping[str, nn.Parameter], to: Collector) -> Iterator[None]:
    names = {id(weight): name for name, weight in weights.items()}
    layers = [m for m in model.modules() if id(getattr(m, "weight", None)) in names]
    plain = {id(m.weight) for m in layers if _is_plain(m)} - {
        id(m.weight) for m in layers if not _is_plain(m)
    }
    for identity, name in names.items():
        if identity not in plain:
            raise PruningError(
                f"engine native: {name}", "is no weight of a plain layer", "take engine func or loop"
            )
    layers += [m for m in model.modules() if _is_plain(m) and m not in layers and is_narrow_at_its_end(m)]
    slopes = [m for m in model.modules() if _is_fixed_slope(m, names)]
    to.is_channels_last = to.parts > 1 and any(wants_channels_last(module) for module in layers)
    norms = [m for m in model.modules() if to.is_channels_last and is_stock_instance_norm(m)]
    try:
        for module in layers:
            module.forward = partial(_run, names.get(id(module.weight), ""), module, to)
        for module in slopes:
            module.forward = partial(sloped, slope=module.get_parameter("weight").item())
        for module in norms:
            module.forward = partial(instance_norm, module)
        yield
    finally:
        for module in [*layers, *slopes, *norms]:
            vars(module).pop("forward", None)


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer is one of torch's, or says by `computes_as` that it computes the same as one."""
    own, said = type(module).forward, getattr(module, "computes_as", None)
    stock = any(
        isinstance(module, kind) and (own is kind.forward or said is kind) for kind in PRUNABLE_MODULES
    )
    return stock and getattr(module, "padding_mode", "zeros") == "zeros" and "forward" not in vars(module)


def _is_fixed_slope(module: nn.Module, names: Mapping[int, str]) -> bool:
    """A PReLU of one slope that is not differentiated by: LeakyReLU is the same, and faster backward."""
    if not isinstance(module, nn.PReLU) or type(module).forward is not nn.PReLU.forward:
        return False
    return module.num_parameters == 1 and id(module.weight) not in names


def _run(name: str, module: nn.Module, to: Collector, *inputs: Tensor) -> Tensor:
    batched = 2 if isinstance(module, nn.Linear) else len(module.get_parameter("weight").shape)
    if len(inputs) != 1 or inputs[0].dim() < batched:
        raise PruningError(
            f"engine native: {name}", "is called in an unusual way", "take engine func or loop"
        )
    output: Tensor = _Tap.apply(inputs[0], to.anchor, name, module, to)  # type: ignore[no-untyped-call]
    return output
