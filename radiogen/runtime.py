"""Find what the machine has: device, processors, memory, packages. No other file asks."""

import ctypes
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radiogen import __version__
from radiogen.errors import DeviceError

if TYPE_CHECKING:
    import torch

AnyPath = str | os.PathLike[str]
Progress = Callable[[str, int, int], None]  # name of the step, parts of it that are done, parts in all
PACKAGES = ("torch", "monai", "SimpleITK", "pydicom", "highdicom", "numpy", "scikit-learn", "pandas")
OPTIONAL = {"lungmask": "lungs", "pyarrow": "parquet", "openvino": "openvino", "tensorboard": "track"}
DEVICES = "auto, cpu, cuda, cuda:N or mps"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc malloc.h


def no_progress(step: str, done: int, total: int) -> None:
    """Ignore progress."""


def pick_device(name: "str | torch.device" = "auto") -> "torch.device":
    """Return the device of a name; `auto` takes CUDA, then MPS, then the CPU.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; a device is returned as it is.

    Raises:
        DeviceError: The name is unknown, or the device is not there.
    """
    import torch

    if isinstance(name, torch.device):
        return name
    local_rank = os.environ.get("LOCAL_RANK")  # of torchrun, which starts one process a device
    if name == "auto":
        if torch.cuda.is_available():
            return pick_device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
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
    """Return why there is no (further) CUDA device, in a few words."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    if not torch.cuda.is_available():
        return "torch finds no CUDA driver or no GPU"
    return f"there are {torch.cuda.device_count()} CUDA devices, counted from 0"


def has_fast_bfloat16() -> bool:
    """Return whether this CPU has bfloat16 instructions (AMX, AVX-512 BF16); others are 25 times slower."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )


def keep_large_blocks() -> bool:
    """Let glibc keep the memory of big tensors instead of returning it to the system.

    Otherwise half of a large 3D forward pass goes into page faults: this is 1.8 times faster at 96 cubed, in
    training 1.5 times, on two cores.

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
    """Return the largest resident size of this process so far, in MiB."""
    peak_bytes = _number_after("/proc/self/status", "VmHWM:", 1024)  # getrusage counts the parent before exec
    if peak_bytes is not None:
        return peak_bytes / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def cpu_count() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gb() -> float:
    """Return the memory of the machine in gigabytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def free_memory_mb(device: "torch.device | None" = None) -> float:
    """Return the free memory in MiB: of a CUDA device, else of the machine within this process's limits.

    On Linux the smallest of what the kernel says is available, what the control group allows (containers,
    batch systems) and what `ulimit -v` leaves; elsewhere half of the machine's memory.
    """
    if device is not None and device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(free + cached) / 2**20
    available = _number_after("/proc/meminfo", "MemAvailable:", 1024)
    limits = [free for free in (available, _free_of_group(), _free_of_limit()) if free is not None]
    return min(limits) / 2**20 if limits else memory_gb() * 1e9 / 2**21


def _free_of_group() -> int | None:
    """Return the bytes that the control group's limit leaves; its file cache does not count as used."""
    for folder, limit, used, files in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        allowed, taken = _number_after(f"{folder}/{limit}"), _number_after(f"{folder}/{used}")
        if allowed is not None and taken is not None:
            return max(0, allowed - taken + (_number_after(f"{folder}/memory.stat", f"{files} ") or 0))
    return None


def _free_of_limit() -> int | None:
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = _number_after("/proc/self/status", "VmSize:", 1024)
    return None if allowed == resource.RLIM_INFINITY or taken is None else max(0, allowed - taken)


def _number_after(file: str, name: str = "", unit: int = 1) -> int | None:
    """Return the number behind a name in a file of the kernel; None if there is none."""
    try:
        with Path(file).open(encoding="ascii") as lines:
            words = next(line for line in lines if line.startswith(name)).removeprefix(name).split()
        return int(words[0]) * unit
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory was not enough, on any device."""
    import torch

    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in text for words in ("out of memory", "can't allocate memory", "not enough memory"))
    )


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide a result."""
    return {name: _version(name) for name in PACKAGES}


@cache  # parsing the metadata took a third of the time of a small case
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def examine_machine() -> dict[str, Any]:
    """Return versions, the device that `auto` takes and why not a better one, DICOM codecs, memory, disk."""
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    device = pick_device("auto")
    syntaxes = (
        uid.RLELossless,
        uid.JPEGBaseline8Bit,
        uid.JPEGLosslessSV1,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.HTJ2K,
    )
    return {
        "radiogen": __version__,
        "python": platform.python_version(),
        "packages": package_versions(),
        "optional": {
            name: "there" if find_spec(name) else f"absent: pip install 'radiogen[{extra}]'"
            for name, extra in OPTIONAL.items()
        },
        "device": str(device),
        "why no cuda": why_no_cuda() if device.type != "cuda" else "",
        "processors": cpu_count(),
        "memory_gb": round(memory_gb(), 1),
        "free_disk_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "codecs": {syntax.name: "yes" if get_decoder(syntax).is_available else "no" for syntax in syntaxes},
    }
