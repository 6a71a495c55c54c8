"""Several processes give what one gives, and end with the work."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pruning_networks import classifier, cross_entropy, images
from torch import Tensor, nn

from radiogen.errors import PruningError
from radiogen.pruning.measuring import measure_moments
from radiogen.pruning.moments import Moments, gradient_moments
from radiogen.pruning.prunable import prunable
from radiogen.pruning.settings import Batch, MomentSettings

TWO = MomentSettings(jobs=2)
OPEN_FILES = Path("/proc/self/fd")


@pytest.fixture(autouse=True)
def no_process_outlives_the_work() -> Iterator[None]:
    before = set(multiprocessing.active_children())  # other tests may have left a pool of theirs
    yield
    assert set(multiprocessing.active_children()) <= before


def dies_in_a_process(network: nn.Module, batch: Batch) -> Tensor:
    if multiprocessing.parent_process() is not None:
        os._exit(1)
    return cross_entropy(network, batch)


def test_two_processes_give_the_moments_of_the_loop_and_the_same_ones_again() -> None:
    model, batches = classifier(), [*images(8, 2), *images(5, 1)]
    found = [measure_moments(model, batches, cross_entropy, prunable(model), TWO) for _ in range(2)]
    truth = gradient_moments(model, batches, cross_entropy)
    assert (found[0].samples, found[0].batches) == (truth.samples, truth.batches)
    for part in ("gradient", "fisher"):
        for name, value in getattr(truth, part).items():
            first, second = (getattr(moments, part)[name] for moments in found)
            assert torch.equal(first, second)
            torch.testing.assert_close(first, value, rtol=1e-9, atol=1e-12 * float(value.abs().max()))


def test_looking_in_between_goes_on_with_the_same_processes() -> None:
    model, batches, looks = classifier(), images(20, size=1), []

    def look(moments: Moments) -> bool:
        looks.append(moments.batches)
        return False

    found = measure_moments(model, batches, cross_entropy, prunable(model), TWO, look)
    assert looks == [8, 16, 20]
    truth = gradient_moments(model, batches, cross_entropy)
    for name, value in truth.fisher.items():
        torch.testing.assert_close(found.fisher[name], value, rtol=1e-9, atol=0)


def test_a_process_that_dies_is_one_line() -> None:
    model = classifier()
    with pytest.raises(PruningError, match=r"--jobs: a process that measured gradients died.*fewer jobs"):
        measure_moments(model, images(9, size=1), dies_in_a_process, prunable(model), TWO)


def test_a_loss_that_cannot_be_sent_is_refused() -> None:
    model = classifier()
    with pytest.raises(PruningError, match="cannot be sent to another process"):
        measure_moments(model, images(9, size=1), lambda m, b: cross_entropy(m, b), prunable(model), TWO)


@pytest.mark.skipif(not OPEN_FILES.is_dir(), reason="open files are counted in /proc")
def test_a_long_scoring_set_does_not_hold_files_open() -> None:
    model, batches = classifier(), images(400, size=1)
    before = len(list(OPEN_FILES.iterdir()))
    measure_moments(model, batches, cross_entropy, prunable(model), TWO)
    assert len(list(OPEN_FILES.iterdir())) - before < 100
