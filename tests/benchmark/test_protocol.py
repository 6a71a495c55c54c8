"""The papers' training: its rates, its crops, its chance, and weight masks that hold."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiogen.benchmark.classifiers import ClassifierSettings
from radiogen.benchmark.images import LabelledImages
from radiogen.benchmark.protocol import (
    ImageEpoch,
    ImagesOnDevice,
    ProtocolSettings,
    ScoringImages,
    accuracy,
    crop_and_flip,
    learning_rate,
    train_classifier,
)
from radiogen.benchmark.pruning import default_values
from radiogen.errors import TrainingError
from radiogen.networks.classifiers import build_classifier

CPU = torch.device("cpu")
QUICK = ProtocolSettings(epochs=2, batch_size=8, augment=False, learning_rate=0.05)


def made_images(count=30, classes=3, side=8):
    """Class k is bright in column 2k, on noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    pixels = rng.integers(0, 60, size=(count, 1, side, side))
    for place, label in enumerate(labels):
        pixels[place, :, :, 2 * label] += 180
    images = LabelledImages(pixels.astype(np.uint8), labels.astype(np.int64))
    return ImagesOnDevice(images, images, CPU)


def test_the_defaults_are_those_of_the_paper():
    settings = ProtocolSettings()
    assert (settings.epochs, settings.batch_size, settings.momentum) == (160, 512, 0.9)
    assert settings.weight_decay == 5e-4
    rates = [learning_rate(settings, epoch) for epoch in (0, 59, 60, 119, 120, 159)]
    assert rates == pytest.approx([0.01, 0.01, 0.002, 0.002, 0.0004, 0.0004])


def test_a_shorter_training_drops_its_rate_at_the_same_shares():
    assert learning_rate(ProtocolSettings(epochs=8), 2) == pytest.approx(0.01)
    assert learning_rate(ProtocolSettings(epochs=8), 3) == pytest.approx(0.002)


def test_images_are_standardised_by_the_training_images():
    images = made_images()
    pixels, _ = images.take(torch.arange(len(images)))
    assert pixels.mean().item() == pytest.approx(0, abs=1e-5)
    assert pixels.std(unbiased=False).item() == pytest.approx(1, abs=1e-5)


def test_a_crop_is_a_shift_on_zeros_or_its_mirror_image():
    pixels = torch.arange(1.0, 65.0).view(1, 1, 8, 8).repeat(40, 1, 1, 1)
    cropped = crop_and_flip(pixels, np.random.default_rng(1))
    padded = torch.nn.functional.pad(pixels[0, 0], (4, 4, 4, 4))
    windows = [padded[top : top + 8, left : left + 8] for top in range(9) for left in range(9)]
    mirrored = 0
    for image in cropped[:, 0]:
        is_shift = any(torch.equal(image, window) for window in windows)
        is_mirror = any(torch.equal(image.flip(1), window) for window in windows)
        assert is_shift or is_mirror
        mirrored += is_mirror and not is_shift
    assert 8 < mirrored < 32


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    images = made_images(20)
    orders = [
        torch.cat([labels for _, labels in ImageEpoch(images, QUICK, seed, number)]).tolist()
        for seed, number in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == sorted(images.labels.tolist()) for order in orders)


def test_a_last_mini_batch_of_one_image_is_left_out():
    assert [len(labels) for _, labels in ImageEpoch(made_images(17), QUICK, 0, 0)] == [8, 8]


def test_the_scoring_set_holds_as_many_of_each_class_and_is_the_same_each_time():
    images = made_images()
    first = list(ScoringImages(images, 4, 1, seed=5))
    labels = torch.cat([batch[1] for batch in first])
    assert len(first) == 12 and labels.bincount().tolist() == [4, 4, 4]
    scoring_set = ScoringImages(images, 4, 1, seed=5)
    for _ in range(2):
        assert all(torch.equal(a[0], b[0]) for a, b in zip(first, scoring_set, strict=True))


def test_pruned_weights_stay_zero_and_the_rest_learns():
    images, network = made_images(), build_classifier("resnet8", 1, 3, seed=0, width=4)
    rng = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(weight.shape, generator=rng) < 0.3
        for name, weight in network.named_parameters()
        if weight.dim() == 4
    }
    before = {name: network.get_parameter(name).detach().clone() for name in masks}
    losses = train_classifier(network, images, QUICK.model_copy(update={"epochs": 20}), masks, seed=0)
    for name, mask in masks.items():
        weight = network.get_parameter(name)
        assert weight[~mask].count_nonzero() == 0
        assert (weight[mask] != before[name][mask]).any()
    assert losses[-1] < 0.5 * losses[0]
    assert accuracy(network, images) > 90


def test_a_training_that_overflows_is_refused():
    settings = QUICK.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match="loss is not finite"):
        train_classifier(build_classifier("resnet8", 1, 3, seed=0, width=2), made_images(), settings, {}, 0)


def test_accuracy_counts_the_images_that_are_right():
    class Says(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(torch.zeros(len(x), dtype=torch.long), 3).float()

    assert accuracy(Says(), made_images(30)) == pytest.approx(100 / 3)


@pytest.mark.parametrize(("protocol", "scored"), [("paper", 24), ("successor", 20)])
def test_a_protocol_sets_what_the_papers_differ_in(protocol, scored):
    settings = ClassifierSettings.model_validate(default_values(Path("cifar"), protocol))
    expected = {"paper": ("epoch", "batch"), "successor": ("bn", 1)}
    assert (settings.warmup, settings.fisher_scale) == expected[protocol]
    pixels = np.arange(30, dtype=np.uint8)[:, None, None, None].repeat(4, axis=2).repeat(4, axis=3)
    images = LabelledImages(pixels, np.array([0, 1] * 15))
    learned = images.without(settings.held_out)
    # A fifth of each class, the last ones: 3 of 15.
    assert learned.pixels[:, 0, 0, 0].tolist() == list(range(24))
    on_device = ImagesOnDevice(learned, learned, torch.device("cpu"))
    scoring = ScoringImages(on_device, settings.samples, settings.scoring_batch, 0)
    assert sum(len(labels) for _, labels in scoring) == scored
    assert all(len(labels) == 1 for _, labels in scoring)
