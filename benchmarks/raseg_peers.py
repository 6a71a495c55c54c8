"""Compare RA-Seg `modern` and `small` with networks of MONAI at the same patch.

    python benchmarks/raseg_peers.py [--presets small modern] [--threads 1] [--repeats 5]
    radiogen demo -o DEMO
    python benchmarks/raseg_peers.py --cases DEMO/cases --train-minutes 10 --presets small

Peers get the image and the prior as channels of one input. UNet and DynUNet have the widths of the preset,
SegResNet starts from the width that the preset has at half size halved. Each network works in a process of
its own that keeps large blocks, in turn with the others; medians over the repeats, processor seconds of all
threads beside wall seconds. MiB is the peak beyond what the process held before the network was made, weights
included. A training step is forward, Dice and cross-entropy, backward, AdamW; that of RA-Seg has its side
logits and its predicted prior.

With --train-minutes each network learns that many minutes of processor time from the same patches (those of
radiogen train, on coarse voxels) and is asked for the lesions of the split `test`: mean Dice with the box of
the outline, the lungs, and nothing as prior. Prints Markdown tables.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch
from monai.networks.nets import DynUNet, SegResNet, UNet
from raseg_ablation import COARSE, PRIORS
from side_by_side import Side, side_by_side
from torch import Tensor, nn

from radiogen.io.cases import find_cases
from radiogen.networks.raseg import RASeg, SupervisedRASeg, build_raseg, weight_count
from radiogen.pruning.costs import count_macs
from radiogen.runtime import keep_large_blocks
from radiogen.training.batches import TrainingBatches
from radiogen.training.patches import PatchDataset
from radiogen.training.prepared import PreparedCase, prepare
from radiogen.training.settings import RunSettings, load_preset
from radiogen.training.step import make_optimizer, segmentation_loss
from radiogen.training.validation import validate

CPU = torch.device("cpu")
OURS, PEERS = "RA-Seg", ("UNet", "SegResNet", "DynUNet")


class Concatenated(nn.Module):
    """A network of one input that gets image and prior as channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, prior: Tensor) -> Tensor:
        logits: Tensor = self.network(torch.cat([image, prior], dim=1))
        return logits


def build(name: str, settings: RunSettings) -> nn.Module:
    """A network by its name, with the widths of a preset; the same start every time."""
    torch.manual_seed(0)
    network = settings.network
    if name == OURS:
        return build_raseg(network, 0)
    seen, widths = network.in_channels + 1, (network.full_width, *network.encoder_widths)
    if name == "UNet":
        return Concatenated(UNet(3, seen, 1, channels=widths, strides=(2,) * 4))
    if name == "SegResNet":
        return Concatenated(SegResNet(3, init_filters=widths[1] // 2, in_channels=seen, out_channels=1))
    strides = [1, 2, 2, 2, 2]
    return Concatenated(
        DynUNet(3, seen, 1, kernel_size=[3] * 5, strides=strides, upsample_kernel_size=strides[1:],
                filters=list(widths))
    )  # fmt: skip


def patches(settings: RunSettings) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of one patch; which values it has does not matter for the time."""
    rng = torch.Generator().manual_seed(0)
    size = settings.preprocessing.size
    image, target = (torch.rand(1, n, *size, generator=rng) for n in (settings.network.in_channels, 1))
    return image, (target > 0.9).float(), (target > 0.95).float()


def forward(name: str, settings: RunSettings) -> Callable[[], object]:
    """One patch through a network."""
    network, (image, prior, _) = build(name, settings).eval(), patches(settings)

    def once() -> None:
        with torch.inference_mode():
            network(image, prior)

    return once


def step(name: str, settings: RunSettings) -> Callable[[], object]:
    """One step of training with one patch."""
    learner, batch = Learner(build(name, settings).train(), settings), patches(settings)
    return lambda: learner.take(batch)


class Learner:
    """A network and how it learns from a batch."""

    def __init__(self, network: nn.Module, settings: RunSettings) -> None:
        self.network, self.longest = network, settings.training.gradient_norm
        self.loss, self.optimizer = segmentation_loss(), make_optimizer(network, settings.training)
        self.asked = SupervisedRASeg(network) if isinstance(network, RASeg) else network

    def take(self, batch: tuple[Tensor, ...]) -> None:
        """One step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.asked, batch).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.longest)
        self.optimizer.step()


