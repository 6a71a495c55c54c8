import sys

import pytest
import torch

from radiogen.errors import DeviceError
from radiogen.runtime import cpu_count, keep_large_blocks, peak_memory_mb, pick_device


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def with_two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_without_a_gpu_the_cpu_is_taken(without_gpu, name):
    assert pick_device(name) == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_asked_for_and_absent_is_refused_in_one_line(without_gpu, name):
    with pytest.raises(DeviceError, match=f"--device {name}: .*--device cpu") as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)


def test_where_there_is_a_gpu_auto_takes_it(with_two_gpus):
    assert pick_device("auto").type == "cuda"
    assert pick_device("cuda:1") == torch.device("cuda:1")


def test_a_gpu_beyond_the_last_is_refused(with_two_gpus):
    with pytest.raises(DeviceError, match="cuda:2"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cuda:-1", "cpu:0", "mps:1", "cuda:0:1", "CUDA"])
def test_a_name_that_is_no_device_is_answered_with_the_names_there_are(name):
    with pytest.raises(DeviceError, match="auto, cpu, cuda"):
        pick_device(name)


def test_the_machine_has_processors_and_this_process_took_memory():
    assert cpu_count() >= 1
    assert 10 < peak_memory_mb() < 1_000_000


def test_elsewhere_than_on_linux_the_memory_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_large_blocks() is False


def test_a_system_without_glibc_is_left_alone(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", absent)
    assert keep_large_blocks() is False
