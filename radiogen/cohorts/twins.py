"""Find one scan under the ids of two patients, by what its voxels hold."""

from collections.abc import Sequence
from pathlib import Path

from radiogen.errors import CaseError
from radiogen.io.cases import MANIFEST, Case, find_cases
from radiogen.volume import pixels_sha256


def pixels_of(case: Case) -> str:
    """The hash of a case's CT voxels: as ingest wrote it down, else computed; empty where no CT lies there.

    Raises:
        RadiogenError: The CT cannot be read.
    """
    known = known_pixels(case)
    return known or (pixels_sha256(case.ct()) if case.ct_path.is_file() else "")


def known_pixels(case: Case) -> str:
    """The hash that ingest wrote down; empty for cases that another version or hand made."""
    try:
        return str(case.about().get("pixels_sha256", ""))
    except CaseError:
        return ""


def twins(folder: Path) -> tuple[tuple[str, ...], ...]:
    """Groups of case ids, of different patients, that hold the same voxels; by what ingest wrote down."""
    if not (folder / MANIFEST).is_file():
        return ()
    cases = find_cases(folder)
    return groups_of_twins(cases, {case.case_id: known_pixels(case) for case in cases})


def groups_of_twins(cases: Sequence[Case], pixels: dict[str, str]) -> tuple[tuple[str, ...], ...]:
    """Case ids of different patients with one hash, each group and all groups sorted."""
    by_hash: dict[str, list[Case]] = {}
    for case in cases:
        if pixels[case.case_id]:
            by_hash.setdefault(pixels[case.case_id], []).append(case)
    groups = (same for same in by_hash.values() if len({case.patient_id for case in same}) > 1)
    return tuple(sorted(tuple(sorted(case.case_id for case in same)) for same in groups))
