"""Train a classifier, dense or pruned, as the pruning papers do, on images that lie in memory."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from radiogen.benchmark.images import LabelledImages
from radiogen.config import Settings
from radiogen.errors import TrainingError
from radiogen.pruning.settings import Batch
from radiogen.pruning.weight_masks import check_masks_held, hold_weight_masks

PADDING = 4  # pixels that a crop may be shifted by
TEST_BATCH = 512
# Second part of the seed, by the purpose of the draw, so that no two draws are alike.
_SCORING, _ORDER = 1, 2


class ProtocolSettings(Settings):
    """Settings of the training and test of a classifier; the defaults are those of arXiv:2502.11450.

    Attributes:
        epochs: Number of epochs.
        batch_size: Images in a mini-batch.
        learning_rate: Of SGD, at the start.
        momentum: Of SGD.
        weight_decay: Of SGD.
        drop_to: Factor of the rate at each of `drop_at`.
    """

    epochs: PositiveInt = 160
    batch_size: int = Field(512, ge=2)
    learning_rate: PositiveFloat = 0.01
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    drop_at: tuple[float, ...] = Field((0.375, 0.75), description="shares of the epochs: 60 and 120 of 160")
    drop_to: PositiveFloat = 0.2
    augment: bool = Field(True, description="random crops and left-right flips")


class ImagesOnDevice:
    """Labelled images on a device, standardised by the mean and deviation of the training images."""

    def __init__(self, images: LabelledImages, of_training: LabelledImages, device: torch.device) -> None:
        # Bytes stay bytes: a quarter of the memory of float32; each mini-batch is standardised when taken.
        self.pixels = torch.from_numpy(images.pixels).to(device)
        self.labels = torch.from_numpy(images.labels).to(device)
        values = of_training.pixels.astype(np.float32)
        shape = (1, -1, 1, 1)
        mean, deviation = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
        self.mean = torch.from_numpy(mean).view(shape).to(device)
        # A channel of one value has no deviation.
        self.deviation = torch.from_numpy(np.maximum(deviation, 1e-6)).view(shape).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Tensor) -> Batch:
        """Return images (N, C, H, W), standardised, and their labels (N,)."""
        return (self.pixels[places] - self.mean) / self.deviation, self.labels[places]


class ScoringImages:
    """Mini-batches for scoring: the same number of images of each class, drawn by the seed, not augmented."""

    def __init__(self, images: ImagesOnDevice, per_class: int | None, batch_size: int, seed: int) -> None:
        self.images, self.batch_size = images, batch_size
        rng = np.random.default_rng([seed, _SCORING])
        labels = images.labels.cpu().numpy()
        # By class: the papers score ten images of each class, so that no class is missing.
        drawn = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)]
        self.places = torch.from_numpy(rng.permutation(np.concatenate(drawn)))

    def __iter__(self) -> Iterator[Batch]:
        for places in torch.split(self.places, self.batch_size):
            yield self.images.take(places)


class ImageEpoch:
    """The mini-batches of one epoch; their order and crops depend on (seed, epoch) alone."""

    def __init__(self, images: ImagesOnDevice, settings: ProtocolSettings, seed: int, number: int) -> None:
        self.images, self.settings, self.seed, self.number = images, settings, seed, number

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng([self.seed, _ORDER, self.number])
        order = torch.from_numpy(rng.permutation(len(self.images)))
        for places in torch.split(order, self.settings.batch_size):
            # BatchNorm cannot train on one image: it has no variance.
            if len(places) < 2:
                continue
            pixels, labels = self.images.take(places)
            yield (crop_and_flip(pixels, rng) if self.settings.augment else pixels), labels


def crop_and_flip(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift each image (N, C, H, W) by up to 4 pixels on zeros, and mirror half of them."""
    count, channels, height, width = pixels.shape
    padded = functional.pad(pixels, (PADDING,) * 4)
    top, left = rng.integers(0, 2 * PADDING + 1, size=(2, count))
    is_flipped = rng.random(count) < 0.5
    # One gather for all images: a crop is a row and a column index of each pixel, mirrored or not.
    columns = left[:, None] + np.where(is_flipped[:, None], np.arange(width)[::-1], np.arange(width))
    rows = top[:, None] + np.arange(height)
    index = [
        np.arange(count)[:, None, None, None],
        np.arange(channels)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
    return padded[tuple(torch.from_numpy(part).to(pixels.device) for part in index)]


def classification_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of a mini-batch (images, labels)."""
    pixels, labels = batch
    return functional.cross_entropy(network(pixels), labels)


def learning_rate(settings: ProtocolSettings, epoch: int) -> float:
    """Return the rate of an epoch, lowered at each share of the epochs in `drop_at`.

    >>> [round(learning_rate(ProtocolSettings(), epoch), 6) for epoch in (59, 60, 120)]
    [0.01, 0.002, 0.0004]
    """
    passed = sum(epoch >= share * settings.epochs for share in settings.drop_at)
    return settings.learning_rate * settings.drop_to**passed


def train_classifier(
    network: nn.Module,
    images: ImagesOnDevice,
    settings: ProtocolSettings,
    weight_masks: Mapping[str, Tensor],
    seed: int,
) -> list[float]:
    """Train in place with SGD; weights outside the masks stay zero.

    Returns:
        The mean loss of each epoch.

    Raises:
        TrainingError: The loss is not finite.
        PruningError: The masks are of another network.
    """
    optimizer = torch.optim.SGD(
        network.parameters(),
        settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    held = hold_weight_masks(network, weight_masks, optimizer)
    network.train()
    losses = []
    for epoch in range(settings.epochs):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, epoch)
        steps = []
        for batch in ImageEpoch(images, settings, seed, epoch):
            loss = classification_loss(network, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            # Not `.item()`, which would wait for the GPU after every step.
            steps.append(loss.detach())
        losses.append(float(torch.stack(steps).mean()))
        if not math.isfinite(losses[-1]):
            raise TrainingError(f"epoch {epoch}", "the loss is not finite", "lower the learning_rate")
    held.remove()
    # A hook that failed silently would train a dense network under a pruned name.
    check_masks_held(network, weight_masks)
    return losses


def accuracy(network: nn.Module, images: ImagesOnDevice) -> float:
    """Return the per cent of the images that are classified right, in evaluation mode."""
    network.eval()
    right = 0
    with torch.no_grad():
        for places in torch.split(torch.arange(len(images)), TEST_BATCH):
            pixels, labels = images.take(places)
            right += int((network(pixels).argmax(dim=1) == labels).sum())
    return 100 * right / len(images)
