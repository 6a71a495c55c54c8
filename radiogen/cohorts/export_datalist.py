"""Lay cases out as a MONAI data list: a JSON with folds that points at the volumes where they are."""

import os
from pathlib import Path
from typing import Any

from radiogen.cohorts.export_parts import ExportCases, ExportOptions, lay_lesion, licence_line
from radiogen.io.cases import Case
from radiogen.provenance import write_json
from radiogen.volume import array_of

DATALIST = "datalist.json"


def lay_datalist(cases: ExportCases, folder: Path, out: Path, options: ExportOptions) -> list[Path]:
    """Write `datalist.json`, which Auto3DSeg and `load_decathlon_datalist` read; paths are relative to it.

    Scans are not copied. A mask of several lesions is written anew with one label for all.

    Args:
        cases: Cases to train on and to test on.
        folder: Where to write.
        out: What the folder will be called.
        options: See `ExportOptions`.
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
    lay_lesion(case, folder / name, options.copy_files)
    return name


def _relative(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
