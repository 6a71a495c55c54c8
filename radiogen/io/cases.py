"""Read case folders and their manifest: what ingest writes and everything else reads."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from radiogen.errors import CaseError
from radiogen.io.nifti import read_grid, read_mask, read_volume
from radiogen.provenance import write_csv
from radiogen.volume import same_grid

# An id becomes a folder name and a line of a log: no separator, blank or dot can leave the folder.
CASE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MANIFEST = "manifest.csv"
MANIFEST_COLUMNS = ("case_id", "patient_id", "cohort", "split", "egfr", "ct", "lesion", "lungs")
EGFR_VALUES = ("mutant", "wildtype", "")


@dataclass(frozen=True)
class Case:
    """One patient prepared for a network: its case folder and its row of the manifest."""

    case_id: str
    patient_id: str
    folder: Path
    cohort: str = ""
    split: str = ""
    egfr: str = ""

    @property
    def ct_path(self) -> Path:
        return self.folder / "ct.nii.gz"

    @property
    def lesion_path(self) -> Path:
        return self.folder / "lesion.nii.gz"

    @property
    def lungs_path(self) -> Path:
        return self.folder / "lungs.nii.gz"

    @property
    def has_lesion(self) -> bool:
        """Whether an outline is known."""
        return self.lesion_path.is_file()

    @property
    def is_crop(self) -> bool:
        """Whether the CT is a crop round a lesion, too small for lungs; all of it is its lung mask."""
        return (self.folder / "case.json").is_file() and bool(self.about().get("crop", False))

    @property
    def scan(self) -> str:
        """Hash of the CT's voxels as ingest wrote it; empty for cases made by hand or by an older version."""
        try:
            return str(self.about().get("pixels_sha256") or "")
        except CaseError:
            return ""

    def ct(self) -> sitk.Image:
        """Return the CT, int16 HU."""
        return read_volume(self.ct_path)

    def lesion(self) -> sitk.Image:
        """Return the lesion mask, uint8: 0 background, 1..n lesions, on the CT's grid."""
        return self._mask(self.lesion_path)

    def lungs(self) -> sitk.Image:
        """Return the lung mask, uint8: 0, 1 right, 2 left, on the CT's grid."""
        return self._mask(self.lungs_path)

    def about(self) -> dict[str, Any]:
        """Return the content of case.json."""
        return read_case_json(self.folder)

    def _mask(self, path: Path) -> sitk.Image:
        if not path.is_file():
            raise CaseError(path, "is missing", "ingest the case again, with its outline if one is needed")
        mask = read_mask(path)
        # Every voxel operation later pairs CT and mask by index, which only one grid allows.
        if not same_grid(mask, read_grid(self.ct_path)):
            raise CaseError(path, "does not lie on the grid of ct.nii.gz", "ingest the case again")
        return mask


def read_case_json(folder: Path) -> dict[str, Any]:
    """Return the content of a case folder's case.json.

    Raises:
        CaseError: It is missing or not JSON.
    """
    path = folder / "case.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CaseError(path, "is missing or not JSON", "ingest the case again") from error
    return content


def find_cases(path: Path) -> list[Case]:
    """Return the cases of a folder with a manifest, in its order, or the one case of a case folder.

    Raises:
        CaseError: There is neither, or a row of the manifest does not fit.
    """
    if (path / MANIFEST).is_file():
        return [_case(path, row) for row in read_manifest(path)]
    if (path / "ct.nii.gz").is_file() and (path / "case.json").is_file():
        about = read_case_json(path)
        if not CASE_ID.fullmatch(str(about.get("case_id"))) or "patient_id" not in about:
            raise CaseError(
                path / "case.json", "has no usable case_id or patient_id", "ingest the case again"
            )
        return [
            Case(str(about["case_id"]), str(about["patient_id"]), path, egfr=str(about.get("egfr") or ""))
        ]
    raise CaseError(path, "holds no manifest.csv and is no case folder", "make one with radiogen ingest")


def cases_of_split(path: Path, split: str | None) -> list[Case]:
    """Return the cases of a folder, or only those of one split.

    Raises:
        CaseError: No case is of that split.
    """
    cases = find_cases(path)
    chosen = [case for case in cases if split is None or case.split == split]
    if not chosen:
        there = ", ".join(sorted({case.split or "(none)" for case in cases}))
        raise CaseError(path, f"holds no case of split {split!r}", f"the splits are {there}")
    return chosen


def is_case_source(path: Path) -> bool:
    """Return whether a folder holds cases, rather than DICOM or volume files."""
    return (path / MANIFEST).is_file() or (path / "case.json").is_file()


def _case(root: Path, row: dict[str, str]) -> Case:
    case_id = row["case_id"]
    folder = (root / row["ct"]).parent if row["ct"] else root / case_id
    # A manifest from elsewhere must not lead out of its folder.
    if root.resolve() not in folder.resolve().parents:
        raise CaseError(root / MANIFEST, f"case {case_id} lies outside the folder", "use relative paths")
    return Case(case_id, row["patient_id"], folder, row["cohort"], row["split"], row["egfr"])


def read_manifest(cases: Path) -> list[dict[str, str]]:
    """Return the rows of a case folder's manifest, every value a string.

    Raises:
        CaseError: It or a column is missing, an id is not usable or comes twice, an EGFR status is unknown.
    """
    path = cases / MANIFEST
    if not path.is_file():
        raise CaseError(cases, "holds no manifest.csv", "make one with radiogen ingest")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        # Columns of the user are allowed beside the agreed ones, and are kept when the manifest is written.
        missing = [name for name in MANIFEST_COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise CaseError(path, f"has no column {missing[0]}", f"needed are {', '.join(MANIFEST_COLUMNS)}")
        rows = [{key: value or "" for key, value in row.items() if key} for row in reader]
    known_ids: set[str] = set()
    for row in rows:
        case_id = row["case_id"]
        if not CASE_ID.fullmatch(case_id) or case_id in known_ids:
            raise CaseError(
                path, f"case_id {case_id!r} is not usable or comes twice", "make ids unique words"
            )
        if row["egfr"] not in EGFR_VALUES:
            raise CaseError(path, f"egfr {row['egfr']!r} of {case_id}", "write mutant, wildtype or nothing")
        known_ids.add(case_id)
    return rows


def write_manifest(cases: Path, rows: Sequence[dict[str, str]]) -> Path:
    """Write manifest.csv whole; columns beyond the agreed ones keep their first order."""
    columns = list(dict.fromkeys([*MANIFEST_COLUMNS, *(name for row in rows for name in row)]))
    write_csv(cases / MANIFEST, columns, rows)
    return cases / MANIFEST
