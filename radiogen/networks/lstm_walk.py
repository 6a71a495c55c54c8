"""The hidden half of a convolutional LSTM: walked plainly, for a result only, or for its gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from radiogen.networks.tracing import is_traced

Convolution = Callable[[Tensor], Tensor]
"""What the gates hear of the last slice: hidden state (B, C, H, W) to (B, 4 C, H, W)."""


def walk(from_input: Tensor, hidden_gates: Convolution) -> Tensor:
    """The recurrence as it is written in papers; anything can watch, trace or differentiate it.

    Args:
        from_input: The input half of the gates at every slice, (D, B, 4 C, H, W), in the order input, forget,
            output, candidate.
        hidden_gates: The hidden half, from the hidden state of the slice before.

    Returns:
        The hidden state at every slice, (D, B, C, H, W).
    """
    hidden_states: list[Tensor] = []
    cell: Tensor | None = None
    for gates in from_input.unbind(0):
        if hidden_states:
            gates = gates + hidden_gates(hidden_states[-1])
        let_in, keep, let_out, candidate = gates.chunk(4, dim=1)
        new = torch.sigmoid(let_in) * torch.tanh(candidate)
        cell = new if cell is None else torch.sigmoid(keep) * cell + new
        hidden_states.append(torch.sigmoid(let_out) * torch.tanh(cell))
    return torch.stack(hidden_states)


def can_fuse(from_input: Tensor, hidden_gates: nn.Conv2d) -> bool:
    """Whether the walk may be done by hand: float32 on a CPU, where nobody watches the layer or traces it."""
    if is_traced() or torch._C._are_functorch_transforms_active():
        return False
    plain_float = from_input.device.type == "cpu" and from_input.dtype == torch.float32
    hooks = (hidden_gates._forward_hooks, hidden_gates._forward_pre_hooks, hidden_gates._backward_hooks)
    watched = any(hooks) or "forward" in vars(hidden_gates)
    return plain_float and not watched


def _step(gates: Tensor, cell: Tensor, hidden: Tensor) -> None:
    """One slice: gates are squashed in place, the cell goes on in place, the hidden state is written."""
    let_in, keep, let_out, candidate = gates.chunk(4, dim=1)
    gates[:, : 3 * cell.shape[1]].sigmoid_()
    candidate.tanh_()
    cell.mul_(keep).addcmul_(let_in, candidate)
    torch.tanh(cell, out=hidden).mul_(let_out)


def walk_in_place(from_input: Tensor, weight: Tensor) -> Tensor:
    """The same result as `walk` without gradients; `from_input` is used up.

    Args:
        from_input: As in `walk`.
        weight: Of the hidden half, (4 C, C, 3, 3).
    """
    depth, batch, gates, *plane = from_input.shape
    hidden_states = from_input.new_empty(depth, batch, gates // 4, *plane)
    cell = from_input.new_zeros(batch, gates // 4, *plane)
    for index in range(depth):
        if index > 0:
            from_input[index] += _hidden_half(hidden_states[index - 1], weight)
        _step(from_input[index], cell, hidden_states[index])
    return hidden_states


def walk_with_gradients(from_input: Tensor, weight: Tensor) -> Tensor:
    """The same as `walk`, with a backward pass that takes the weight's gradient of all slices at once.

    Args:
        from_input: As in `walk`.
        weight: Of the hidden half, (4 C, C, 3, 3).
    """
    hidden_states: Tensor = _Walk.apply(from_input, weight)  # type: ignore[no-untyped-call]
    return hidden_states


class _Walk(torch.autograd.Function):
    """Autograd would write, clear and add a gradient of the size of the weight at every slice."""

    @staticmethod
    def forward(ctx: Any, from_input: Tensor, weight: Tensor) -> Tensor:
        gates = from_input.detach().clone(memory_format=torch.contiguous_format)
        depth, batch, width, *plane = gates.shape
        cells = gates.new_zeros(depth, batch, width // 4, *plane)
        hidden_states = torch.empty_like(cells)
        for index in range(depth):
            if index > 0:
                gates[index] += _times(weight.flatten(1), _columns(hidden_states[index - 1])).view_as(
                    gates[0]
                )
                cells[index] = cells[index - 1]
            _step(gates[index], cells[index], hidden_states[index])
        ctx.save_for_backward(from_input, weight, gates, cells, hidden_states)
        return hidden_states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        from_input, weight, gates, cells, hidden_states = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself will be differentiated
            return _differentiable_gradients(from_input, weight, grad)
        to_gates = torch.empty_like(gates)
        to_cell = torch.zeros_like(cells[0])
        to_hidden = grad[-1]
        back = weight.flatten(1).t()
        for index in reversed(range(len(gates))):
            before = cells[index - 1] if index > 0 else torch.zeros_like(to_cell)
            _step_back(gates[index], cells[index], before, to_hidden, to_cell, to_gates[index])
            if index > 0:
                columns = _times(back, to_gates[index].flatten(2))
                to_hidden = grad[index - 1] + functional.fold(columns, gates.shape[3:], 3, padding=1)
        return to_gates, _weight_gradient(hidden_states[:-1], to_gates[1:]).view_as(weight)


def _step_back(
    gates: Tensor, cell: Tensor, before: Tensor, to_hidden: Tensor, to_cell: Tensor, to_gates: Tensor
) -> None:
    """The gradients of one slice: `to_gates` is written, `to_cell` goes on to the slice before, in place."""
    let_in, keep, let_out, candidate = gates.chunk(4, dim=1)
    to_in, to_keep, to_out, to_candidate = to_gates.chunk(4, dim=1)
    bent = torch.tanh(cell)
    to_cell.addcmul_(to_hidden * let_out, 1 - bent.square())
    torch.mul(to_hidden * bent, let_out * (1 - let_out), out=to_out)
    torch.mul(to_cell * candidate, let_in * (1 - let_in), out=to_in)
    torch.mul(to_cell * before, keep * (1 - keep), out=to_keep)
    torch.mul(to_cell * let_in, 1 - candidate.square(), out=to_candidate)
    to_cell.mul_(keep)


def _columns(x: Tensor) -> Tensor:
    """The 3x3 surroundings of every place: (N, C, H, W) to (N, 9 C, H W)."""
    return functional.unfold(x, 3, padding=1)


def _hidden_half(hidden: Tensor, weight: Tensor) -> Tensor:
    """A 3x3 convolution as a matrix product, which does not lay its weight out anew at every slice."""
    return _times(weight.flatten(1), _columns(hidden)).view(len(hidden), -1, *hidden.shape[2:])


def _times(matrix: Tensor, columns: Tensor) -> Tensor:
    """A matrix times the columns (N, K, L) of every row, as one product."""
    if len(columns) == 1:
        return (matrix @ columns[0])[None]
    joined = matrix @ columns.transpose(0, 1).flatten(1)  # (M, N L)
    return joined.view(len(matrix), len(columns), -1).transpose(0, 1).contiguous()


def _weight_gradient(hidden_states: Tensor, to_gates: Tensor) -> Tensor:
    """The gradient of the hidden half's weight, (4 C, 9 C), from all slices in one product."""
    columns = _columns(hidden_states.flatten(0, 1)).transpose(0, 1).flatten(1)  # (9 C, D B H W)
    gradient: Tensor = to_gates.flatten(0, 1).flatten(2).transpose(0, 1).flatten(1) @ columns.t()
    return gradient


def _differentiable_gradients(from_input: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    def plain(gates: Tensor, kernel: Tensor) -> Tensor:
        return walk(gates, lambda hidden: functional.conv2d(hidden, kernel, padding=1))

    pull = torch.func.vjp(plain, from_input, weight)[1]
    to_input, to_weight = pull(grad)
    return to_input, to_weight
