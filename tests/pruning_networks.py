"""Networks small enough to check by hand, and the losses that go with them."""

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from radiogen.pruning.criteria import score_weights
from radiogen.pruning.settings import Batch, CriterionSettings, Loss, Scores


def scores(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    settings: CriterionSettings | None = None,
    rng: torch.Generator | None = None,
    exclude: Collection[str] = (),
) -> Scores:
    return score_weights(model, batches, loss, settings, rng, exclude).scores


def half_squares(model: nn.Module, batch: Batch) -> Tensor:
    x, target = batch
    return 0.5 * (model(x) - target).square().mean()


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    x, target = batch
    return F.cross_entropy(model(x), target)


def two_weights() -> nn.Linear:
    """y = 2 x0 - 3 x1."""
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -3.0]]))
    return model


def two_samples() -> list[Batch]:
    """Mini-batches of one; their gradients at `two_weights` are (-4, -8) and (6, 2)."""
    return [
        (torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[0.0]]).double()),
        (torch.tensor([[3.0, 1.0]]).double(), torch.tensor([[1.0]]).double()),
    ]


class Classifier(nn.Module):
    """The classifier of the golden values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 12, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(12)
        self.conv3 = nn.Conv2d(12, 12, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(12)
        self.linear = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.linear(x.mean(dim=(2, 3)))


def classifier(seed: int = 0) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Classifier().double()


def images(count: int = 4, size: int = 2, seed: int = 0) -> list[Batch]:
    rng = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 3, 8, 6, generator=rng, dtype=torch.float64),
            torch.randint(5, (size,), generator=rng),
        )
        for _ in range(count)
    ]


def short_last() -> list[Batch]:
    """Two mini-batches, of four samples and of one."""
    return [*images(1, size=4), *images(1, size=1, seed=1)]


class Mixed(nn.Module):
    """PReLU, InstanceNorm, a grouped, a transposed, a shared and an unused convolution in 3D."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, padding=1, stride=2)
        self.norm = nn.InstanceNorm3d(4)
        self.slope = nn.PReLU()
        self.grouped = nn.Conv3d(4, 4, 3, padding=1, groups=2)
        self.shared = nn.Conv3d(4, 4, 1)
        self.again = self.shared
        self.unused = nn.Conv3d(4, 4, 1)
        self.up = nn.ConvTranspose3d(4, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slope(self.norm(self.first(x)))
        x = self.shared(torch.tanh(self.grouped(x)))
        return self.up(self.again(x))


def mixed() -> Mixed:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Mixed().double()


def volumes() -> list[Batch]:
    rng = torch.Generator().manual_seed(5)
    return [
        tuple(torch.randn(1, 1, 4, 6, 8, generator=rng, dtype=torch.float64) for _ in range(2))
        for _ in range(3)
    ]
