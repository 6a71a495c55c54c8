"""What this machine offers radiogen: versions, device, codecs, memory, disk."""

import platform
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from radiogen import __version__
from radiogen.provenance import package_versions
from radiogen.runtime import cpu_count, memory_gb, pick_device, why_no_cuda

CODECS = (
    RLELossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2K,
)
OPTIONAL = {"lungmask": "lungs", "pyarrow": "parquet", "openvino": "openvino", "tensorboard": "track"}


def examine_machine() -> dict[str, Any]:
    """Versions, the device that `auto` takes and why not a better one, DICOM codecs, memory, disk."""
    device = pick_device("auto")
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
        "codecs": {uid.name: "yes" if get_decoder(uid).is_available else "no" for uid in CODECS},
    }
