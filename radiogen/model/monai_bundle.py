"""Write a MONAI bundle: the network as TorchScript, and the configuration of `python -m monai.bundle run`."""

import json
import warnings
from collections.abc import Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radiogen import __version__
from radiogen.errors import ConfigError, OutputError
from radiogen.model.folder import Model, ModelConfig
from radiogen.model.network_input import OVERLAP, SIGMA
from radiogen.provenance import write_json, write_text

ABOUT = "radiogen.json"  # the file within the archive that describes input and output


def write_script(
    network: nn.Module, windows: tuple[Tensor, ...], path: Path, about: Mapping[str, Any]
) -> None:
    """Record a network in evaluation mode as TorchScript.

    Args:
        network: Its weights are written with it.
        windows: Its inputs; their size is part of the file.
        path: The file.
        about: Stands in it as `radiogen.json`.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch about itself, and that sizes become constants
        traced = torch.jit.trace(network, windows, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(path), _extra_files={ABOUT: json.dumps(about, indent=2)})


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Load the TorchScript of `write_script` on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        loaded: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        return loaded


SCRIPT = "models/model.ts"
SCHEMAS = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download"
NOTE = "Research software, not for clinical use."


class BundleNetwork(nn.Module):
    """RA-Seg as MONAI's sliding window calls it: one tensor in MONAI's order of axes, the prior last.

    In: (B, C + 1, W, H, D); out: logits (B, 1, W, H, D).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, given: Tensor) -> Tensor:
        given = self.turned(given)  # (B, C + 1, D, H, W)
        return self.turned(self.network(given[:, :-1], given[:, -1:]))

    @staticmethod
    def turned(volume: Tensor) -> Tensor:
        """(B, C, D, H, W) from (B, C, W, H, D), and back."""
        return volume.permute(0, 1, 4, 3, 2).contiguous()


def check_bundle(model: Model, out: Path) -> None:
    """Refuse a model or a name that a bundle cannot have.

    Raises:
        ConfigError: The model does not keep the spacing.
        OutputError: The name ends as that of a file.
    """
    if model.config.preprocessing.layout != "patches":
        wrong = f"does not go with {model.folder.name}, which presses the box of the lungs into one window"
        raise ConfigError("--to monai-bundle", wrong, "take --to onnx or torchscript")
    if out.suffix.lower() in (".zip", ".ts", ".pt", ".onnx"):
        raise OutputError(out, "is a folder for --to monai-bundle", "leave the ending out")


def write_bundle(model: Model, given: tuple[Tensor, Tensor], folder: Path, about: Mapping[str, Any]) -> None:
    """Write the files of a bundle.

    Args:
        model: Its preprocessing keeps the spacing.
        given: Image (B, C, D, H, W) and prior (B, 1, D, H, W); their size is that of the bundle's windows.
        folder: An empty folder.
        about: Stands in the TorchScript file.
    """
    (folder / SCRIPT).parent.mkdir()
    window = BundleNetwork.turned(torch.cat(given, dim=1)[:1])
    write_script(BundleNetwork(model.network).eval(), (window,), folder / SCRIPT, about)
    size = list(window.shape[2:])
    write_json(folder / "configs" / "inference.json", inference(model.config, size))
    write_json(folder / "configs" / "metadata.json", metadata(model, size))
    write_text(folder / "docs" / "README.md", readme(model.config))


def inference(config: ModelConfig, size: list[int]) -> dict[str, Any]:
    """Compose configs/inference.json: one CT and one prior in, one mask on the CT's grid out."""
    seen = [f"window_{n}" for n in range(1, len(config.preprocessing.windows) + 1)]
    scaled = [
        {
            "_target_": "ScaleIntensityRanged",
            "keys": name,
            "a_min": window.low_hu,
            "a_max": window.high_hu,
            "b_min": 0.0,
            "b_max": 1.0,
            "clip": True,
        }
        for name, window in zip(seen, config.preprocessing.windows, strict=True)
    ]
    both = ["image", "prior"]
    before = [
        {"_target_": "LoadImaged", "keys": both, "ensure_channel_first": True},
        {"_target_": "ResampleToMatchd", "keys": "prior", "key_dst": "image", "mode": "nearest"},
        {"_target_": "Orientationd", "keys": both, "axcodes": "LPS", "labels": None},
        {
            "_target_": "Spacingd",
            "keys": both,
            "pixdim": list(config.preprocessing.spacing_mm),
            "mode": ["bilinear", "nearest"],
        },
        {"_target_": "ThresholdIntensityd", "keys": "prior", "threshold": 0.5, "above": False, "cval": 1.0},
        {"_target_": "CopyItemsd", "keys": "image", "names": seen, "times": len(seen)},
        *scaled,
        {"_target_": "ConcatItemsd", "keys": [*seen, "prior"], "name": "input"},
    ]
    after = [
        {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
            "to_tensor": True,
        },
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": config.threshold},
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": "lesion",
            "output_dtype": "$np.uint8",
            "resample": False,
            "separate_folder": False,
        },
    ]
    look = "{**one, 'pred': @inferer(one['input'].unsqueeze(0).to(@device), @network)[0].cpu()}"
    return {
        "imports": ["$import numpy as np", "$import torch"],
        "bundle_root": ".",
        "image": "ct.nii.gz",
        "prior": "prior.nii.gz",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network": f"$torch.jit.load(@bundle_root + '/{SCRIPT}', map_location=@device).eval()",
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": size,
            "sw_batch_size": 1,
            "overlap": OVERLAP,
            "mode": "gaussian",
            "sigma_scale": SIGMA,
        },
        "postprocessing": {"_target_": "Compose", "transforms": after},
        "initialize": ["$torch.set_grad_enabled(False)"],
        "run": [
            f"$[@postprocessing({look}) for one in [@preprocessing({{'image': @image, 'prior': @prior}})]]"
        ],
    }


