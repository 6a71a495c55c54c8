"""Lay cases out as a raw data set of nnU-Net v2, with the folds of radiogen."""

from pathlib import Path

from radiogen.cohorts.export_parts import (
    ExportCases,
    ExportOptions,
    cards_of,
    lay_file,
    lay_lesion,
    licence_line,
)
from radiogen.provenance import write_json


def lay_nnunet(cases: ExportCases, folder: Path, out: Path, options: ExportOptions) -> list[Path]:
    """Write `DatasetNNN_NAME` below the folder: imagesTr, labelsTr, imagesTs, labelsTs, dataset.json.

    `splits_final.json` holds the folds; nnU-Net takes them when it is copied into its folder of the
    preprocessed data set. It knows nothing of patients and would divide them otherwise.

    Args:
        cases: Cases to train on and to test on.
        folder: What nnU-Net calls `nnUNet_raw`.
        out: What the folder will be called.
        options: See `ExportOptions`.
    """
    name = "".join(letter for letter in out.resolve().name.title() if letter.isalnum()) or "Radiogen"
    home = folder / f"Dataset{options.dataset_id:03d}_{name}"
    for part, members in (("Tr", cases.train), ("Ts", cases.test)):
        for case in members:
            image = home / f"images{part}" / f"{case.case_id}_0000.nii.gz"
            lay_file(case.ct_path, image, options.copy_files)
            if case.has_lesion:
                lay_lesion(case, home / f"labels{part}" / f"{case.case_id}.nii.gz", options.copy_files)
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


def _splits(cases: ExportCases, folds: int) -> list[dict[str, list[str]]]:
    ids = sorted(cases.fold_of)
    return [
        {
            "train": [name for name in ids if cases.fold_of[name] != fold],
            "val": [name for name in ids if cases.fold_of[name] == fold],
        }
        for fold in range(folds)
    ]
