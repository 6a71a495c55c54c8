"""What is handed to other tools holds the same voxels at the same millimetres, in the folds of radiogen."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from tiny_cases import tiny_cases

from radiogen.cohorts.exports import ExportOptions, export_cases
from radiogen.errors import CaseError, ConfigError, OutputError
from radiogen.io.cases import find_cases, read_manifest, write_manifest
from radiogen.io.nifti import read_mask, read_volume, write_volume
from radiogen.training.settings import TrainOptions
from radiogen.training.task import choose_cases
from radiogen.volume import array_of, same_grid, volume_like

TWO = ExportOptions(folds=2, seed=3)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Six cases: two of one patient, one with two lesions, one of the split test, one without an outline."""
    root = tmp_path_factory.mktemp("export") / "cases"
    made = tiny_cases(root, 6)
    rows = read_manifest(root)
    rows[1]["patient_id"] = rows[0]["patient_id"]
    rows[4]["split"] = "test"
    write_manifest(root, rows)
    made[5].lesion_path.unlink()
    labels = array_of(made[2].lesion()).copy()
    labels[-1, -1, -1] = 2
    write_volume(volume_like(labels, made[2].lesion()), made[2].lesion_path)
    return root


def same(path, volume, read=read_volume):
    found = read(path)
    assert same_grid(found, volume) and np.array_equal(array_of(found), array_of(volume))


def test_a_data_list_of_monai_points_at_the_same_voxels(cases, tmp_path):
    export_cases(cases, tmp_path / "monai", "monai-datalist", TWO)
    path = tmp_path / "monai" / "datalist.json"
    training = load_decathlon_datalist(path, True, "training")
    testing = load_decathlon_datalist(path, True, "testing")
    found = {case.case_id: case for case in find_cases(cases)}
    assert len(training) == 4 and len(testing) == 2
    for item in (*training, *testing):
        case = found[item["case_id"]]
        same(Path(item["image"]), case.ct())
        if "label" in item:
            mask = read_mask(Path(item["label"]))
            assert same_grid(mask, case.ct()) and np.array_equal(array_of(mask), array_of(case.lesion()) > 0)
    assert [("label" in item) for item in testing] == [True, False]
    several = {
        case.case_id for case in found.values() if case.has_lesion and array_of(case.lesion()).max() > 1
    }
    written = {path.name.split(".")[0] for path in (tmp_path / "monai").rglob("*.nii.gz")}
    assert written == several and len(several) < 5, "only what differs is written"


@pytest.mark.parametrize("copy_files", [False, True])
def test_a_raw_data_set_of_nnunet_holds_the_same_voxels(cases, tmp_path, copy_files):
    options = ExportOptions(folds=2, seed=3, copy_files=copy_files, dataset_id=7)
    made = export_cases(cases, tmp_path / "my lungs", "nnunet", options)
    home = tmp_path / "my lungs" / "Dataset007_MyLungs"
    content = json.loads((home / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "tumour": 1} and content["channel_names"] == {"0": "CT"}
    assert content["numTraining"] == 4 == len(list((home / "imagesTr").iterdir()))
    assert content["file_ending"] == ".nii.gz" and made.without_outline
    for case in find_cases(cases):
        part = "Ts" if case.split == "test" or not case.has_lesion else "Tr"
        image = home / f"images{part}" / f"{case.case_id}_0000.nii.gz"
        same(image, case.ct())
        assert image.samefile(case.ct_path) is not copy_files
        label = home / f"labels{part}" / f"{case.case_id}.nii.gz"
        assert label.is_file() == case.has_lesion
        if case.has_lesion:
            assert np.array_equal(array_of(read_mask(label)), array_of(case.lesion()) > 0)


def test_the_folds_are_those_that_radiogen_trains_on_and_never_divide_a_patient(cases, tmp_path):
    export_cases(cases, tmp_path / "lungs", "nnunet", TWO)
    splits = json.loads((tmp_path / "lungs" / "Dataset501_Lungs" / "splits_final.json").read_text())
    found = find_cases(cases)
    patient = {case.case_id: case.patient_id for case in found}
    for fold, split in enumerate(splits):
        learn, held_out = choose_cases(found, TrainOptions(folds=2, fold=fold, seed=3))
        assert split["val"] == sorted(case.case_id for case in held_out)
        assert split["train"] == sorted(case.case_id for case in learn)
        assert not {patient[name] for name in split["train"]} & {patient[name] for name in split["val"]}


def test_bids_names_subjects_and_keeps_the_number_of_each_lesion(cases, tmp_path):
    export_cases(cases, tmp_path / "bids", "bids-like", TWO)
    root = tmp_path / "bids"
    found = find_cases(cases)
    first, second, third = found[:3]
    subject = "sub-" + third.patient_id.replace("-", "")
    same(root / subject / "ct" / f"{subject}_ct.nii.gz", third.ct())
    mask = root / "derivatives/radiogen" / subject / "ct" / f"{subject}_desc-lesion_dseg.nii.gz"
    same(mask, third.lesion(), read_mask)
    assert array_of(read_mask(mask)).max() == 2
    twice = "sub-" + first.patient_id.replace("-", "")
    for case, session in ((first, "ses-01"), (second, "ses-02")):
        same(root / twice / session / "ct" / f"{twice}_{session}_ct.nii.gz", case.ct())
    sidecar = json.loads((root / subject / "ct" / f"{subject}_ct.json").read_text())
    assert sidecar["case_id"] == third.case_id and sidecar["units"] == "HU"
    with (root / "participants.tsv").open(newline="") as file:
        people = {row["participant_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert len(people) == 5 and people[subject]["egfr"] == (third.egfr or "n/a")
    derived = json.loads((root / "derivatives/radiogen/dataset_description.json").read_text())
    assert derived["DatasetType"] == "derivative" and derived["GeneratedBy"][0]["Name"] == "radiogen"


def test_two_patients_who_would_be_one_subject_are_refused_and_nothing_is_left(made_cases, tmp_path):
    shutil.copytree(made_cases, tmp_path / "cases")
    rows = read_manifest(tmp_path / "cases")
    rows[0]["patient_id"], rows[1]["patient_id"] = "A-1", "A1"
    write_manifest(tmp_path / "cases", rows)
    with pytest.raises(CaseError, match="sub-A1"):
        export_cases(tmp_path / "cases", tmp_path / "out" / "bids", "bids-like", TWO)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_and_wrong_wishes_are_refused(cases, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").touch()
    with pytest.raises(OutputError, match="is there already"):
        export_cases(cases, tmp_path / "there", "nnunet", TWO)
    with pytest.raises(ConfigError, match="monai-datalist, nnunet, bids-like"):
        export_cases(cases, tmp_path / "new", "minc", TWO)
    with pytest.raises(ConfigError, match="take fewer folds"):
        export_cases(cases, tmp_path / "new", "nnunet", ExportOptions(folds=9))
    assert not (tmp_path / "new").exists()


def test_an_export_says_what_made_it(cases, tmp_path):
    export_cases(cases, tmp_path / "monai", "monai-datalist", TWO)
    record = json.loads((tmp_path / "monai" / "monai.run.json").read_text())
    assert record["verb"] == "export" and record["options"]["to"] == "monai-datalist" and record["seed"] == 3
    assert set(record["outputs"]) == {"datalist.json"} and set(record["inputs"]) == {"manifest.csv"}
