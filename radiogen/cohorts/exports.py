"""Export cases to other tools: a MONAI data list, an nnU-Net data set, a folder like BIDS.

A format is a function that writes a folder; `FORMATS`, at the end, holds all of them by name.
"""

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from radiogen import __version__
from radiogen.config import Settings
from radiogen.errors import CaseError, ConfigError
from radiogen.io.cases import MANIFEST, Case, find_cases
from radiogen.io.nifti import write_volume
from radiogen.provenance import RunRecord, new_folder, remove_if_refused, write_json, write_text
from radiogen.resources import CohortCard, cohort_card, cohort_names
from radiogen.training.settings import TrainOptions
from radiogen.training.task import choose_cases
from radiogen.volume import array_of, volume_like


class ExportOptions(Settings):
    """How cases are written for other tools.

    Attributes:
        folds: Parts of the cases to train on, those of `radiogen train --folds`; 0 gives none.
        seed: Seed of the folds, that of `radiogen train --seed`.
        copy_files: Copy volumes rather than hard-link them.
        dataset_id: Number of an nnU-Net data set.
    """

    folds: int = Field(default=5, ge=0)
    seed: int = 0
    copy_files: bool = False
    dataset_id: int = Field(default=501, ge=1, le=999)


@dataclass(frozen=True)
class CasesToExport:
    """Cases to train on, each in a fold, and cases to test on.

    Attributes:
        train: Those with an outline and lungs that are not of the split `test`.
        fold_of: Fold by case id; empty without folds.
        test: All others.
    """

    train: tuple[Case, ...]
    fold_of: dict[str, int]
    test: tuple[Case, ...]

    @property
    def without_outline(self) -> list[str]:
        """Ids of the cases to test on that have no outline."""
        return [case.case_id for case in self.test if not case.has_lesion]


def divide_cases(cases: Path, options: ExportOptions) -> CasesToExport:
    """Divide cases into the folds that `radiogen train` would draw, so that a comparison is on the same ones.

    Raises:
        CaseError: No case has an outline to learn from.
        ConfigError: There are fewer patients than folds.
    """
    found = find_cases(cases)
    train, _ = choose_cases(found, TrainOptions())
    fold_of: dict[str, int] = {}
    for fold in range(options.folds):
        chosen = TrainOptions(folds=options.folds, fold=fold, seed=options.seed)
        fold_of |= {case.case_id: fold for case in choose_cases(found, chosen)[1]}
    ids = {case.case_id for case in train}
    test = tuple(case for case in found if case.case_id not in ids)
    for case in found:
        if not case.ct_path.is_file():
            raise CaseError(case.ct_path, "is missing", "ingest the case again")
    return CasesToExport(tuple(train), fold_of, test)


def cards_of(cases: Sequence[Case]) -> list[CohortCard]:
    """Return the cards of the public cohorts that cases come from."""
    names = sorted({case.cohort for case in cases} & set(cohort_names()))
    return [cohort_card(name) for name in names]


def licence_line(cases: Sequence[Case]) -> str:
    """Return the licences of cases, as far as their cohorts are known."""
    lines = [f"{card.title}: {card.licence}" for card in cards_of(cases)]
    others = {case.cohort for case in cases} - set(cohort_names())
    return "; ".join([*lines, *(["others: as their owners say"] if others else [])])


