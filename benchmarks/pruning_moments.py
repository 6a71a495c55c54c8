"""Time the hooks for the moments against the plain loop, in one run.

    python benchmarks/pruning_moments.py [--samples 16] [--repeats 3] [--threads 1]

Volumes are as many as `--samples`, images four times that. For each network: seconds (wall and processor,
medians over the repeats, all in turn) and the ratio of the loop's seconds to theirs, the check against the
loop included. States threads and whether glibc keeps large blocks.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn import functional as F

from radiogen.networks.classifiers import build_classifier
from radiogen.networks.raseg import RASeg, build_raseg
from radiogen.pruning.measuring import measure_moments
from radiogen.pruning.moments import gradient_moments
from radiogen.pruning.prunable import prunable
from radiogen.pruning.settings import Batch, Loss, MomentSettings
from radiogen.runtime import keep_large_blocks, peak_memory_mb
from radiogen.training.settings import load_preset
from radiogen.training.step import segmentation_loss

Case = tuple[nn.Module, list[Batch], Loss]


def image_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


def volume_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the binary cross-entropy of logits."""
    return F.binary_cross_entropy_with_logits(model(batch[0]), batch[1])


def image_case(samples: int) -> Case:
    """ResNet18 and images one by one, as the paper scores them."""
    batches = [(torch.randn(1, 3, 32, 32), torch.randint(10, (1,))) for _ in range(samples)]
    network = build_classifier("resnet18", channels=3, classes=10, seed=0)
    return network, batches, image_loss


def volume_case(samples: int) -> Case:
    """MONAI's residual 3D U-Net and patches of 64 cubed."""
    model = UNet(3, 1, 1, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)
    shape = (1, 1, 64, 64, 64)
    batches = [(torch.rand(shape), (torch.rand(shape) > 0.9).float()) for _ in range(samples)]
    return model, batches, volume_loss


def raseg_case(preset: str, samples: int) -> Case:
    """RA-Seg and patches of 64 cubed."""
    network = load_preset(preset).network
    shape = (1, 1, 64, 64, 64)
    batches = []
    for _ in range(samples):
        prior = torch.zeros(shape)
        prior[..., 16:48, 10:40, 20:50] = 1
        image = torch.rand(1, network.in_channels, 64, 64, 64)
        batches.append((image, prior, (torch.rand(shape) > 0.9).float() * prior))
    return build_raseg(network, 0), batches, segmentation_loss()


def published_loop(model: nn.Module, batches: list[Batch], loss: Loss, weights: dict[str, Tensor]) -> None:
    """Sample by sample as the published code sums its gradients, all layers of a sample at once."""
    total = [torch.zeros_like(w, requires_grad=False) for w in weights.values()]
    squares = [torch.zeros_like(w, requires_grad=False) for w in weights.values()]
    model.eval()
    for batch in batches:
        found = torch.autograd.grad(loss(model, batch), list(weights.values()))
        for place, gradient in enumerate(found):
            total[place] += gradient
            squares[place] += gradient**2


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def compare(name: str, case: Case, settings: MomentSettings, repeats: int) -> None:
    """Time the loops and the hooks in turn, and print medians and ratios to the plain loop."""
    model, batches, loss = case
    weights = prunable(model, exclude=model.output_layers if isinstance(model, RASeg) else ())
    works: dict[str, Callable[[], object]] = {"loop": lambda: gradient_moments(model, batches, loss, weights)}
    works["published"] = lambda: published_loop(model, batches, loss, weights)
    works["hooks"] = lambda: measure_moments(model, batches, loss, weights, settings)
    seconds: dict[str, list[tuple[float, float]]] = {label: [] for label in works}
    for _ in range(repeats):
        for label, work in works.items():
            try:
                seconds[label].append(timed(work))
            except Exception as error:
                print(f"{name:14} {label:10} {str(error)[:70]}")
    first = None
    for label, times in seconds.items():
        if not times:
            continue
        wall, processor = (statistics.median(t[i] for t in times) for i in (0, 1))
        first = first or (wall, processor)
        ratios = f"{first[0] / wall:5.2f} {first[1] / processor:5.2f}"
        print(
            f"{name:14} {label:10} {wall:8.2f} {processor:8.2f} {ratios}  {len(batches)} samples", flush=True
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-mb", type=int, default=512)
    parser.add_argument("--small-blocks", action="store_true", help="leave glibc's malloc as it is")
    names = ["resnet18", "unet3d", "raseg-small"]
    parser.add_argument("--networks", nargs="+", default=names, choices=names)
    chosen = parser.parse_args()
    kept = not chosen.small_blocks and keep_large_blocks()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {platform.machine()}, {chosen.threads} threads, blocks kept: {kept}")
    print(f"{'network':14} {'engine':10} {'wall s':>8} {'cpu s':>8} {'ratios':>11}")
    cases: dict[str, Callable[[], Case]] = {
        "resnet18": lambda: image_case(4 * chosen.samples),
        "unet3d": lambda: volume_case(chosen.samples),
        "raseg-small": lambda: raseg_case("small", chosen.samples),
        "raseg-modern": lambda: raseg_case("modern", chosen.samples),
        "raseg-paper": lambda: raseg_case("paper", chosen.samples),
    }
    settings = MomentSettings(engine="hooks", memory_mb=chosen.memory_mb)
    for name in chosen.networks:
        compare(name, cases[name](), settings, chosen.repeats)
        print(f"{name:14} peak memory so far {peak_memory_mb():.0f} MiB")


if __name__ == "__main__":
    main()
