"""Layers of every kind, in float32, get the moments that the plain loop finds in double precision."""

import pytest
import torch
from pruning_networks import half_squares
from torch import Tensor, nn

from radiogen.pruning.measuring import measure_moments
from radiogen.pruning.moments import gradient_moments
from radiogen.pruning.prunable import prunable
from radiogen.pruning.settings import MomentSettings


class NarrowEnds(nn.Module):
    """Few channels at both ends, at strides, dilations and paddings, and a PReLU of one slope."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 9, 3, stride=2, padding=1)
        self.slope = nn.PReLU()
        self.wide = nn.Conv3d(9, 8, (3, 1, 3), padding=(2, 0, 1), dilation=(2, 1, 1))
        self.last = nn.Conv3d(8, 1, (1, 3, 3), padding=(0, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.slope(self.wide(self.slope(self.first(x)))))
        return out.mean(dim=(2, 3, 4))


class UpAndDown(nn.Module):
    """Down, up with output padding, a gate, a skip, norms with weights or without."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv3d(2, 8, 3, stride=2, padding=1)
        self.norm = nn.InstanceNorm3d(8, affine=True)
        self.slope = nn.PReLU()
        self.up = nn.ConvTranspose3d(8, 4, 3, stride=2, padding=1, output_padding=1)
        self.plain_norm = nn.InstanceNorm3d(4)
        self.gate = nn.Conv3d(1, 4, 3, padding=1)
        self.gate_norm = nn.InstanceNorm3d(4, affine=True)
        self.head = nn.Conv3d(6, 2, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        up = self.slope(self.plain_norm(self.up(self.slope(self.norm(self.down(x))))))
        up = up * torch.sigmoid(self.gate_norm(self.gate(x[:, :1])))
        out: Tensor = self.head(torch.cat([up, x], dim=1))
        return out.square().mean(dim=(2, 3, 4))


class UnequalStrides(nn.Module):
    """Strides, paddings and kernels that differ by axis, up and down, and two readers of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv3d(2, 20, 3, stride=2, padding=1)
        self.deeper = nn.Conv3d(20, 18, (3, 3, 1), stride=(2, 1, 2), padding=(1, 0, 0))
        self.up = nn.ConvTranspose3d(18, 16, 3, stride=2, padding=1, output_padding=1)
        self.larger = nn.ConvTranspose3d(16, 8, 3, stride=(1, 2, 2), padding=1, output_padding=(0, 1, 1))
        self.join = nn.Conv3d(8, 8, 3, padding=(2, 1, 1), bias=False)
        self.dilated = nn.Conv3d(8, 5, 3, padding=(2, 0, 1), dilation=(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.tanh(self.larger(torch.tanh(self.up(self.deeper(torch.tanh(self.down(x)))))))
        parts = (self.join(wide), self.dilated(wide))
        return torch.cat([part.square().mean(dim=(2, 3, 4)) for part in parts], dim=1)


class Paddings(nn.Module):
    """Padding by name, also where it is uneven, by reflection, and in place what comes after a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Conv3d(2, 4, (2, 3, 4), padding="same")
        self.valid = nn.Conv3d(4, 6, 3, padding="valid")
        self.mirror = nn.Conv3d(6, 4, 3, padding=1, padding_mode="reflect", groups=2)
        self.in_place = nn.LeakyReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.in_place(self.mirror(self.in_place(self.valid(self.in_place(self.same(x))))))
        return out.mean(dim=(2, 3, 4))


NETWORKS = {kind.__name__: kind for kind in (NarrowEnds, UpAndDown, UnequalStrides, Paddings)}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("memory_mb", [1, 512], ids=["one by one", "together"])
@pytest.mark.parametrize("count", [7, 35])  # of 35, one is left over
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_get_the_moments_of_double_precision(name: str, count: int, memory_mb: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[name]()
    rng = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(1, 2, 16, 8, 10, generator=rng), torch.randn(1, 1, generator=rng)) for _ in range(count)
    ]
    settings = MomentSettings(engine="hooks", memory_mb=memory_mb)
    found = measure_moments(model, batches, half_squares, prunable(model), settings)
    model = model.double()
    truth = gradient_moments(model, [(x.double(), y.double()) for x, y in batches], half_squares)
    for part in ("gradient", "fisher"):
        for layer, value in getattr(truth, part).items():
            close = {"rtol": 1e-3, "atol": 1e-4 * float(value.abs().max())}
            torch.testing.assert_close(getattr(found, part)[layer].double(), value, **close)


@pytest.mark.parametrize("exclude", [("last",), ("first",)], ids=str)
def test_weights_that_are_not_wanted_are_left_out(exclude: tuple[str, ...]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NarrowEnds().double()
    rng = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(1, 2, 15, 12, 10, generator=rng).double(), torch.zeros(1, 1).double()) for _ in range(7)
    ]
    weights = prunable(model, exclude=exclude)
    found = measure_moments(model, batches, half_squares, weights, MomentSettings(engine="hooks"))
    truth = gradient_moments(model, batches, half_squares, weights)
    assert list(found.gradient) == list(truth.gradient) == list(weights)
    for name, value in truth.fisher.items():
        torch.testing.assert_close(found.fisher[name], value, rtol=1e-9, atol=1e-15)