def metadata(model: Model, size: list[int]) -> dict[str, Any]:
    """Compose configs/metadata.json: the inputs and outputs of the network, and its intended use."""
    config = model.config
    seen = [f"CT, {w.low_hu:g} to {w.high_hu:g} HU scaled to [0, 1]" for w in config.preprocessing.windows]
    spacing = " x ".join(f"{mm:g}" for mm in config.preprocessing.spacing_mm)
    channels = dict(enumerate([*seen, f"prior in [0, 1], where to look: {' or '.join(config.priors)}"]))
    patch = {"type": "image", "num_channels": len(channels), "spatial_shape": size, "dtype": "float32"}
    return {
        "schema": f"{SCHEMAS}/0.8.1/meta_schema_20220324.json",
        "version": __version__,
        "changelog": {__version__: f"exported by radiogen from the model {model.hash}"},
        "monai_version": packages.version("monai"),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": "5.2", "fire": "0.5"},
        "name": f"radiogen RA-Seg {config.preset}".strip(),
        "task": "Segmentation of lung lesions in CT, told by a prior where to look",
        "description": f"RA-Seg (arXiv 2211.06620) at {spacing} mm (x, y, z). {NOTE}",
        "authors": "whoever trained the model",
        "copyright": "as the data it was trained on",
        "data_source": "see MODEL_CARD.md of the model folder",
        "data_type": "nibabel",
        "image_classes": f"CT in HU, resampled to {spacing} mm",
        "label_classes": "0 background, 1 lesion",
        "pred_classes": "logits of a lesion",
        "intended_use": f"{NOTE} It segments what the prior points at and finds nothing by itself.",
        "references": ["https://arxiv.org/abs/2211.06620"],
        "network_data_format": {
            "inputs": {
                "image": {
                    **patch,
                    "format": "hounsfield",
                    "modality": "CT",
                    "value_range": [0, 1],
                    "is_patch_data": True,
                    "channel_def": channels,
                }
            },
            "outputs": {
                "pred": {
                    **patch,
                    "format": "logits",
                    "num_channels": 1,
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {"0": "lesion"},
                }
            },
        },
    }


def readme(config: ModelConfig) -> str:
    """Compose docs/README.md of a bundle: how it is run, and what radiogen does beyond it."""
    spacing = " x ".join(f"{mm:g}" for mm in config.preprocessing.spacing_mm)
    return f"""# RA-Seg as a MONAI bundle

{NOTE} In this folder:

    pip install 'monai[fire,nibabel]'
    python -m monai.bundle run --config_file configs/inference.json \\
        --image ct.nii.gz --prior prior.nii.gz --output_dir out

writes `out/ct_lesion.nii.gz` on the grid of the CT.

- `ct.nii.gz` is a CT in HU. It is turned to LPS and resampled to {spacing} mm.
- `prior.nii.gz` is above 0 where to look; the network knows these: {", ".join(config.priors)} ("none" is ones
  everywhere). It segments what the prior points at: with a bad prior its answer is bad.
- The TorchScript file holds one size of window and needs torch alone; the window slides by MONAI's inferer.

`radiogen segment` does more: it finds the lungs, looks lesion by lesion, looks at a box in voxels of a size
that suits it, cuts off what lies far outside a box, leaves out small parts, numbers lesions and scores each.
It smooths before it coarsens voxels and does not turn scans that lie flipped. So masks differ at the rim.
"""
