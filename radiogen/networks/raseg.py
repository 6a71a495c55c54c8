"""RA-Seg, the recurrent attention U-Net for lung tumours (arXiv:2211.06620)."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

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
    Recurrence,
    UpBlock,
    up_convolution,
)

SIZE_STEP = 16  # four halvings
MOST_DEVIATIONS = 3.0
LEAST_DEVIATION = 0.02  # of an image in [0, 1]: within a click there is only noise
FITTING_SIZES = f"multiples of {SIZE_STEP}, one of them larger than {SIZE_STEP}"


class RASegSettings(Settings):
    """Widths and switches of RA-Seg; the defaults are the published network of 70,599,240 weights.

    Attributes:
        in_channels: One for each CT window.
        full_width: Channels of a stage at full resolution, which the published network lacks; 0: none.
        relative: One more channel, the first window relative to its mean and standard deviation within the
            prior: whether a voxel is dense depends on what else the box holds, as a reader sees it.
        joint: A block between the join at full resolution and the logits. Without it the last convolution is
            linear in what comes from below and in what that stage holds: it can add "the lesion is about
            here" and "this voxel is tissue", but not say "tissue, and here, and not the wall".
        encoder_widths: Channels of encoder 1 to 4; each halves the size.
        recurrent_widths: Channels of the ConvLSTM layers.
        decoder_widths: Channels of decoder 4 to 2.
        both_ways: The recurrence walks the slices in both directions.
        gate: What the attention `a` makes of a skip `e`: `boost` e (1 + a), `learned` e (alpha + a).
        gate_norm: Norm within the attention.
        prior_resize: How the prior is made smaller: single points of it, or means.
        prior_head: Predict a coarse prior from the deepest encoder (voxels of 24 to 32 mm), as a second
            channel of the attention; it says in which corner of a patch the decoder should be bold.
        deep_supervision: How many coarser decoders give logits in training.
        dropout: Share of the voxels of a feature map that training leaves out.
    """

    in_channels: PositiveInt = 1
    full_width: int = Field(0, ge=0, description="width of a stage at full resolution; 0 leaves it out")
    relative: bool = Field(False, description="one more channel: HU relative to those within the prior")
    joint: bool = Field(False, description="a block after the join at full resolution, before the logits")
    encoder_widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256, 512)
    recurrent_widths: tuple[PositiveInt, ...] = (512, 512, 512)
    decoder_widths: tuple[PositiveInt, PositiveInt, PositiveInt] = (256, 128, 64)
    both_ways: bool = False
    gate: Gate = "boost"
    gate_norm: GateNorm = "batch"
    prior_resize: PriorResize = "trilinear"
    prior_head: bool = Field(False, description="predict where to look, a second channel of the attention")
    deep_supervision: int = Field(0, ge=0, le=2, description="coarser decoders that give logits in training")
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _recurrent(self) -> Self:
        if not self.recurrent_widths:
            raise ValueError("recurrent_widths must name at least one layer")
        if self.both_ways and min(self.recurrent_widths) < 2:
            raise ValueError("recurrent_widths must be at least 2 when both_ways is on")
        if self.joint and not self.full_width:
            raise ValueError("joint needs a stage at full resolution: give full_width")
        return self


class SupervisedLogits(NamedTuple):
    """All logits that a training compares with the mask; resolution falls from one to the next."""

    logits: Tensor  # (B, 1, D, H, W)
    sides: tuple[Tensor, ...]  # (B, 1, D/2, ..), (B, 1, D/4, ..)
    prior: Tensor | None  # (B, 1, D/16, ..), of the predicted prior


class RASeg(nn.Module):
    """Encoder, attention on the prior, recurrence over slices, decoder; returns logits.

    Sizes are multiples of 16, one of them larger than 16.
    """

    def __init__(self, settings: RASegSettings) -> None:
        super().__init__()
        self.settings = settings
        full, e, d = settings.full_width, settings.encoder_widths, settings.decoder_widths
        bottom, dropout = settings.recurrent_widths[-1], settings.dropout
        channels = settings.in_channels + settings.relative
        self.stem = ConvBlock(channels, full, dropout, stride=1) if full else None
        widths = [full or channels, *e]
        self.encoders = nn.ModuleList([ConvBlock(widths[i], widths[i + 1], dropout) for i in range(4)])
        self.attentions = nn.ModuleList(
            Attention(width, settings.gate_norm, settings.gate, settings.prior_resize, settings.prior_head)
            for width in e
        )
        self.recurrence = Recurrence(e[3], settings.recurrent_widths, settings.both_ways)
        self.decoder4 = UpBlock(bottom + e[3], d[0], dropout)
        self.decoder3 = UpBlock(d[0] + e[2], d[1], dropout)
        self.decoder2 = UpBlock(d[1] + e[1], d[2], dropout)
        self.decoder1 = UpBlock(d[2] + e[0], full, dropout) if full else up_convolution(d[2] + e[0], 1)
        self.joint = ConvBlock(2 * full, full, dropout, stride=1) if settings.joint else None
        joined = full if settings.joint else 2 * full
        self.head = nn.Conv3d(joined, 1, kernel_size=3, padding=1) if full else None
        self.prior_head = nn.Conv3d(e[3], 1, kernel_size=3, padding=1) if settings.prior_head else None
        coarser = [d[2], d[1]][: settings.deep_supervision]
        self.side_heads = nn.ModuleList([nn.Conv3d(width, 1, kernel_size=1) for width in coarser])

    @property
    def output_layers(self) -> tuple[str, ...]:
        """The names of the layers that make logits; pruning leaves them alone."""
        sides = [f"side_heads.{i}" for i in range(len(self.side_heads))]
        predicted = ["prior_head"] if self.prior_head is not None else []
        return ("head" if self.head is not None else "decoder1", *predicted, *sides)

    def forward(self, image: Tensor, prior: Tensor) -> Tensor:
        """Return logits (B, 1, D, H, W) for an image (B, C, D, H, W), a prior (B, 1, D, H, W) in [0, 1]."""
        return self.levels(image, prior)["logits"]

    def supervised(self, image: Tensor, prior: Tensor) -> SupervisedLogits:
        """Return the logits with those of the coarser decoders and of the predicted prior."""
        levels = self.levels(image, prior)
        coarse = (levels["decoder2"], levels["decoder3"])
        sides = tuple(head(level) for head, level in zip(self.side_heads, coarse, strict=False))
        return SupervisedLogits(levels["logits"], sides, levels.get("where"))

    def levels(self, image: Tensor, prior: Tensor) -> dict[str, Tensor]:
        """Return the output of every stage by its name; deep features are pooled from them.

        Raises:
            VolumeError: A size that the network cannot halve four times.
        """
        check_size(image.shape[2:])
        attend1, attend2, attend3, attend4 = self.attentions
        if self.settings.relative:
            image = torch.cat([image, relative_to_prior(image[:, :1], prior)], dim=1)  # (B, C + 1, D, H, W)
        full = image if self.stem is None else self.stem(image)  # (B, full, D, H, W)
        e1 = self.encoders[0](full)  # (B, 64, D/2, H/2, W/2) with the published widths
        e2 = self.encoders[1](e1)  # (B, 128, D/4, H/4, W/4)
        e3 = self.encoders[2](e2)  # (B, 256, D/8, H/8, W/8)
        e4 = self.encoders[3](e3)  # (B, 512, D/16, H/16, W/16)
        out = {"encoder1": e1, "encoder2": e2, "encoder3": e3, "encoder4": e4}
        predicted = None
        if self.prior_head is not None:
            out["where"] = self.prior_head(e4)  # (B, 1, D/16, H/16, W/16)
            predicted = torch.sigmoid(out["where"])
        r = self.recurrence(e4)  # (B, 512, D/16, H/16, W/16)
        # Each skip is gated where it is joined: at full size a gated skip is the largest tensor of all.
        d4 = self.decoder4(torch.cat([r, attend4(e4, prior, predicted)], dim=1))  # (B, 256, D/8, H/8, W/8)
        d3 = self.decoder3(torch.cat([d4, attend3(e3, prior, predicted)], dim=1))  # (B, 128, D/4, H/4, W/4)
        d2 = self.decoder2(torch.cat([d3, attend2(e2, prior, predicted)], dim=1))  # (B, 64, D/2, H/2, W/2)
        d1 = self.decoder1(torch.cat([d2, attend1(e1, prior, predicted)], dim=1))  # (B, full or 1, D, H, W)
        logits = d1
        if self.head is not None:
            joined = torch.cat([d1, full], dim=1)  # (B, 2 full, D, H, W)
            logits = self.head(joined if self.joint is None else self.joint(joined))  # (B, 1, D, H, W)
        out.update(recurrence=r, decoder4=d4, decoder3=d3, decoder2=d2, decoder1=d1, logits=logits)
        return out


def relative_to_prior(image: Tensor, prior: Tensor) -> Tensor:
    """Return an image relative to its mean and standard deviation within the prior.

    Args:
        image: (B, 1, D, H, W).
        prior: (B, 1, D, H, W) in [0, 1]; each voxel weighs as much as it says. Where it is 0 everywhere,
            the whole image takes its place.

    Returns:
        (B, 1, D, H, W), 0 at the mean, clipped to +-`MOST_DEVIATIONS`.
    """
    axes = (2, 3, 4)
    is_empty = prior.amax(dim=axes, keepdim=True) <= 0
    weight = torch.where(is_empty, torch.ones_like(prior), prior)
    total = weight.sum(dim=axes, keepdim=True)
    mean = (weight * image).sum(dim=axes, keepdim=True) / total
    variance = (weight * (image - mean).square()).sum(dim=axes, keepdim=True) / total
    deviations = (image - mean) / (variance + LEAST_DEVIATION**2).sqrt()
    return deviations.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)


class SupervisedRASeg(nn.Module):
    """RA-Seg as a training calls it: `forward` gives all logits that are compared with the mask."""

    def __init__(self, network: RASeg) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, prior: Tensor) -> SupervisedLogits:
        return self.network.supervised(image, prior)


def fits_raseg(size: Sequence[int]) -> bool:
    """Return whether RA-Seg can halve an array size (D, H, W) four times.

    The instance norm at the bottom needs two voxels: (32, 16, 16) fits, (16, 16, 16) does not.

    >>> fits_raseg((32, 16, 16)), fits_raseg((16, 16, 16)), fits_raseg((32, 24, 32))
    (True, False, False)
    """
    return all(n > 0 and n % SIZE_STEP == 0 for n in size) and any(n > SIZE_STEP for n in size)


def check_size(size: Sequence[int]) -> None:
    """Refuse an array size that `fits_raseg` does not accept.

    Raises:
        VolumeError: With the sizes that are.
    """
    if not fits_raseg(size):
        raise VolumeError(f"array of size {tuple(size)}", "does not fit RA-Seg", f"pad it to {FITTING_SIZES}")


def initialise(network: nn.Module, rng: torch.Generator) -> None:
    """Draw the start of every convolution and linear layer, as torch does by default (He et al. 2015).

    Weights are uniform in +-1/sqrt(fan_in), biases likewise; other parameters stay as they are built.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=rng)
            if module.bias is not None:
                bound = 1 / math.sqrt(nn.init._calculate_fan_in_and_fan_out(module.weight)[0])
                nn.init.uniform_(module.bias, -bound, bound, generator=rng)


def build_raseg(settings: RASegSettings, seed: int) -> RASeg:
    """Build RA-Seg at its start; the same settings and seed give the same weights."""
    network = RASeg(settings)
    initialise(network, torch.Generator().manual_seed(seed))
    return network


def weight_count(network: nn.Module) -> int:
    """Count the trainable numbers of a network."""
    return sum(parameter.numel() for parameter in network.parameters())
