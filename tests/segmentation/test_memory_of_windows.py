"""Memory and time: smaller windows when memory is short, said; an estimate before the work."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from model.test_where_masks_land import chest, dice
from training.oracles import CopyOfPrior, Greedy, oracle
from training.tiny_run import tiny_settings

from radiogen.errors import DeviceError
from radiogen.networks.raseg import build_raseg
from radiogen.runtime import free_memory_mb, is_out_of_memory, memory_gb
from radiogen.segmentation import inference
from radiogen.segmentation.inference import fitting, window_memory_mb
from radiogen.segmentation.volume import Prompt, SegmentationSettings, segment_volume

ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried"),
]


def masked(network, size=(64, 64, 64)):
    model = oracle(network)
    preprocessing = model.config.preprocessing.model_copy(update={"size": size})
    return replace(model, config=model.config.model_copy(update={"preprocessing": preprocessing}))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_when_memory_is_not_enough_windows_get_smaller_and_it_is_said(error):
    ct, lungs, lesion = chest("upright")
    network = Greedy(most=32 * 32 * 64, error=error)
    found = segment_volume(masked(network), ct, lungs, Prompt("mask", mask=lesion))
    assert dice(found.lesion, lesion) > 0.88
    assert set(network.windows) == {(32, 32, 64)}
    assert found.decisions[:3] == (
        "memory was not enough: 1 window at once instead of 2",
        "memory was not enough: windows of 32 x 64 x 64 instead of 64 x 64 x 64",
        "memory was not enough: windows of 32 x 32 x 64 instead of 32 x 64 x 64",
    )


def test_fewer_windows_at_once_come_before_smaller_ones():
    ct, lungs, lesion = chest("upright")
    network = Greedy(most=2 * 32**3, error=MemoryError())
    settings = SegmentationSettings(batch=4)
    model = masked(network, (32, 32, 32))
    found = segment_volume(model, ct, lungs, Prompt("mask", mask=lesion), settings)
    assert found.decisions[0] == "memory was not enough: 2 windows at once instead of 4"
    assert dice(found.lesion, lesion) > 0.88


@pytest.mark.parametrize(("asked", "taken"), [({}, 2), ({"engine": "compile"}, 1), ({"batch": 3}, 3)])
def test_a_cpu_takes_two_windows_at_once_unless_told_otherwise(asked, taken):
    model = masked(CopyOfPrior())
    assert inference.Inference(model, SegmentationSettings(**asked)).batch == taken


def test_windows_answer_the_same_alone_and_two_at_once():
    ct, lungs, _ = chest("upright")
    settings = tiny_settings("preprocessing.spacing_mm=[3, 3, 3]")
    model = masked(build_raseg(settings.network, seed=0), (32, 32, 32))
    one, two = (
        segment_volume(
            model, ct, lungs, Prompt("lungs"), SegmentationSettings(batch=batch), keep_probability=True
        )
        for batch in (1, None)
    )
    alone, together = (sitk.GetArrayFromImage(found.probability) for found in (one, two))
    assert np.abs(together.astype(int) - alone).max() <= 1  # 255ths; another kernel may round otherwise
    assert len(np.unique(alone)) > 2


def test_a_device_too_small_for_the_smallest_window_is_an_error():
    ct, lungs, lesion = chest("upright")
    model = masked(Greedy(most=0, error=MemoryError()))
    with pytest.raises(DeviceError, match=r"too little memory for windows of 32 x 32 x 32 \(free"):
        segment_volume(model, ct, lungs, Prompt("mask", mask=lesion))


def test_another_error_of_a_network_is_not_taken_for_memory():
    ct, lungs, lesion = chest("upright")
    model = masked(Greedy(most=0, error=RuntimeError("sizes do not match")))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        segment_volume(model, ct, lungs, Prompt("mask", mask=lesion))


def test_windows_are_made_to_fit_before_they_are_tried(monkeypatch):
    ct, lungs, lesion = chest("upright")
    network = CopyOfPrior()
    needed = window_memory_mb(network, 2, (32, 64, 64), 1)
    monkeypatch.setattr(inference, "free_memory_mb", lambda _: needed + 5)
    model = masked(network)
    found = segment_volume(model, ct, lungs, Prompt("mask", mask=lesion))
    assert found.decisions[0].endswith("MB are free: windows of 32 x 64 x 64 instead of 64 x 64 x 64")


def test_the_largest_window_that_fits_is_taken():
    def needed(size, batch):
        return size[0] * size[1] * size[2] * batch / 1000

    assert fitting((64, 96, 96), 4, needed, 1e9) == ((64, 96, 96), 4)
    assert fitting((64, 96, 96), 4, needed, 1300) == ((64, 96, 96), 2)
    assert fitting((64, 96, 96), 4, needed, 300) == ((64, 48, 96), 1)
    assert fitting((64, 96, 96), 4, needed, 0) == ((32, 32, 32), 1)


def test_memory_is_counted_from_shapes_and_grows_with_the_window():
    network = build_raseg(tiny_settings().network, 0)
    small, large = (window_memory_mb(network, 2, size, 1) for size in ((32, 32, 32), (64, 64, 64)))
    assert large == pytest.approx(8 * small, rel=0.05)


def test_free_memory_is_some_and_not_more_than_there_is():
    assert 0 < free_memory_mb() < memory_gb() * 1e9 / 2**20
    assert not is_out_of_memory(ValueError("out of memory"))


def test_it_is_told_once_a_case_how_long_it_will_take():
    ct, lungs, _ = chest("upright")
    model, heard = oracle(CopyOfPrior(), (6.0, 6.0, 6.0)), []
    looking = inference.Inference(model, SegmentationSettings(tta=True), on_estimate=heard.append)
    for _ in range(2):
        segment_volume(model, ct, lungs, Prompt("lungs"), SegmentationSettings(tta=True), looking)
    assert len(heard) == 2
    assert all(effort.passes == 8 and effort.windows > 4 and effort.seconds > 0 for effort in heard)
    assert heard[0].memory_mb > 100
