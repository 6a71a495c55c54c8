"""Small crops round lesions, with masks, become cases like any other."""

import csv
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import write_ct
from shown_commands import shown_commands, type_command

from radiogen.errors import ConfigError, VolumeError
from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.listing import list_sources
from radiogen.ingestion.options import IngestOptions
from radiogen.io.cases import Case, find_cases, read_manifest
from radiogen.io.nifti import write_volume
from radiogen.provenance import write_json
from radiogen.report.qc import examine
from radiogen.volume import array_of

PATTERN = r"(.+)_R_\d+"
SIZE, SPACING_MM = (40, 36, 8), (0.8, 0.8, 2.5)
DECISION = "32 x 29 x 20 mm: a crop round a lesion, all of it counts as lung"


def nodule(size=SIZE, lung_hu=-850, nodule_hu=40):
    """Arrays of a crop, with noise, and of the ball in its middle."""
    z, y, x = np.ogrid[tuple(slice(n) for n in size[::-1])]
    away = [(i - (n - 1) / 2) * mm for i, n, mm in zip((x, y, z), size, SPACING_MM, strict=True)]
    ball = sum(mm**2 for mm in away) <= 6.0**2
    noise = np.random.default_rng(0).normal(0, 20, ball.shape)
    return (np.where(ball, nodule_hu, lung_hu) + noise).astype(np.int16), ball


def write_crop(folder, name, with_mask=True, size=SIZE, mask_folder="mask", **hu):
    values, ball = nodule(size, **hu)
    for array, where in ((values, "ct"), (ball.astype(np.uint8), mask_folder)):
        if where == "ct" or with_mask:
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing(SPACING_MM)
            volume.SetOrigin((-60.0, 20.0, -200.0 + 0.1 * len(name)))
            (folder / where).mkdir(parents=True, exist_ok=True)
            write_volume(volume, folder / where / f"{name}.nii.gz")
    return folder


@pytest.fixture
def crops(tmp_path):
    """Three crops of two patients; the last has no mask."""
    for number, (name, with_mask) in enumerate((("P1_R_1", True), ("P1_R_12", True), ("P2_R_1", False))):
        write_crop(tmp_path / "crops", name, with_mask, nodule_hu=40 + number)
    return tmp_path / "crops"


def run(source, cases, **options):
    return ingest(source, cases, IngestOptions(**options))


def test_crops_become_cases_with_their_masks_and_all_of_them_as_lung(crops, tmp_path):
    report = run(crops, tmp_path / "cases", id_from="patient-id")
    one, two, without = find_cases(tmp_path / "cases")
    assert [case.case_id for case in (one, two, without)] == ["P1_R_1", "P1_R_12", "P2_R_1"]
    assert one.is_crop and one.about()["crop"] is True and array_of(one.lungs()).all()
    assert np.array_equal(array_of(one.ct()), nodule()[0])
    assert np.array_equal(array_of(one.lesion()) > 0, nodule()[1])
    assert report.cases[0].decisions == (DECISION,)
    assert not without.has_lesion and report.cases[2].decisions == ("no outline was found", DECISION)


@pytest.mark.parametrize("slices", [3, 4])
def test_a_crop_of_few_slices_is_a_case(tmp_path, slices):
    run(write_crop(tmp_path / "src", "P1", size=(40, 36, slices)), tmp_path / "cases")
    (case,) = find_cases(tmp_path / "cases")
    assert case.is_crop and case.lesion().GetSize() == (40, 36, slices)


def test_masks_may_lie_in_a_folder_masks_and_other_folders_are_left_out_and_counted(tmp_path):
    for mask_folder in ("masks", "readers"):
        write_crop(tmp_path / "src", "P1_R_1", mask_folder=mask_folder)
    report = run(tmp_path / "src", tmp_path / "cases")
    assert len(report.cases) == 1 and find_cases(tmp_path / "cases")[0].has_lesion
    assert report.ignored == {"volume file of the name of a CT in another folder": 1}


