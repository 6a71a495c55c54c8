"""Time what a patch of a training costs, change by change, against the same patch as it lies in the cache.

    PYTHONPATH=tests python benchmarks/patches.py [--preset small] [--cases FOLDER] [--patches 40]

Without a case folder two phantoms of about the size of a chest are made. For the plain patch, each
change of `training.augmentation` alone in every patch, all of them as the preset draws them, and synthetic
lesions in every patch: processor milliseconds a patch (mean over the patches, median over the repeats, sides
in turn) and the ratio to the plain patch. One thread.
"""

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from tiny_cases import tiny_cases

from radiogen.io.cases import find_cases
from radiogen.phantoms.chest import ChestSize
from radiogen.training.patches import PatchDataset
from radiogen.training.prepared import PreparedCase, prepare
from radiogen.training.settings import Augmentation, RunSettings, load_preset

CHEST = ChestSize((180, 150, 100), (1.7, 1.7, 2.5))
SHARES = ("affine", "elastic", "kernel", "thick", "dose")
OTHERS = ("flip", "noise_hu", "shift_hu", "slope")
NOTHING = dict.fromkeys((*SHARES, *OTHERS), 0)


def sides(settings: RunSettings) -> dict[str, RunSettings]:
    """The settings that are compared, by name."""
    usual = settings.training.augmentation

    def with_(made: float = 0.0, **changes: float) -> RunSettings:
        values = {**usual.model_dump(), **NOTHING, **changes}
        update = {"augmentation": Augmentation(**values), "synthetic_lesions": made}
        return settings.model_copy(update={"training": settings.training.model_copy(update=update)})

    every = {name: getattr(usual, name) for name in NOTHING}
    return {
        "plain": with_(),
        **{name: with_(**{name: 1.0}) for name in SHARES},
        "noise_hu": with_(noise_hu=usual.noise_hu),
        "all, as drawn": with_(**every),
        "all, a lesion made": with_(made=1.0, **every),
    }


def milliseconds(cases: list[PreparedCase], settings: RunSettings, count: int) -> float:
    """Mean processor time of a patch."""
    data = PatchDataset(cases, settings.preprocessing, settings.training, seed=0)
    start = time.process_time()
    for number in range(count):
        data[0, number]
    return (time.process_time() - start) / count * 1e3


def main() -> None:
    """Prepare, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--patches", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    settings = load_preset(asked.preset)
    with tempfile.TemporaryDirectory() as folder:
        if asked.cases is None:
            tiny_cases(Path(folder) / "cases", 2, size=CHEST)
        found = find_cases(asked.cases or Path(folder) / "cases")
        cases = prepare(found, settings.preprocessing, Path(folder) / "cache")
        compared = sides(settings)
        times: dict[str, list[float]] = {name: [] for name in compared}
        for _ in range(asked.repeats):
            for name, some in compared.items():
                times[name].append(milliseconds(cases, some, asked.patches))
    middle = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{platform.machine()}, one thread; preset {asked.preset}, patches of {settings.preprocessing.size}"
    )
    for name, value in middle.items():
        print(f"{name:20s} {value:7.1f} ms {value / middle['plain']:5.1f} x plain")


if __name__ == "__main__":
    main()
