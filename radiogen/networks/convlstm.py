"""The recurrence of RA-Seg: convolutional LSTM layers that read a volume slice by slice."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ConvLSTM(nn.Module):
    """One convolutional LSTM layer without peepholes (Shi et al. 2015), starting from zero.

    The gates input, forget, output and candidate come from one 3x3 convolution over [input, hidden].
    Its two halves are stored apart: the input half of all slices is one call, and only the hidden
    half is walked slice by slice.
    """

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.input_gates = nn.Conv2d(in_width, 4 * width, kernel_size=3, padding=1)
        self.hidden_gates = nn.Conv2d(width, 4 * width, kernel_size=3, padding=1, bias=False)

    def forward(self, slices: Tensor) -> Tensor:  # (B, D, C, H, W)
        batch, depth = slices.shape[:2]
        from_input = self.input_gates(slices.flatten(0, 1)).unflatten(0, (batch, depth))
        gates = from_input[:, 0]
        cell = torch.zeros_like(gates[:, : self.width])
        hidden_states: list[Tensor] = []
        for index in range(depth):
            if index > 0:
                gates = from_input[:, index] + self.hidden_gates(hidden_states[-1])
            let_in, keep, let_out, candidate = gates.chunk(4, dim=1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(let_in) * torch.tanh(candidate)
            hidden_states.append(torch.sigmoid(let_out) * torch.tanh(cell))
        return torch.stack(hidden_states, dim=1)  # (B, D, width, H, W)


class BothWays(nn.Module):
    """Two ConvLSTMs, one from the feet to the head and one back, each with half of the width."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.up = ConvLSTM(in_width, width // 2)
        self.down = ConvLSTM(in_width, width - width // 2)

    def forward(self, slices: Tensor) -> Tensor:  # (B, D, C, H, W)
        return torch.cat([self.up(slices), self.down(slices.flip(1)).flip(1)], dim=2)


class Recurrence(nn.Module):
    """Layers of ConvLSTM over the slices of a volume; the last layer's hidden state at every slice."""

    def __init__(self, in_width: int, widths: Sequence[int], both_ways: bool) -> None:
        super().__init__()
        layer = BothWays if both_ways else ConvLSTM
        pairs = zip([in_width, *widths], widths, strict=False)
        self.layers = nn.ModuleList([layer(before, width) for before, width in pairs])

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W)
        slices = x.transpose(1, 2)  # (B, D, C, H, W)
        for layer in self.layers:
            slices = layer(slices)
        return slices.transpose(1, 2)  # (B, width, D, H, W)