def link_file(source: Path, target: Path, copy_files: bool) -> None:
    """Hard-link a file, or copy it on request and where links cannot be made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy_files:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another disk, or a file system without links
    shutil.copyfile(source, target)


def write_lesion_mask(case: Case, target: Path, copy_files: bool) -> None:
    """Write the lesion mask with one label for all lesions.

    Our labels number the lesions; read as classes, they would teach that the second lesion is other tissue.
    """
    mask = case.lesion()
    labels = array_of(mask)
    if labels.max() <= 1:
        link_file(case.lesion_path, target, copy_files)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    write_volume(volume_like((labels > 0).astype(np.uint8), mask), target)


BIDS_VERSION = "1.9.0"
README = "CT scans and tumour outlines laid out by radiogen. BIDS has no CT yet. Not for clinical use.\n"
MASKS = {"lesion": "tumours, numbered from 1", "lungs": "1 right, 2 left lung"}


def write_bids(cases: CasesToExport, folder: Path, out: Path, options: ExportOptions) -> list[Path]:
    """Write subjects with `ct/` and, below `derivatives/radiogen`, their masks with lesions numbered.

    The folds become a column of `participants.tsv`.

    Raises:
        CaseError: Two patients would be one subject.
    """
    members = [*cases.train, *cases.test]
    subjects = _subjects(members)
    derived = folder / "derivatives" / "radiogen"
    for subject, own in subjects.items():
        for case, session in _sessions(own):
            parts = [subject, *([session] if session else [])]
            place, name = Path(*parts, "ct"), "_".join(parts)
            link_file(case.ct_path, folder / place / f"{name}_ct.nii.gz", options.copy_files)
            write_json(folder / place / f"{name}_ct.json", _sidecar(case))
            for mask, path in (("lesion", case.lesion_path), ("lungs", case.lungs_path)):
                if path.is_file():
                    target = derived / place / f"{name}_desc-{mask}_dseg"
                    link_file(path, target.with_name(f"{target.name}.nii.gz"), options.copy_files)
                    source = (place / f"{name}_ct.nii.gz").as_posix()
                    about = {"Description": MASKS[mask], "Sources": [f"bids:raw:{source}"]}
                    write_json(target.with_name(f"{target.name}.json"), about)
    _describe(folder, derived, out, licence_line(members))
    _participants(folder, subjects, cases.fold_of)
    return [folder / "dataset_description.json", folder / "participants.tsv"]


def _subjects(cases: list[Case]) -> dict[str, list[Case]]:
    subjects: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.case_id):
        subject = "sub-" + re.sub(r"[^A-Za-z0-9]", "", case.patient_id)
        if subject in subjects and subjects[subject][0].patient_id != case.patient_id:
            other = subjects[subject][0].patient_id
            raise CaseError(case.patient_id, f"would be {subject}, as {other} is", "change one of the ids")
        subjects[subject].append(case)
    return dict(sorted(subjects.items()))


def _sessions(cases: list[Case]) -> Iterator[tuple[Case, str]]:
    """Yield each case of a patient, with a session where there are several."""
    for number, case in enumerate(cases, start=1):
        yield case, f"ses-{number:02d}" if len(cases) > 1 else ""


def _sidecar(case: Case) -> dict[str, Any]:
    about = case.about()
    scanner = about.get("scanner") or {}
    return {
        "case_id": case.case_id,
        "cohort": case.cohort,
        "decisions": about.get("decisions", []),
        "scanner": scanner,
        "units": "HU",
    }


def _describe(folder: Path, derived: Path, out: Path, licence: str) -> None:
    made_by = [{"Name": "radiogen", "Version": __version__}]
    about = {
        "Name": out.resolve().name,
        "BIDSVersion": BIDS_VERSION,
        "License": licence,
        "GeneratedBy": made_by,
    }
    write_json(folder / "dataset_description.json", {**about, "DatasetType": "raw"})
    links = {"DatasetType": "derivative", "DatasetLinks": {"raw": "../.."}}
    write_json(derived / "dataset_description.json", {**about, **links})
    write_text(folder / "README", README)


def _participants(folder: Path, subjects: dict[str, list[Case]], fold_of: dict[str, int]) -> None:
    columns = ("participant_id", "patient_id", "egfr", "cohort", "split", "fold")
    lines = ["\t".join(columns)]
    for subject, own in subjects.items():
        first = own[0]
        fold = str(fold_of.get(first.case_id, "n/a"))
        cells = (subject, first.patient_id, first.egfr, first.cohort, first.split, fold)
        lines.append("\t".join(cell or "n/a" for cell in cells))
    write_text(folder / "participants.tsv", "\n".join(lines) + "\n")
    meaning = {
        "egfr": {"Description": "EGFR mutation status", "Levels": {"mutant": "", "wildtype": ""}},
        "fold": {"Description": "part that radiogen train --folds holds out; n/a: not trained on"},
    }
    write_json(folder / "participants.json", meaning)


DATALIST = "datalist.json"


def write_datalist(cases: CasesToExport, folder: Path, out: Path, options: ExportOptions) -> list[Path]:
    """Write `datalist.json`, which Auto3DSeg and `load_decathlon_datalist` read; paths are relative to it.

    Scans are not copied. A mask of several lesions is written anew with one label for all.
    """
    content = {
        "description": "made by radiogen; not for clinical use",
        "licence": licence_line([*cases.train, *cases.test]),
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "tumour"},
        "numTraining": len(cases.train),
        "numTest": len(cases.test),
        "training": [_entry(case, folder, out, options, cases.fold_of) for case in cases.train],
        "testing": [_entry(case, folder, out, options, {}) for case in cases.test],
    }
    write_json(folder / DATALIST, content)
    return [folder / DATALIST]


def _entry(
    case: Case, folder: Path, out: Path, options: ExportOptions, fold_of: dict[str, int]
) -> dict[str, Any]:
    entry: dict[str, Any] = {"image": _relative(case.ct_path, out)}
    if case.has_lesion:
        entry["label"] = _label(case, folder, out, options)
    if case.case_id in fold_of:
        entry["fold"] = fold_of[case.case_id]
    return {**entry, "case_id": case.case_id, "patient_id": case.patient_id, "egfr": case.egfr}


def _label(case: Case, folder: Path, out: Path, options: ExportOptions) -> str:
    if array_of(case.lesion()).max() <= 1:
        return _relative(case.lesion_path, out)
    name = f"labels/{case.case_id}.nii.gz"
    write_lesion_mask(case, folder / name, options.copy_files)
    return name


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()


def write_nnunet(cases: CasesToExport, folder: Path, out: Path, options: ExportOptions) -> list[Path]:
    """Write `DatasetNNN_NAME` below the folder: imagesTr, labelsTr, imagesTs, labelsTs, dataset.json.

    `splits_final.json` holds the folds; nnU-Net takes them when it is copied into its folder of the
    preprocessed data set. It knows nothing of patients and would divide them otherwise.

    The folder is what nnU-Net calls `nnUNet_raw`.
    """
    name = "".join(letter for letter in out.resolve().name.title() if letter.isalnum()) or "Radiogen"
    home = folder / f"Dataset{options.dataset_id:03d}_{name}"
    for part, members in (("Tr", cases.train), ("Ts", cases.test)):
        for case in members:
            image = home / f"images{part}" / f"{case.case_id}_0000.nii.gz"
            link_file(case.ct_path, image, options.copy_files)
            if case.has_lesion:
                write_lesion_mask(case, home / f"labels{part}" / f"{case.case_id}.nii.gz", options.copy_files)
    everyone = [*cases.train, *cases.test]
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": len(cases.train),
        "file_ending": ".nii.gz",
        "name": name,
        "description": "made by radiogen; not for clinical use",
        "reference": "; ".join(f"https://doi.org/{card.doi}" for card in cards_of(everyone) if card.doi),
        "licence": licence_line(everyone),
    }
    write_json(home / "dataset.json", content)
    written = [home / "dataset.json"]
    if options.folds:
        write_json(home / "splits_final.json", _splits(cases, options.folds))
        written.append(home / "splits_final.json")
    return written


def _splits(cases: CasesToExport, folds: int) -> list[dict[str, list[str]]]:
    ids = sorted(cases.fold_of)
    return [
        {
            "train": [name for name in ids if cases.fold_of[name] != fold],
            "val": [name for name in ids if cases.fold_of[name] == fold],
        }
        for fold in range(folds)
    ]


# Cases, the folder to write into, the name it will have, options -> the files that describe the export.
ExportFormat = Callable[[CasesToExport, Path, Path, ExportOptions], list[Path]]
FORMATS: dict[str, ExportFormat] = {
    "monai-datalist": write_datalist,
    "nnunet": write_nnunet,
    "bids-like": write_bids,
}


@dataclass(frozen=True)
class ExportedCases:
    """What was exported: the files that describe it, and how many cases are in it."""

    files: tuple[Path, ...]
    train: int
    test: int
    without_outline: tuple[str, ...]


def export_cases(
    cases: Path, out: Path, format_name: str, options: ExportOptions | None = None
) -> ExportedCases:
    """Export cases to another tool, in a new folder, with the folds that `radiogen train` would draw.

    Args:
        cases: Folder of cases.
        out: New folder.
        format_name: A name in `FORMATS`.
        options: See `ExportOptions`.

    Raises:
        ConfigError: No format of that name, or fewer patients than folds.
        CaseError: The cases do not fit.
        OutputError: The folder is there already.
    """
    if format_name not in FORMATS:
        raise ConfigError(f"--to {format_name}", "is no format", f"there are {', '.join(FORMATS)}")
    options = options or ExportOptions()
    recorded = {"to": format_name, **options.model_dump(exclude={"seed"})}
    record = RunRecord("export", recorded, seed=options.seed, inputs=[cases / MANIFEST])
    divided = divide_cases(cases, options)
    with remove_if_refused(out), new_folder(out) as draft:
        files = [path.relative_to(draft) for path in FORMATS[format_name](divided, draft, out, options)]
    written = tuple(out / path for path in files)
    record.finish(out, written)
    return ExportedCases(written, len(divided.train), len(divided.test), tuple(divided.without_outline))
