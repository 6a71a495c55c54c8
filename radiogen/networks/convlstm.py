"""The recurrence of RA-Seg: convolutional LSTM layers that read a volume slice by slice."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from radiogen.networks.lstm_walk import can_fuse, walk, walk_in_place, walk_with_gradients


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

    def forward(self, slices: Tensor) -> Tensor:  # (D, B, C, H, W)
        depth, batch = slices.shape[:2]
        rows = slices.transpose(0, 1).flatten(0, 1)  # (B D, C, H, W): a sample's slices lie together
        from_input = (
            self.input_gates(rows).unflatten(0, (batch, depth)).transpose(0, 1)
        )  # (D, B, 4 width, ..)
        if not can_fuse(from_input, self.hidden_gates):
            return walk(from_input, self.hidden_gates)
        by_hand = walk_with_gradients if torch.is_grad_enabled() else walk_in_place
        return by_hand(from_input, self.hidden_gates.weight)


class BothWays(nn.Module):
    """Two ConvLSTMs, one from the feet to the head and one back, each with half of the width."""

    def __init__(self, in_width: int, width: int) -> None:
        super().__init__()
        self.up = ConvLSTM(in_width, width // 2)
        self.down = ConvLSTM(in_width, width - width // 2)

    def forward(self, slices: Tensor) -> Tensor:  # (D, B, C, H, W)
        return torch.cat([self.up(slices), self.down(slices.flip(0)).flip(0)], dim=2)


class Recurrence(nn.Module):
    """Layers of ConvLSTM over the slices of a volume; the last layer's hidden state at every slice."""

    def __init__(self, in_width: int, widths: Sequence[int], both_ways: bool) -> None:
        super().__init__()
        layer = BothWays if both_ways else ConvLSTM
        pairs = zip([in_width, *widths], widths, strict=False)
        self.layers = nn.ModuleList([layer(before, width) for before, width in pairs])

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W)
        slices = x.movedim(2, 0).contiguous()  # (D, B, C, H, W)
        for layer in self.layers:
            slices = layer(slices)
        return slices.movedim(0, 2)  # (B, width, D, H, W)