def costs(preset: str, threads: int, repeats: int) -> None:
    """Print the table of one preset."""
    settings = load_preset(preset)
    names = (OURS, *PEERS)
    forwards = side_by_side([Side(name, forward, (name, settings)) for name in names], threads, repeats)
    steps = side_by_side([Side(name, step, (name, settings)) for name in names], threads, repeats)
    size = " x ".join(map(str, settings.preprocessing.size))
    print(f"\n{preset}, one patch of {size}, {threads} threads\n")
    print(
        "| network | weights | GMAC | forward, wall s | processor s | MiB "
        "| step, wall s | processor s | MiB |"
    )
    print("| --- |" + " --- |" * 8)
    for name in names:
        network, run, learn = build(name, settings).eval(), forwards[name], steps[name]
        macs = count_macs(network, patches(settings)[:2]) / 1e9
        print(f"| {name if name != OURS else f'{OURS} `{preset}`'} | {weight_count(network):,} | {macs:.2f} "
              f"| {run.wall:.3f} | {run.cpu:.3f} | {run.peak_mb:.0f} "
              f"| {learn.wall:.3f} | {learn.cpu:.3f} | {learn.peak_mb:.0f} |", flush=True)  # fmt: skip


def learnt(
    name: str, settings: RunSettings, learn: list[PreparedCase], test: list[PreparedCase], minutes: float
) -> tuple[int, dict[str, float]]:
    """Train for some minutes of processor time; how many steps that were, and the mean Dice by prior."""
    network = build(name, settings).train()
    learner = Learner(network, settings)
    dataset = PatchDataset(learn, settings.preprocessing, settings.training, 0)
    batches = TrainingBatches(dataset, settings.training, 0, CPU).from_step(0, 0)
    steps, spent = 0, 0.0
    while spent < 60 * minutes:
        (batch,) = next(batches)  # drawing patches costs all networks the same and does not count
        began = time.process_time()
        for group in learner.optimizer.param_groups:
            group["lr"] = settings.training.learning_rate * (1 - spent / (60 * minutes)) ** 0.9
        learner.take(batch.patches)
        spent += time.process_time() - began
        steps += 1
    rows = validate(network, test, settings.preprocessing, PRIORS, CPU)
    return steps, {prior: mean(row["dice"] for row in rows if row["prior"] == prior) for prior in PRIORS}


def scores(preset: str, cases: Path, minutes: float) -> None:
    """Print the table of Dice at equal training time."""
    keep_large_blocks()
    settings = load_preset(preset, overrides=[*COARSE, "training.epochs=100000"])
    found = [case for case in find_cases(cases) if case.has_lesion]
    with tempfile.TemporaryDirectory() as cache:
        learn, test = (
            prepare([case for case in found if (case.split == "test") is held], settings.preprocessing,
                    Path(cache)) for held in (False, True)
        )  # fmt: skip
        print(f"\n{preset} on coarse voxels: {len(learn)} cases to learn from, {len(test)} to test on, "
              f"{minutes:g} minutes of processor time\n")  # fmt: skip
        print("| network | steps | box (oracle) | lungs | nothing |\n| --- | --- | --- | --- | --- |")
        for name in (OURS, *PEERS):
            steps, dice = learnt(name, settings, learn, test, minutes)
            cells = " | ".join(f"{dice[prior]:.3f}" for prior in PRIORS)
            print(f"| {name} | {steps} | {cells} |", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=["small", "modern"], default=["small", "modern"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", type=Path, help="cases with a split, such as those of radiogen demo")
    parser.add_argument("--train-minutes", type=float, default=0.0)
    asked = parser.parse_args()
    if asked.train_minutes and asked.cases is None:
        parser.error("--train-minutes needs --cases")
    torch.set_num_threads(asked.threads)
    print(f"torch {torch.__version__}, {platform.machine()}, medians of {asked.repeats}")
    for preset in asked.presets:
        if asked.train_minutes:
            scores(preset, asked.cases, asked.train_minutes)
        else:
            costs(preset, asked.threads, asked.repeats)


if __name__ == "__main__":
    main()
