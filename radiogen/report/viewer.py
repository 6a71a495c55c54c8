"""The viewer of a case: its volumes, masks and windows, and the scripts that a page carries for it.

The viewer (NiiVue, one minified file) travels inside the page: a page that needs a server, a network or a
folder beside it cannot be opened a year later.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import SimpleITK as sitk

from radiogen.drawing.panels import COLORS, LUNG, SOFT_TISSUE, DisplayWindow, color_of
from radiogen.drawing.planes import Point, patient_axes, widest_cut
from radiogen.measures.lesions import measure_lesions
from radiogen.report.viewer_volumes import (
    HEAVIEST_BYTES,
    OUTLINED,
    STEP_HU,
    PackedVolumes,
    pack_for_page,
    pack_solid,
    pack_whole,
)

LIBRARY, SCRIPT = "niivue.min.js", "viewer.js"
BONE = DisplayWindow(-450.0, 1050.0)
WINDOWS = {"Lung": LUNG, "Soft tissue": SOFT_TISSUE, "Bone": BONE}
TITLES = {"lesion": "lesions", "reference": "known outline", "lungs": "lungs"}
# Of 255: the lungs are nearly transparent, so that lesions are visible inside.
SOLID_ALPHA = {"lungs": 9}
MOST_STOPS = 12  # lesions that can be jumped to


@dataclass(frozen=True)
class JumpTarget:
    """A place to jump to: the text of its button, and where it lies in LPS millimetres."""

    title: str
    at_mm: Point


@dataclass(frozen=True)
class MaskLayer:
    """A mask in the viewer: its name, the text of its switch, and its colour."""

    name: str
    title: str
    swatch: str
    labels: int

    def about(self) -> dict[str, Any]:
        """Return the entry of the mask in the JSON of the script."""
        # NiiVue takes a colour for each label; lesions of one mask have the same.
        colors = [_rgb(self.swatch)] * self.labels
        return {"name": self.name, "colors": colors, "is_edge": self.name in OUTLINED}


@dataclass(frozen=True)
class Viewer:
    """The content of a page's viewer."""

    volumes: Mapping[str, bytes]  # NIfTI files by name: ct, the masks, and solid-... for the view in space
    masks: tuple[MaskLayer, ...]  # in the order in which they lie over the CT
    stops: tuple[JumpTarget, ...]  # lesions, the largest first
    start_mm: Point  # of the cross, LPS
    note: str  # which voxels are shown
    address: str = ""  # where the volumes lie; empty where the page carries them

    @property
    def windows(self) -> list[dict[str, Any]]:
        """The window presets; the first is shown at the start."""
        return [{"name": name, "low_hu": w.low_hu, "high_hu": w.high_hu} for name, w in WINDOWS.items()]

    @property
    def solids(self) -> list[dict[str, Any]]:
        """The surfaces of the view in space."""
        solids = []
        for volume in self.volumes:
            name = volume.removeprefix("solid-")
            if name != volume:
                alpha = SOLID_ALPHA.get(name, 255)
                solids.append({**self._place(volume), "color": _rgb(COLORS[name]), "alpha": alpha})
        return solids

    @property
    def about(self) -> dict[str, Any]:
        """All that the script reads, as JSON."""
        return {
            "windows": self.windows,
            "ct": self._place("ct"),
            "masks": [{**mask.about(), **self._place(mask.name)} for mask in self.masks],
            "solids": self.solids,
            "start_mm": list(self.start_mm),
        }

    @property
    def inlined(self) -> dict[str, str]:
        """The volumes that the page carries, as base64."""
        if self.address:
            return {}
        return {name: base64.b64encode(content).decode("ascii") for name, content in self.volumes.items()}

    @property
    def library(self) -> str:
        return asset(LIBRARY)

    @property
    def script(self) -> str:
        return asset(SCRIPT)

    @property
    def policy(self) -> str:
        """The content security policy: these two scripts and no others, nothing from a network.

        Hashes instead of 'unsafe-inline': should a string of a run slip through an escape, it does not run.
        """
        scripts = " ".join(_hash_of(asset(name)) for name in (LIBRARY, SCRIPT))
        # Only the viewer of `radiogen view` fetches volumes, from its own server.
        connect = "connect-src 'self'; " if self.address else ""
        return f"script-src {scripts}; {connect}"

    def _place(self, name: str) -> dict[str, str]:
        return {"name": name, "url": f"{self.address}{name}.nii.gz"} if self.address else {"name": name}


