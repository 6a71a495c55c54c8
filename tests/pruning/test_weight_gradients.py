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
    generator = torch.Generator().manual_seed(1)
    batches = [
        (torch.randn(1, 2, 15, 12, 10, generator=generator), torch.randn(1, 1, generator=generator))
        for _ in range(7)
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
