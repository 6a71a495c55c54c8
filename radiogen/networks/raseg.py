"""RA-Seg, the recurrent attention U-Net for lung tumours (arXiv:2211.06620)."""

import math
from typing import Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from radiogen.config import Settings
from radiogen.errors import VolumeError
from radiogen.networks.blocks import (
    Attention,
    ConvBlock,
    Gate,
    GateNorm,
    PriorResize,
    UpBlock,
    up_convolution,
)
from radiogen.networks.convlstm import Recurrence

SIZE_STEP = 16


class RASegSettings(Settings):
    """Widths and switches of RA-Seg; the defaults are the published network of 70,599,240 weights."""

    in_channels: PositiveInt = 1
    full_width: int = Field(0, ge=0, description="width of a stage at full resolution; 0 leaves it out")
    encoder_widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)
    recurrent_widths: tuple[PositiveInt, ...] = (512, 512, 512)
    decoder_widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (256, 128, 64)
    both_ways: bool = False
    gate: Gate = "boost"
    gate_norm: GateNorm = "batch"
    prior_resize: PriorResize = "trilinear"
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _recurrent(self) -> Self:
        if not self.recurrent_widths:
            raise ValueError("recurrent_widths must name at least one layer")
        if self.both_ways and min(self.recurrent_widths) < 2:
            raise ValueError("recurrent_widths must be at least 2 when both_ways is on")
        return self


class RASeg(nn.Module):
    """Encoder, attention on the prior, recurrence over slices, decoder; returns logits.

    Sizes are multiples of 16 and larger than 16. `OUTPUT_LAYERS` names what pruning must leave alone.
    """

    def __init__(self, settings: RASegSettings) -> None:
        super().__init__()
        self.settings = settings
        full, e, d = settings.full_width, settings.encoder_widths, settings.decoder_widths
        bottom, drop = settings.recurrent_widths[-1], settings.dropout
        self.stem = ConvBlock(settings.in_channels, full, drop, stride=1) if full else None
        widths = [full or settings.in_channels, *e]
        self.encoders = nn.ModuleList([ConvBlock(widths[i], widths[i + 1], drop) for i in range(4)])
        how = (settings.gate_norm, settings.gate, settings.prior_resize)
        self.attentions = nn.ModuleList([Attention(width, *how) for width in e])
        self.recurrence = Recurrence(e[3], settings.recurrent_widths, settings.both_ways)
        self.decoder4 = UpBlock(bottom + e[3], d[0], drop)
        self.decoder3 = UpBlock(d[0] + e[2], d[1], drop)
        self.decoder2 = UpBlock(d[1] + e[1], d[2], drop)
        self.decoder1 = UpBlock(d[2] + e[0], full, drop) if full else up_convolution(d[2] + e[0], 1)
        self.head = nn.Conv3d(2 * full, 1, kernel_size=3, padding=1) if full else None

    @property
    def output_layer(self) -> str:
        """The name of the layer that makes the logits; pruning leaves it alone."""
        return "head" if self.head is not None else "decoder1"

    def forward(self, image: Tensor, prior: Tensor) -> Tensor:
        """Logits (B, 1, D, H, W) for an image (B, C, D, H, W) and a prior (B, 1, D, H, W) in [0, 1]."""
        return self.levels(image, prior)["logits"]

    def levels(self, image: Tensor, prior: Tensor) -> dict[str, Tensor]:
        """The output of every stage by its name; deep features are pooled from them.

        Raises:
            VolumeError: A size that the network cannot halve four times.
        """
        check_size(image.shape[2:])
        stem = self.stem(image) if self.stem is not None else image  # (B, full, D, H, W)
        skips, x = [], stem
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)  # (B, e, D/2, ..), (B, e, D/4, ..), (B, e, D/8, ..), (B, e, D/16, ..)
        gated = [attend(e, prior) for attend, e in zip(self.attentions, skips, strict=True)]
        out = {f"encoder{i}": e for i, e in enumerate(skips, start=1)}
        out["recurrence"] = self.recurrence(x)  # (B, r, D/16, ..)
        out["decoder4"] = self.decoder4(torch.cat([out["recurrence"], gated[3]], dim=1))  # (B, d, D/8, ..)
        out["decoder3"] = self.decoder3(torch.cat([out["decoder4"], gated[2]], dim=1))  # (B, d, D/4, ..)
        out["decoder2"] = self.decoder2(torch.cat([out["decoder3"], gated[1]], dim=1))  # (B, d, D/2, ..)
        out["decoder1"] = self.decoder1(torch.cat([out["decoder2"], gated[0]], dim=1))  # (B, full|1, D, ..)
        out["logits"] = out["decoder1"]
        if self.head is not None:
            out["logits"] = self.head(torch.cat([out["decoder1"], stem], dim=1))
        return out  # logits: (B, 1, D, H, W)


def check_size(size: torch.Size) -> None:
    """Refuse an array size that is not a multiple of 16 larger than 16 on each axis."""
    if any(n % SIZE_STEP or n <= SIZE_STEP for n in size):
        raise VolumeError(
            f"array of size {tuple(size)}",
            "does not fit RA-Seg",
            f"pad each axis to a multiple of {SIZE_STEP} larger than {SIZE_STEP}",
        )


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the start of every convolution from the generator, as torch does by default (He et al. 2015).

    Weights are uniform in +-1/sqrt(fan_in), biases likewise; other parameters stay as they are made.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(nn.init._calculate_fan_in_and_fan_out(module.weight)[0])
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def build_raseg(settings: RASegSettings, seed: int) -> RASeg:
    """RA-Seg at its start; the same settings and seed give the same weights."""
    network = RASeg(settings)
    initialise(network, torch.Generator().manual_seed(seed))
    return network


def weight_count(network: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(parameter.numel() for parameter in network.parameters())