def make_viewer(
    ct: sitk.Image, masks: Mapping[str, sitk.Image], heaviest_bytes: int = HEAVIEST_BYTES
) -> Viewer:
    """Make a viewer that travels inside a page.

    Args:
        ct: HU.
        masks: `lesion`, `reference`, `lungs` or others, on the grid of `ct`.
        heaviest_bytes: Of the packed CT.
    """
    packed = pack_for_page(ct, masks, heaviest_bytes)
    return _viewer(ct, masks, packed, _note(packed))


def make_viewer_of_whole(ct: sitk.Image, masks: Mapping[str, sitk.Image], address: str) -> Viewer:
    """Make a viewer of the volumes as they are, which lie under an address beside the page."""
    note = f"Shown are the voxels of the file, {_mm(ct.GetSpacing())}."
    return _viewer(ct, masks, pack_whole(ct, masks), note, address)


def _viewer(
    ct: sitk.Image, masks: Mapping[str, sitk.Image], packed: PackedVolumes, note: str, address: str = ""
) -> Viewer:
    solid = {name: pack_solid(masks[name]) for name in ("lungs", "lesion") if name in masks}
    shown = [_mask_layer(name, mask, list(masks)) for name, mask in masks.items()]
    # The viewer draws in this order, so lesions lie on top of the lungs.
    shown.sort(key=lambda mask: mask.name != "lungs")
    stops = _stops(masks)
    return Viewer(
        {"ct": packed.ct, **packed.masks, **{f"solid-{name}": content for name, content in solid.items()}},
        tuple(shown),
        stops[:MOST_STOPS],
        stops[0].at_mm if stops else _middle(ct, masks),
        note,
        address,
    )


def asset(name: str) -> str:
    """Read a text file that lies beside this one."""
    return resources.files("radiogen.report").joinpath(name).read_text(encoding="utf-8")


def _mask_layer(name: str, mask: sitk.Image, names: Sequence[str]) -> MaskLayer:
    labels = int(sitk.GetArrayViewFromImage(mask).max())
    return MaskLayer(name, TITLES.get(name, name), color_of(name, names), max(1, labels))


def _stops(masks: Mapping[str, sitk.Image]) -> tuple[JumpTarget, ...]:
    """Return the lesions of the first mask that has some, the largest first; lungs are none."""
    for name in sorted((name for name in masks if name != "lungs"), key=lambda name: name != "lesion"):
        lesions = sorted(measure_lesions(masks[name]), key=lambda lesion: -lesion.volume_ml)
        if lesions:
            word = "Lesion" if name == "lesion" else "Outline"
            return tuple(
                JumpTarget(f"{word} {lesion.label} · {lesion.volume_ml:.2f} mL", lesion.center_mm)
                for lesion in lesions
            )
    return ()


def _middle(ct: sitk.Image, masks: Mapping[str, sitk.Image]) -> Point:
    axes = patient_axes(ct)
    cut = widest_cut(axes.oriented(masks["lungs"]), axes.spacing_mm) if "lungs" in masks else None
    x, y, z = (ct.GetSize()[axis] // 2 for axis in axes.axes)
    return axes.point_at(ct, cut.index if cut else (x, y, z))


def _note(packed: PackedVolumes) -> str:
    whole = f"the voxels of the CT, {_mm(packed.original_mm)}"
    coarser = f"voxels of {_mm(packed.spacing_mm)}, coarser than those of the CT ({_mm(packed.original_mm)})"
    cut = ", cut to the chest" if packed.is_cut else ""
    return (
        f"The viewer shows {coarser if packed.is_coarser else whole}{cut}, in steps of {STEP_HU} HU. "
        "Every measurement on this page was made on the original."
    )


def _mm(spacing: Sequence[float]) -> str:
    return " × ".join(f"{value:.2f}" for value in spacing) + " mm"


def _rgb(color: str) -> list[int]:
    """Return red, green and blue of a colour, 0 to 255.

    >>> _rgb("#E69F00")
    [230, 159, 0]
    """
    return list(bytes.fromhex(color.lstrip("#")))


def _hash_of(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
