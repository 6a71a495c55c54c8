"""Layers with few channels go to other kernels and get the same gradients."""

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


@pytest.mark.parametrize("exclude", [(), ("last",)], ids=["all", "without the last layer"])
def test_narrow_layers_take_other_kernels_and_give_the_same(exclude: tuple[str, ...]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NarrowEnds()
    rng = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(1, 2, 15, 12, 10, generator=rng), torch.randn(1, 1, generator=rng)) for _ in range(7)
    ]
    weights = prunable(model, exclude=exclude)
    found = measure_moments(model, batches, half_squares, weights, MomentSettings(engine="native"))
    truth = gradient_moments(model, batches, half_squares, weights)
    for name, value in truth.gradient.items():
        torch.testing.assert_close(
            found.gradient[name], value, rtol=1e-4, atol=1e-5 * float(value.abs().max())
        )
        torch.testing.assert_close(found.fisher[name], truth.fisher[name], rtol=1e-3, atol=1e-9)
    assert not any("forward" in vars(module) for module in model.modules())


class ManyKinds(nn.Module):
    """Eight channels at most, so that channels come last: up, down, narrow, norms with weights or without."""

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


@pytest.mark.parametrize("memory_mb", [1, 512], ids=["one by one", "together"])
@pytest.mark.parametrize("count", [7, 35])  # of 35, one is left over
def test_channels_that_come_last_give_what_double_precision_gives(count: int, memory_mb: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ManyKinds()
    with torch.no_grad():
        model.norm.weight.uniform_(0.5, 1.5)
        model.norm.bias.uniform_(-0.5, 0.5)
    rng = torch.Generator().manual_seed(1)
    draws = [(torch.randn(1, 2, 16, 6, 10, generator=rng), torch.zeros(1, 2)) for _ in range(count)]
    assert_as_in_double_precision(model, draws, memory_mb)


class SixteenOnOneSide(nn.Module):
    """What oneDNN's vectors of 16 channels ask for: pairs of voxels, changed places, slabs at strides."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.down = nn.Conv3d(16, 20, 3, stride=2, padding=1)
        self.deeper = nn.Conv3d(20, 18, (3, 3, 1), stride=(2, 1, 2), padding=(1, 0, 0))
        self.up = nn.ConvTranspose3d(18, 16, 3, stride=2, padding=1, output_padding=1)
        self.larger = nn.ConvTranspose3d(16, 8, 3, stride=(1, 2, 2), padding=1, output_padding=(0, 1, 1))
        self.wide = nn.Conv3d(8, 16, 3, padding=1)
        self.join = nn.Conv3d(16, 8, 3, padding=(padding, 1, 1), bias=False)
        self.bent = nn.Conv3d(16, 5, 3, padding=(2, 0, 1), dilation=(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.tanh(self.wide(self.larger(torch.tanh(self.up(self.deeper(torch.tanh(self.down(x))))))))
        joined, bent = self.join(wide), self.bent(wide)
        return torch.cat([part.square().mean(dim=(2, 3, 4)) for part in (joined, bent)], dim=1)


@pytest.mark.parametrize("depth", [16, 12])  # 12 does not part into slabs on its way down
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_vectors_of_sixteen_channels_are_filled_with_the_right_ones(depth: int, padding: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SixteenOnOneSide(padding)
    rng = torch.Generator().manual_seed(1)
    draws = [(torch.randn(1, 16, depth, 8, 6, generator=rng), torch.zeros(1, 13)) for _ in range(5)]
    assert_as_in_double_precision(model, draws, memory_mb=512)


class EightWithTwoReaders(nn.Module):
    """Eight channels whose gradients come back from a stride and from a narrow end."""

    def __init__(self, stride: tuple[int, int, int], dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(2, 8, 3, padding=1)
        self.norm = nn.InstanceNorm3d(8, affine=True)
        self.down = nn.Conv3d(8, 12, 3, stride=stride, padding=(0, 1, 1))
        self.last = nn.Conv3d(8, 1, 3, padding=(dilation, 1, 1), dilation=(dilation, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        read = torch.tanh(self.norm(self.first(x)))
        parts = (self.down(read), self.last(read))
        return torch.cat([part.square().mean(dim=(2, 3, 4)) for part in parts], dim=1)


@pytest.mark.parametrize("width", [6, 7])  # of 7 a stride leaves nothing over, and it makes no pairs
@pytest.mark.parametrize(("stride", "dilation"), [((2, 2, 2), 1), ((1, 3, 2), 2)])
def test_gradients_come_back_in_pairs_of_voxels(
    stride: tuple[int, int, int], dilation: int, width: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EightWithTwoReaders(stride, dilation)
    rng = torch.Generator().manual_seed(1)
    draws = [(torch.randn(1, 2, 9, 8, width, generator=rng), torch.zeros(1, 13)) for _ in range(5)]
    assert_as_in_double_precision(model, draws, memory_mb=512)


def assert_as_in_double_precision(
    model: nn.Module, draws: list[tuple[Tensor, Tensor]], memory_mb: int
) -> None:
    """The native engine in float32 gives the moments of the plain loop in float64."""
    settings = MomentSettings(engine="native", memory_mb=memory_mb)
    found = measure_moments(model, draws, half_squares, prunable(model), settings)
    model = model.double()
    truth = gradient_moments(model, [(x.double(), y.double()) for x, y in draws], half_squares)
    for part in ("gradient", "fisher"):
        for name, value in getattr(truth, part).items():
            close = {"rtol": 1e-3, "atol": 1e-4 * float(value.abs().max())}
            torch.testing.assert_close(getattr(found, part)[name].double(), value, **close)