def test_a_crop_without_a_mask_is_refused_by_name_where_masks_were_given(crops, tmp_path):
    report = run(crops / "ct", tmp_path / "cases", outline=crops / "mask")
    assert len(report.cases) == 2 and all(case.has_lesion for case in find_cases(tmp_path / "cases"))
    with (tmp_path / "cases" / "failures.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["reason"] == "P2_R_1.nii.gz: is a crop without a mask"
    assert row["way_out"] == "add its mask to those of --outline, or leave the crop out"


def test_a_pattern_puts_the_crops_of_one_patient_together_before_ids_are_hashed(crops, tmp_path):
    run(crops, tmp_path / "plain")
    run(crops, tmp_path / "joined", patient_pattern=PATTERN)
    plain, joined = (read_manifest(tmp_path / name) for name in ("plain", "joined"))
    assert len({row["patient_id"] for row in plain}) == 3
    assert len({row["patient_id"] for row in joined}) == 2 and len({row["case_id"] for row in joined}) == 3
    # The id of a patient is that of the same patient elsewhere, so that a split keeps them together.
    write_ct(tmp_path / "dicom", patient="P1")
    run(tmp_path / "dicom", tmp_path / "scan")
    (scan,) = find_cases(tmp_path / "scan")
    assert [row["patient_id"] for row in joined].count(scan.patient_id) == 2


def test_names_and_patients_are_kept_where_the_user_says_that_they_are_pseudonyms(crops, tmp_path):
    run(crops, tmp_path / "cases", patient_pattern=PATTERN, id_from="patient-id")
    rows = read_manifest(tmp_path / "cases")
    assert [(row["case_id"], row["patient_id"]) for row in rows] == [
        ("P1_R_1", "P1"),
        ("P1_R_12", "P1"),
        ("P2_R_1", "P2"),
    ]


def test_a_card_vouches_for_the_patient_and_not_for_the_rest_of_the_name(tmp_path):
    write_crop(tmp_path / "src", "PHANTOM-7_Doe")
    run(tmp_path / "src", tmp_path / "cases", patient_pattern="(.+)_Doe", cohort="phantoms")
    (case,) = find_cases(tmp_path / "cases")
    assert case.patient_id == "PHANTOM-7" and "Doe" not in (tmp_path / "cases" / "manifest.csv").read_text()


def test_the_clinical_table_is_joined_by_the_patient_of_the_pattern(crops, tmp_path):
    table = tmp_path / "clinical.csv"
    table.write_text("patient_id,egfr\nP1,mutant\n")
    run(crops, tmp_path / "cases", patient_pattern=PATTERN, clinical=table)
    assert sorted(row["egfr"] for row in read_manifest(tmp_path / "cases")) == ["", "mutant", "mutant"]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (r".+_R_\d+", "has no group for the patient"),
        (r"(.+)_R_1", "does not find the patient in 'P1_R_12'"),
        (r"(P\d)", "does not find the patient in 'P1_R_1'"),
        (r"(.*)P1_R_1", "does not find the patient in 'P1_R_1'"),
        ("(", "is not a regular expression"),
    ],
)
def test_a_pattern_that_does_not_find_the_patient_is_one_line_and_nothing_is_written(
    crops, tmp_path, pattern, says
):
    options = IngestOptions(patient_pattern=pattern)
    for work in (partial(list_sources, crops, options), partial(ingest, crops, tmp_path / "cases", options)):
        with pytest.raises(ConfigError) as caught:
            work()
        assert says in str(caught.value) and "\n" not in str(caught.value) and caught.value.hint
    assert not (tmp_path / "cases").exists()


def test_a_pattern_for_dicom_is_refused(tmp_path):
    write_ct(tmp_path / "dicom")
    with pytest.raises(ConfigError, match="is for volume files"):
        run(tmp_path / "dicom", tmp_path / "cases", patient_pattern=PATTERN)


def test_an_old_case_and_a_case_without_case_json_are_no_crops(tmp_path):
    folder = tmp_path / "case"
    folder.mkdir()
    assert not Case("case", "P1", folder).is_crop
    write_json(folder / "case.json", {"case_id": "case"})
    assert not Case("case", "P1", folder).is_crop
    write_json(folder / "case.json", {"case_id": "case", "crop": True})
    assert Case("case", "P1", folder).is_crop


