"""Divide the patients of a case folder into those a training may see and those it must not."""

from collections import Counter
from pathlib import Path

import numpy as np

from radiogen.errors import ConfigError
from radiogen.io.cases import read_manifest, write_manifest


def split_cases(cases: Path, test_share: float, seed: int) -> dict[str, int]:
    """Write `train` or `test` into the manifest, by patient, stratified by EGFR status and hospital.

    Args:
        cases: A case folder with a manifest.
        test_share: Share of the patients that become `test`, between 0 and 1.
        seed: Seed of the draw; it does not depend on the order of the manifest.

    Returns:
        Number of cases in each split.

    Raises:
        ConfigError: The share leaves one side empty.
    """
    rows = read_manifest(cases)
    strata: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        strata.setdefault((row["egfr"], row.get("site", "")), set()).add(row["patient_id"])
    chance = np.random.default_rng(seed)
    test: set[str] = set()
    carried = 0.0
    for key in sorted(strata):
        patients = sorted(strata[key])
        carried += test_share * len(patients)
        count = min(len(patients), round(carried))
        carried -= count
        test |= {patients[i] for i in chance.permutation(len(patients))[:count]}
    if not 0 < len(test) < len({row["patient_id"] for row in rows}):
        raise ConfigError(f"--test {test_share:g}", "leaves one side empty", "take a share such as 0.3")
    for row in rows:
        row["split"] = "test" if row["patient_id"] in test else "train"
    write_manifest(cases, rows)
    return dict(Counter(row["split"] for row in rows))
