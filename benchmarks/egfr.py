"""What train-egfr finds on the tables at hand, and how long it takes.

Run: python benchmarks/egfr.py ../shared/data [--jobs 2]

Two tables: the original clinical table of NSCLC-Radiogenomics (baselines), and the radiomics of LUNG1 with
two-year survival (5 x 5 nested folds, two classifiers; the limit is 3 minutes on two processors).
"""

import argparse
import tempfile
import time
from pathlib import Path

from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.train import EgfrTraining, train_egfr

ORIGINAL = "nsclc_radiogenomics_tables/NSCLCR01Radiogenomic_DATA_LABELS_2018-05-22_1500-shifted.csv"
HOSNY = "nsclc_radiomics_tables/nsclc-radiomics_hosny_baseline.csv"
LUNG1 = {
    "id_column": "id",
    "label_column": "surv2yr",
    "positive": "1",
    "volume_column": "original_shape_Volume",
}


def print_figures(name: str, started: float, done: EgfrTraining) -> None:
    print(f"\n{name}: {time.perf_counter() - started:.0f} s wall")
    print(f"  {done.patients} patients, {done.positives} {done.validation['positive']}")
    for candidate, figures in done.validation["candidates"].items():
        area = figures["auc"]
        print(f"  {candidate}: AUC {area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})")
    if done.permutation_p is not None:
        print(f"  p by shuffled labels {done.permutation_p:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        started = time.perf_counter()
        settings = EgfrSettings(inputs="clinical", jobs=arguments.jobs)
        print_figures(
            "original clinical table",
            started,
            train_egfr(None, out / "a", arguments.data / ORIGINAL, settings),
        )
        for classifier in ("logistic", "svc"):
            started = time.perf_counter()
            settings = EgfrSettings(classifier=classifier, permutations=0, jobs=arguments.jobs, **LUNG1)
            print_figures(
                f"LUNG1, {classifier}, 5 x 5",
                started,
                train_egfr(arguments.data / HOSNY, out / classifier, settings=settings),
            )


if __name__ == "__main__":
    main()