def test_a_crop_round_ground_glass_needs_no_soft_tissue(tmp_path):
    source = write_crop(tmp_path / "src", "P1", lung_hu=-900, nodule_hu=-600)
    assert run(source, tmp_path / "cases").cases[0].is_new


@pytest.mark.parametrize(("lung_hu", "nodule_hu"), [(150, 1060), (0, 1), (20, 60), (-2000, -3000)])
def test_a_crop_whose_values_are_no_hu_is_refused(tmp_path, lung_hu, nodule_hu):
    source = write_crop(tmp_path / "src", "P1", lung_hu=lung_hu, nodule_hu=nodule_hu)
    with pytest.raises(VolumeError, match=r"are no HU of a chest.*cut it wide enough to show some lung"):
        run(source, tmp_path / "cases")


def test_nothing_is_odd_about_a_crop_for_being_one(tmp_path):
    run(write_crop(tmp_path / "src", "P1"), tmp_path / "cases")
    (case,) = find_cases(tmp_path / "cases")
    examined = examine(case)
    assert examined.oddities == () and examined.facts.lungs is None
    assert examined.facts.lesions[0].from_lungs_mm is None


def test_a_lesion_at_the_cut_face_of_a_crop_is_worth_knowing_and_no_more(tmp_path):
    run(write_crop(tmp_path / "src", "P1", size=(40, 36, 3)), tmp_path / "cases")
    examined = examine(find_cases(tmp_path / "cases")[0])
    assert [(one.weight, one.text) for one in examined.oddities] == [
        (1, "lesion reaches the first or last slice")
    ]
    assert examined.suspicion.level == 0


def test_real_crops_of_one_patient_are_cases_of_that_patient(shared_data, tmp_path):
    source = shared_data / "lidc_nodules"
    if not source.is_dir():
        pytest.skip("the crops are not at hand")
    few = tmp_path / "few"
    for folder in ("ct", "mask", "readers"):
        (few / folder).mkdir(parents=True)
        for path in source.glob(f"{folder}/LIDC-IDRI-000[1-5]_R_*.nii.gz"):
            (few / folder / path.name).symlink_to(path)
    run(few, tmp_path / "cases", cohort="lidc_idri", patient_pattern=PATTERN)
    cases = find_cases(tmp_path / "cases")
    with (source / "nodules.csv").open() as file:
        nodules = [row for row in csv.DictReader(file) if (few / "ct" / f"{row['name']}.nii.gz").exists()]
    assert sorted(case.patient_id for case in cases) == sorted(row["patient"] for row in nodules)
    assert all(case.is_crop and case.has_lesion for case in cases)


def test_the_command_of_the_documentation_makes_the_cases_that_it_shows(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "own-data.md").read_text(encoding="utf-8")
    shown = re.findall(r"crops/ct/(\S+)\.nii\.gz +crops/mask/\1\.nii\.gz", page)
    for number, name in enumerate(shown):
        write_crop(tmp_path / "crops", name, nodule_hu=40 + number)
    (words,) = (words for words in shown_commands(page) if words[:2] == ["ingest", "crops"])
    assert type_command(words, tmp_path, monkeypatch) == 0
    decisions = capsys.readouterr().err.splitlines()
    assert decisions == [f"{name}: {DECISION}" for name in shown]
    said = re.search(r"^P017_R_1: \d+ x \d+ x \d+ (mm: .*)$", page, flags=re.MULTILINE)
    assert said[1] in DECISION
    assert [(case.case_id, case.patient_id) for case in find_cases(tmp_path / "cropped")] == [
        ("P017_R_1", "P017"),
        ("P017_R_2", "P017"),
        ("P018_R_1", "P018"),
    ]


def test_a_list_shows_each_crop_as_a_case_of_its_own(crops):
    listing = list_sources(crops, IngestOptions(patient_pattern=PATTERN, id_from="patient-id"))
    assert [(one.case_id, one.outline, one.why) for one in listing.candidates] == [
        ("P1_R_1", "mask", "each volume file is a case"),
        ("P1_R_12", "mask", "each volume file is a case"),
        ("P2_R_1", "", "no outline was found"),
    ]
