"""Split the patients of a case folder into those a network may learn from and those that test it."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from radiogen.errors import ConfigError, OutputError
from radiogen.io.cases import MANIFEST, Case, find_cases, read_manifest, write_manifest
from radiogen.provenance import write_json
from radiogen.volume import pixels_sha256


def pixels_of(case: Case) -> str:
    """Return the hash of a case's CT voxels: as ingest wrote it, else computed; empty without a CT.

    Raises:
        RadiogenError: The CT cannot be read.
    """
    return case.scan or (pixels_sha256(case.ct()) if case.ct_path.is_file() else "")


def twins(folder: Path) -> tuple[tuple[str, ...], ...]:
    """Return groups of case ids, of different patients, whose CTs have the same voxels, as ingest wrote."""
    if not (folder / MANIFEST).is_file():
        return ()
    cases = find_cases(folder)
    return groups_of_twins(cases, {case.case_id: case.scan for case in cases})


def groups_of_twins(cases: Sequence[Case], pixels: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return case ids of different patients with one hash, each group and all groups sorted."""
    by_hash: dict[str, list[Case]] = {}
    for case in cases:
        if pixels[case.case_id]:
            by_hash.setdefault(pixels[case.case_id], []).append(case)
    groups = (same for same in by_hash.values() if len({case.patient_id for case in same}) > 1)
    return tuple(sorted(tuple(sorted(case.case_id for case in same)) for same in groups))


SPLIT = "split.json"


@dataclass(frozen=True)
class DrawnSplit:
    """Number of cases in each split, and cases of different patients that hold one scan."""

    counts: dict[str, int]
    twins: tuple[tuple[str, ...], ...]


def draw_split(
    cases: Path, test_share: float, seed: int, existing: Literal["skip", "overwrite"] = "skip"
) -> DrawnSplit:
    """Write `train` or `test` into the manifest, by patient, stratified by EGFR status and hospital.

    Two ids whose scans hold the same voxels are one patient. What was drawn, and the hashes of what it was
    drawn from, are kept in `split.json`.

    Args:
        cases: A case folder with a manifest.
        test_share: Share of the patients that become `test`, between 0 and 1.
        seed: Seed of the draw; it does not depend on the order of the manifest.
        existing: `overwrite` draws anew where the cases have changed since the same draw.

    Raises:
        ConfigError: The share leaves one side empty.
        OutputError: The cases have changed since the last draw with this share and seed.
    """
    rows = read_manifest(cases)
    found = find_cases(cases)
    pixels = {case.case_id: pixels_of(case) for case in found}
    same = groups_of_twins(found, pixels)
    drawn_from = _drawn_from(rows, pixels)
    options = {"test_share": test_share, "seed": seed}
    if existing == "skip":
        _check_unchanged(cases, options, drawn_from)
    group = _groups(rows, same)
    test = _draw(rows, group, test_share, seed)
    if not 0 < len(test) < len(set(group.values())):
        raise ConfigError(f"--test {test_share:g}", "leaves one side empty", "take a share such as 0.3")
    for row in rows:
        row["split"] = "test" if group[row["patient_id"]] in test else "train"
    write_manifest(cases, rows)
    split = {row["case_id"]: row["split"] for row in sorted(rows, key=lambda row: row["case_id"])}
    write_json(cases / SPLIT, {**options, "split": split, "twins": same, "drawn_from": drawn_from})
    return DrawnSplit(dict(Counter(row["split"] for row in rows)), same)


def changes_since_split(cases: Path) -> tuple[str, ...]:
    """Return what changed in a folder of cases since its split was drawn, in sentences; empty without one."""
    content = _read(cases)
    if content is None:
        return ()
    rows = read_manifest(cases)
    moved = sorted(row["case_id"] for row in rows if row["split"] != content["split"].get(row["case_id"], ""))
    pixels = {case.case_id: pixels_of(case) for case in find_cases(cases)}
    changes = _differences(content["drawn_from"], _drawn_from(rows, pixels))
    moved = [name for name in moved if name in content["split"]]
    return (*changes, *([f"the split of {', '.join(moved)} was edited"] if moved else []))


def _drawn_from(rows: list[dict[str, str]], pixels: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return what decides a split, by case id: the patient, the strata, the voxels of the CT."""
    return {
        row["case_id"]: {name: row.get(name, "") for name in ("patient_id", "egfr", "site")}
        | {"pixels_sha256": pixels[row["case_id"]]}
        for row in sorted(rows, key=lambda row: row["case_id"])
    }


def _check_unchanged(cases: Path, options: dict[str, Any], drawn_from: dict[str, Any]) -> None:
    content = _read(cases)
    if content is None or any(content.get(name) != value for name, value in options.items()):
        return
    changes = _differences(content["drawn_from"], drawn_from)
    if changes:
        hint = "--existing overwrite draws anew; what was trained may have seen who then becomes test"
        raise OutputError(cases / SPLIT, f"was drawn from other cases: {'; '.join(changes)}", hint)


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return what differs, in sentences."""
    kinds = {
        "new": sorted(now.keys() - before.keys()),
        "gone": sorted(before.keys() - now.keys()),
        "changed": sorted(name for name in now.keys() & before.keys() if now[name] != before[name]),
    }
    return [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]


def _read(cases: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((cases / SPLIT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and {"split", "drawn_from"} <= content.keys() else None


def _groups(rows: list[dict[str, str]], same: tuple[tuple[str, ...], ...]) -> dict[str, str]:
    """Return the group of each patient: itself, or the first of the patients that share a scan."""
    patient_of = {row["case_id"]: row["patient_id"] for row in rows}
    group = {patient: patient for patient in patient_of.values()}
    for case_ids in same:
        members = {group[patient_of[case_id]] for case_id in case_ids}
        first = min(members)
        group = {patient: first if name in members else name for patient, name in group.items()}
    return group


def _draw(rows: list[dict[str, str]], group: dict[str, str], test_share: float, seed: int) -> set[str]:
    """Draw the test patients of each stratum (EGFR status and hospital).

    What rounding takes from one stratum is carried over to the next, so that the whole has its share even
    where strata are small.
    """
    strata: dict[tuple[str, str], set[str]] = {}
    assigned: set[str] = set()
    for row in sorted(rows, key=lambda row: row["case_id"]):
        name = group[row["patient_id"]]
        if name not in assigned:  # a patient lies in one stratum, even if two of its rows disagree
            strata.setdefault((row["egfr"], row.get("site", "")), set()).add(name)
            assigned.add(name)
    rng = np.random.default_rng(seed)
    test: set[str] = set()
    carried = 0.0
    for key in sorted(strata):
        patients = sorted(strata[key])
        carried += test_share * len(patients)
        count = min(len(patients), round(carried))
        carried -= count
        test |= {patients[i] for i in rng.permutation(len(patients))[:count]}
    return test
