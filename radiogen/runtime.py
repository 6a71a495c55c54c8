"""What the machine has: device, threads, memory. The only place that asks."""

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from radiogen.errors import DeviceError

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much
DEVICES = "auto, cpu, cuda, cuda:N or mps"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc malloc.h


def no_progress(what: str, done: int, total: int) -> None:
    """For those who do not want to hear of progress."""


def pick_device(name: str = "auto") -> "torch.device":
    """The device for a name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: The name is unknown, or the device is not there.
    """
    import torch

    local = os.environ.get("LOCAL_RANK")  # torchrun: one device a process
    if name == "auto":
        if torch.cuda.is_available():
            return pick_device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if name == "cuda" and local is not None:
        name = f"cuda:{local}"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdecimal())):
        raise DeviceError(f"--device {name}", "is not a device", f"take {DEVICES}")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= int(index or 0):
            raise DeviceError(f"--device {name}", why_no_cuda(), "take --device cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"--device {name}", "this machine has no Metal device", "take --device cpu or auto")
    return torch.device(name)


def why_no_cuda() -> str:
    """Why there is no (further) CUDA device, in a few words."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no CUDA driver or no GPU"
    return f"there are {torch.cuda.device_count()} CUDA devices, counted from 0"


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 itself (AMX or AVX-512 BF16); others are far slower with it."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )


def keep_large_blocks() -> bool:
    """Let glibc keep big tensors instead of giving them back; halves page faults of 3D networks.

    Returns:
        Whether the setting was made (Linux with glibc only).
    """
    if sys.platform != "linux":
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        return bool(
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        )
    except (OSError, AttributeError):
        return False


def peak_memory_mb() -> float:
    """The largest resident size of this process so far, in MiB."""
    of_this = _number_after("/proc/self/status", "VmHWM:", 1024)  # getrusage also counts who started it
    if of_this is not None:
        return of_this / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def cpu_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float:
    """Memory of the machine in gigabytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def free_memory_mb(device: "torch.device | None" = None) -> float:
    """MiB that can still be taken: of a CUDA device, else of the machine within this process's limits.

    On Linux the smallest of what the kernel says is available, what the control group allows (containers,
    batch systems) and what `ulimit -v` leaves; elsewhere half of the machine's memory.
    """
    if device is not None and device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + kept) / 2**20
    limits = [free for free in (_available(), _free_of_group(), _free_of_limit()) if free is not None]
    return min(limits) / 2**20 if limits else memory_gb() * 1e9 / 2**21


def _available() -> int | None:
    return _number_after("/proc/meminfo", "MemAvailable:", 1024)


def _free_of_group() -> int | None:
    """Of the control group's limit; files that it only keeps at hand do not count as used."""
    for folder, limit, used, files in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _number_after(f"{folder}/{limit}"), _number_after(f"{folder}/{used}")
        if most is not None and now is not None:
            return max(0, most - now + (_number_after(f"{folder}/memory.stat", f"{files} ") or 0))
    return None


def _free_of_limit() -> int | None:
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    now = _number_after("/proc/self/status", "VmSize:", 1024)
    return None if most == resource.RLIM_INFINITY or now is None else max(0, most - now)


def _number_after(file: str, name: str = "", unit: int = 1) -> int | None:
    """The number behind a name in a file of the kernel; None if there is none."""
    try:
        with Path(file).open(encoding="ascii") as lines:
            words = next(line for line in lines if line.startswith(name)).removeprefix(name).split()
        return int(words[0]) * unit
    except (OSError, StopIteration, ValueError, IndexError):
        return None
