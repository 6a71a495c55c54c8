"""A plain reading of the published RA-Seg (arXiv:2211.06620), as somebody would write it who reads the paper.

Slices are walked one by one, all gates come from one convolution over [input, hidden], and every layer is
torch's own. Names are those of the published weights, so that `load_published` takes its state.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (64, 128, 256, 512)


class Adn(nn.Module):
    """Norm, dropout, activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.N = nn.InstanceNorm3d(width)
        self.D = nn.Dropout(0.1)
        self.A = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.A(self.D(self.N(x)))


class Down(nn.Module):
    """A stage of the encoder."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(before, width, 3, stride=2, padding=1)
        self.adn = Adn(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.adn(self.conv(x))


class Up(nn.Module):
    """A stage of the decoder; the last one is the bare convolution."""

    def __init__(self, before: int, width: int, is_last: bool = False) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose3d(before, width, 3, stride=2, padding=1, output_padding=1)
        self.adn = nn.Identity() if is_last else Adn(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.adn(self.conv(x))


class Attention(nn.Module):
    """The prior, as a map for every channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, width, 3, padding=1)
        self.adn = nn.ModuleDict({"N": nn.BatchNorm3d(width)})

    def forward(self, encoded: Tensor, prior: Tensor) -> Tensor:
        a = torch.sigmoid(
            self.adn["N"](self.conv(functional.interpolate(prior, encoded.shape[2:], mode="trilinear")))
        )
        return encoded + encoded * a


class Cell(nn.Module):
    """A cell of the ConvLSTM."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.conv = nn.Conv2d(before + width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = torch.split(self.conv(torch.cat([x, hidden], dim=1)), self.width, dim=1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class ConvLSTM(nn.Module):
    """Three layers, slice by slice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell_list = nn.ModuleList([Cell(width, width) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W)
        sequence = x.permute(0, 2, 1, 3, 4)
        for cell in self.cell_list:
            hidden = memory = torch.zeros_like(sequence[:, 0])
            states = []
            for index in range(sequence.shape[1]):
                hidden, memory = cell(sequence[:, index], hidden, memory)
                states.append(hidden)
            sequence = torch.stack(states, dim=1)
        return sequence.permute(0, 2, 1, 3, 4)


class PlainRASeg(nn.Module):
    """The published network; gives logits."""

    def __init__(self) -> None:
        super().__init__()
        for stage, (before, width) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False), start=1):
            setattr(self, f"encoder{stage}", Down(before, width))
            setattr(self, f"a2o_encoder{stage}", Attention(width))
        self.bottom = ConvLSTM(WIDTHS[-1])
        self.decoder4 = Up(1024, 256)
        self.decoder3 = Up(512, 128)
        self.decoder2 = Up(256, 64)
        self.decoder1 = Up(128, 1, is_last=True)

    def forward(self, image: Tensor, prior: Tensor) -> Tensor:
        e1 = self.encoder1(image)
        e2 = self.encoder2(e1)
        e3 = self.encoder3(e2)
        e4 = self.encoder4(e3)
        g1, g2 = self.a2o_encoder1(e1, prior), self.a2o_encoder2(e2, prior)
        g3, g4 = self.a2o_encoder3(e3, prior), self.a2o_encoder4(e4, prior)
        x = self.decoder4(torch.cat([self.bottom(e4), g4], dim=1))
        x = self.decoder3(torch.cat([x, g3], dim=1))
        x = self.decoder2(torch.cat([x, g2], dim=1))
        return self.decoder1(torch.cat([x, g1], dim=1))
