"""Whether torch is recording a network instead of running it; a recording keeps torch's own layers."""

import torch


def is_traced() -> bool:
    """Whether torch.compile, an export or a trace (as for OpenVINO) is looking."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
