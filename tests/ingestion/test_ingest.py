import csv
import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import box_hu, ct_slices, files_in, rtstruct, save, seg, square, write_ct
from pydicom import dcmread

from radiogen.errors import (
    CaseError,
    OutlineError,
    OutputError,
    RadiogenError,
    SeriesError,
    TableError,
    VolumeError,
)
from radiogen.ingestion import case_folder
from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.options import IngestOptions
from radiogen.io.cases import find_cases, read_manifest
from radiogen.io.nifti import write_volume
from radiogen.volume import array_of


def patient(folder, name="A 1", rois=None, **how):
    """A CT and, if asked for, its RTSTRUCT."""
    write_ct(folder / "ct", patient=name, **how)
    rois = {"GTV-1": [square(2, (3, 2), (7, 5))]} if rois is None else rois
    if rois:
        save([rtstruct(rois, patient=name)], folder / "rt", ["1.dcm"])
    return folder


def run(source, cases, **options):
    return ingest(source, cases, IngestOptions(**options))


def test_a_dicom_folder_becomes_a_case_that_the_rest_can_read(tmp_path):
    report = run(patient(tmp_path / "src"), tmp_path / "cases")
    (case,) = find_cases(tmp_path / "cases")
    assert np.array_equal(array_of(case.ct()), box_hu())
    assert case.ct().GetPixelID() == sitk.sitkInt16
    assert int((array_of(case.lesion()) == 1).sum()) == 4 * 3
    assert report.cases[0].case_id == case.case_id
    assert case.about()["scanner"]["year"] == "2001"
    assert case.about()["scanner"]["kernel"] == "B40"
    assert (case.folder / "case.run.json").is_file()


def test_the_date_of_a_scan_is_kept_only_when_asked(tmp_path):
    source = patient(tmp_path / "src")
    run(source, tmp_path / "year")
    run(source, tmp_path / "date", keep_dates=True)
    year, date = (find_cases(tmp_path / name)[0].about()["scanner"] for name in ("year", "date"))
    assert date.pop("acquisition_date") == "2001-03-04" and date == year


def test_a_dicom_case_is_certified_down_to_its_slices(tmp_path):
    run(patient(tmp_path / "src"), tmp_path / "cases")
    certificate = find_cases(tmp_path / "cases")[0].about()["geometry"]["certificate"]
    assert certificate["slices_error_mm"] < 0.001 and certificate["corners_error_mm"] < 0.001


def test_no_identity_reaches_a_name_or_a_file(tmp_path):
    run(patient(tmp_path / "Doe Jane" / "src", "MRN-12345"), tmp_path / "cases")
    for path in files_in(tmp_path / "cases"):
        assert not any(word in path.name for word in ("MRN", "Doe", "12345"))
        if path.suffix in (".json", ".csv"):
            assert not any(word in path.read_text() for word in ("MRN", "Doe", "12345", "20010304"))


def test_pseudonyms_of_a_cohort_stay_and_other_ids_are_hashed(tmp_path):
    for name in ("PHANTOM-7", "Jane Doe"):
        patient(tmp_path / "src" / name, name)
    report = run(tmp_path / "src", tmp_path / "cases", cohort="phantoms")
    assert {case.case_id for case in report.cases} > {"PHANTOM-7"}
    (other,) = {case.case_id for case in report.cases} - {"PHANTOM-7"}
    assert len(other) == 12 and set(other) <= set("0123456789abcdef")


def test_patient_ids_are_kept_only_where_asked_and_made_into_words(tmp_path):
    report = run(patient(tmp_path / "src", "../A 1"), tmp_path / "cases", id_from="patient-id")
    assert [case.case_id for case in report.cases] == ["A-1"]
    assert (tmp_path / "cases" / "A-1" / "ct.nii.gz").is_file()


def test_two_patients_whose_ids_become_one_word_are_both_refused(tmp_path):
    for name in ("A 1", "A+1", "B"):
        patient(tmp_path / "src" / name, name)
    report = run(tmp_path / "src", tmp_path / "cases", id_from="patient-id")
    assert [case.case_id for case in report.cases] == ["B"]
    assert len(report.failures) == 2
    assert "2 scans would be case A-1" in report.failures[0].reason


def test_the_clinical_table_is_joined_before_ids_are_hashed(tmp_path):
    patient(tmp_path / "src" / "1", "R-1")
    patient(tmp_path / "src" / "2", "R-2")
    table = tmp_path / "clinical.csv"
    table.write_text("Case ID ,EGFR mutation status,Age\nR-2,Mutant,61\nR-9,Wildtype,70\n")
    run(tmp_path / "src", tmp_path / "cases", clinical=table)
    rows = read_manifest(tmp_path / "cases")
    assert sorted((row["egfr"], row["age"]) for row in rows) == [("", ""), ("mutant", "61")]
    assert all(len(row["patient_id"]) == 12 for row in rows)


def test_a_table_that_names_none_of_the_patients_is_refused(tmp_path):
    table = tmp_path / "clinical.csv"
    table.write_text("patient_id,egfr\nX,mutant\n")
    with pytest.raises(TableError, match="names none of the 1 patients"):
        run(patient(tmp_path / "src"), tmp_path / "cases", clinical=table)


def test_the_series_of_the_outline_is_taken_though_another_has_more_slices(tmp_path):
    patient(tmp_path / "src")
    write_ct(tmp_path / "src" / "long", box_hu((11, 7, 8)), series="long")
    report = run(tmp_path / "src", tmp_path / "cases")
    assert "of 2 CT series the one with 5 files taken, the outline refers to it" in report.cases[0].decisions
    shutil.rmtree(tmp_path / "src" / "rt")
    report = run(tmp_path / "src", tmp_path / "again")
    assert (
        "of 2 CT series the one with 8 files taken, it has the most axial slices" in report.cases[0].decisions
    )
    assert "no outline was found" in report.cases[0].decisions


def test_a_manual_seg_goes_before_an_automatic_one(tmp_path):
    slices = ct_slices()
    save(slices, tmp_path / "src" / "ct")
    manual, automatic = (np.zeros((5, 7, 11), dtype=bool) for _ in range(2))
    manual[2, 2:4, 2:4] = True
    automatic[1:3] = True
    save([seg({"Tissue": manual}, slices)], tmp_path / "src" / "a", ["1"])
    save([seg({"Nodule": automatic}, slices, algorithm="AUTOMATIC")], tmp_path / "src" / "b", ["1"])
    run(tmp_path / "src", tmp_path / "cases")
    (case,) = find_cases(tmp_path / "cases")
    assert int((array_of(case.lesion()) > 0).sum()) == 4


def test_two_outlines_of_one_kind_are_not_chosen_from(tmp_path):
    source = patient(tmp_path / "src")
    other = save([rtstruct({"GTV-2": [square(2, (3, 2), (7, 5))]})], source / "rt2", ["2.dcm"])
    with pytest.raises(
        OutlineError, match=r"has 2 outlines: 1.dcm, 2.dcm \(choose one with --outline FILE\)"
    ):
        run(source, tmp_path / "cases")
    report = run(source, tmp_path / "cases", outline=other[0])
    assert "RTSTRUCT: GTV-2 taken, the only one" in report.cases[0].decisions


def test_a_mask_file_goes_with_a_dicom_series(tmp_path):
    source = patient(tmp_path / "src", rois={})
    run(source, tmp_path / "plain")
    mask = find_cases(tmp_path / "plain")[0].ct() > 0
    write_volume(mask, tmp_path / "mask.nii.gz")
    run(source, tmp_path / "cases", outline=tmp_path / "mask.nii.gz")
    (case,) = find_cases(tmp_path / "cases")
    assert np.array_equal(array_of(case.lesion()) > 0, box_hu() > 0)


def chest_file(path, size=(11, 7, 5)):
    volume = sitk.GetImageFromArray(box_hu(size).astype(np.float32))
    volume.SetSpacing((0.75, 1.25, 2.5))
    volume.SetOrigin((1.0, 2.0, 3.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(volume, path)
    return volume


def test_a_folder_of_volume_files_is_paired_with_its_masks(tmp_path):
    for name in ("a", "b"):
        volume = chest_file(tmp_path / "src" / f"{name}_image.nrrd")
    write_volume(volume < -500, tmp_path / "src" / "a_label.nrrd")
    report = run(tmp_path / "src", tmp_path / "cases", id_from="patient-id")
    assert [case.case_id for case in report.cases] == ["a", "b"]
    cases = {case.case_id: case for case in find_cases(tmp_path / "cases")}
    assert np.array_equal(array_of(cases["a"].ct()), box_hu())
    assert cases["a"].has_lesion and not cases["b"].has_lesion
    assert "no outline was found" in report.cases[1].decisions


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_one_volume_file_is_one_case(tmp_path, ending):
    volume = chest_file(tmp_path / f"scan{ending}")
    write_volume(volume < -500, tmp_path / "other.nrrd")
    run(tmp_path / f"scan{ending}", tmp_path / "cases", outline=tmp_path / "other.nrrd")
    (case,) = find_cases(tmp_path / "cases")
    assert np.allclose(case.ct().GetOrigin(), (1, 2, 3))
    assert np.array_equal(array_of(case.lesion()) > 0, box_hu() < -500)


def empty(folder):
    folder.mkdir()


def without_ct(folder):
    save([rtstruct({"GTV": [square(1, (1, 1), (3, 3))]})], folder)


def truncated(folder):
    path = patient(folder).joinpath("ct", "007.ima")
    path.write_bytes(path.read_bytes()[:-40])


def two_patients(folder):
    slices = ct_slices()
    slices[3].PatientID = "B"
    save(slices, folder / "ct")


def missing_slice(folder):
    patient(folder).joinpath("ct", "007.ima").unlink()


def outline_outside(folder):
    patient(folder, rois={"GTV": [square(9, (1, 1), (3, 3))]})


def no_tumour(folder):
    patient(folder, rois={name: [square(1, (1, 1), (3, 3))] for name in ("Lung", "Cord")})


def not_hu(folder):
    patient(folder, hu=box_hu() + 1000)


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (empty, SeriesError, "src: holds no CT, it is empty"),
        (without_ct, SeriesError, "src: holds no CT, only 1 x outline"),
        (truncated, SeriesError, "007.ima: is truncated"),
        (two_patients, SeriesError, "ct: holds one series of several patients"),
        (missing_slice, SeriesError, "missing between z -100.00 and -95.00 mm"),
        (outline_outside, OutlineError, "1.dcm: lies outside the CT by 11.2 mm"),
        (no_tumour, OutlineError, "not clear from 'Lung', 'Cord' (choose with --roi PATTERN)"),
        (not_hu, VolumeError, "values from 100 to 1040 are no HU of a chest"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(tmp_path, spoil, kind, says):
    spoil(tmp_path / "src")
    with pytest.raises(kind) as caught:
        run(tmp_path / "src", tmp_path / "cases")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.hint
    assert not (tmp_path / "cases").exists()


def test_a_mask_of_another_size_is_refused_and_nothing_is_written(tmp_path):
    source = patient(tmp_path / "src")
    write_volume(sitk.GetImageFromArray(np.ones((5, 7, 9), np.uint8)), tmp_path / "mask.nii.gz")
    with pytest.raises(OutlineError, match=r"mask\.nii\.gz"):
        run(source, tmp_path / "cases", outline=tmp_path / "mask.nii.gz")
    assert not (tmp_path / "cases").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"series": "1.2.3"}, "holds 1 CT series, none is 1.2.3"),
        ({"cohort": "nowhere"}, "has no card"),
        ({"outline": "no.dcm"}, "is not a file"),
        ({"roi": "Heart"}, "none matches 'Heart', there are 'GTV-1'"),
        ({"roi": "GTV("}, "not a regular expression"),
    ],
)
def test_an_option_that_does_not_fit_is_one_line(tmp_path, options, says):
    with pytest.raises(RadiogenError) as caught:
        run(patient(tmp_path / "src"), tmp_path / "cases", **options)
    assert says in str(caught.value)
    assert not (tmp_path / "cases").exists()


def test_the_outline_of_another_patient_is_refused(tmp_path):
    patient(tmp_path / "other", "B 2")
    with pytest.raises(OutlineError, match="refers to another CT"):
        run(patient(tmp_path / "src"), tmp_path / "cases", outline=tmp_path / "other" / "rt" / "1.dcm")


def test_a_source_that_is_no_folder_of_scans_is_refused(tmp_path):
    paths = write_ct(tmp_path / "src")
    for source, says in ((tmp_path / "nowhere", "does not exist"), (paths[0], "neither a folder")):
        with pytest.raises(SeriesError, match=says):
            run(source, tmp_path / "cases")
    run(tmp_path / "src", tmp_path / "cases")
    with pytest.raises(CaseError, match="already holds cases"):
        run(tmp_path / "cases", tmp_path / "more")


def cohort(folder):
    """Three patients, one with a missing slice."""
    for name in ("A", "B", "C"):
        patient(folder / name, name)
    (folder / "B" / "ct" / "007.ima").unlink()
    return folder


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_bad_case_does_not_stop_the_others(tmp_path, jobs):
    seen = []
    options = IngestOptions(id_from="patient-id", jobs=jobs)
    report = ingest(
        cohort(tmp_path / "src"),
        tmp_path / "cases",
        options,
        lambda what, n, of: seen.append((n, of)) if what == "ingest" else None,
    )
    assert [case.case_id for case in report.cases] == ["A", "C"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with (tmp_path / "cases" / "failures.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["case_id"] == "B" and "missing between" in row["reason"] and row["way_out"]
    assert [row["case_id"] for row in read_manifest(tmp_path / "cases")] == ["A", "C"]


def test_the_failures_are_gone_once_the_case_is_mended(tmp_path):
    source = cohort(tmp_path / "src")
    run(source, tmp_path / "cases", id_from="patient-id")
    write_ct(source / "B" / "ct", patient="B")
    report = run(source, tmp_path / "cases", id_from="patient-id")
    assert [(case.case_id, case.is_new) for case in report.cases] == [("A", False), ("B", True), ("C", False)]
    assert not (tmp_path / "cases" / "failures.csv").exists()
    assert len(find_cases(tmp_path / "cases")) == 3


def test_a_run_that_was_killed_leaves_no_case_that_counts_and_the_next_finishes_it(tmp_path, monkeypatch):
    source = patient(tmp_path / "src")

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(case_folder, "write_json", dies)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "cases")
    assert files_in(tmp_path / "cases") == []
    (tmp_path / "cases" / ".writing-x").mkdir()
    run(source, tmp_path / "cases")
    run(source, tmp_path / "whole")
    for name in ("ct.nii.gz", "lesion.nii.gz", "case.json"):
        (one,), (other,) = (list((tmp_path / folder).glob(f"*/{name}")) for folder in ("cases", "whole"))
        assert one.read_bytes() == other.read_bytes()


def test_existing_cases_are_kept_made_anew_or_refused(tmp_path):
    source = patient(tmp_path / "src")
    (first,) = run(source, tmp_path / "cases").cases
    record = tmp_path / "cases" / first.case_id / "case.run.json"
    started = record.stat().st_mtime_ns
    assert not run(source, tmp_path / "cases").cases[0].is_new
    (kept,) = run(source, tmp_path / "cases", roi="GTV.*").cases
    assert kept.decisions == ("kept, but it was made with other options; --existing overwrite makes it anew",)
    with pytest.raises(OutputError, match="is there already"):
        run(source, tmp_path / "cases", existing="fail")
    with pytest.raises(OutputError, match="is a file"):
        run(source, record)
    assert record.stat().st_mtime_ns == started
    assert run(source, tmp_path / "cases", roi="GTV.*", existing="overwrite").cases[0].is_new
    assert json.loads(record.read_text())["options"]["roi"] == "GTV.*"


def test_a_case_of_the_same_name_from_another_scan_is_not_taken_for_it(tmp_path):
    run(patient(tmp_path / "src"), tmp_path / "cases", id_from="patient-id")
    other = patient(tmp_path / "other", series="second", rois={})
    with pytest.raises(CaseError, match="was made from another scan"):
        run(other, tmp_path / "cases", id_from="patient-id")


def test_what_the_manifest_knew_of_other_cases_stays(tmp_path):
    run(patient(tmp_path / "a", "A"), tmp_path / "cases", id_from="patient-id")
    manifest = tmp_path / "cases" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("A,A,,,", "A,A,,test,"))
    run(patient(tmp_path / "b", "B"), tmp_path / "cases", id_from="patient-id")
    assert [(row["case_id"], row["split"]) for row in read_manifest(tmp_path / "cases")] == [
        ("A", "test"),
        ("B", ""),
    ]


def test_real_4d_lung_keeps_its_values_and_its_tumour(shared_data, tmp_path):
    source = shared_data / "lung_4d_113"
    run(source, tmp_path / "cases")
    (case,) = find_cases(tmp_path / "cases")
    hu, lungs = array_of(case.ct()), array_of(case.lungs())
    slices = [dcmread(path) for path in source.glob("*/*/*Gated*29543/*.dcm")]
    slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    assert hu.shape == (99, 512, 512)
    assert all(np.array_equal(hu[k], one.pixel_array.astype(int) - 1000) for k, one in enumerate(slices))
    ml = float(np.prod(case.ct().GetSpacing())) / 1000
    assert (array_of(case.lesion()) > 0).sum() * ml == pytest.approx(67.56, rel=0.01)
    assert 1300 < (lungs == 1).sum() * ml < 1600 and 750 < (lungs == 2).sum() * ml < 1000


def test_real_ibsi_phantom_is_the_same_from_dicom_and_from_nifti(shared_data, tmp_path):
    volumes = []
    for kind in ("dicom", "nifti"):
        run(shared_data / "ibsi_ct_phantom" / kind, tmp_path / kind)
        (case,) = find_cases(tmp_path / kind)
        volumes.append((case.ct(), case.lesion()))
    (dicom, gtv), (nifti, mask) = volumes
    assert np.array_equal(array_of(dicom), array_of(nifti))
    assert np.allclose(dicom.GetOrigin(), nifti.GetOrigin(), atol=1e-4)
    assert int((array_of(mask) > 0).sum()) == 125256
    assert np.array_equal(array_of(gtv), array_of(mask))


def test_real_nrrd_is_accepted_with_what_is_incomplete_said(shared_data, tmp_path):
    report = run(shared_data / "pyradiomics_lung1", tmp_path / "nrrd")
    assert int((array_of(find_cases(tmp_path / "nrrd")[0].lesion()) > 0).sum()) == 837
    assert "lungs: cut off at the bottom of the scan" in report.cases[0].decisions


def test_real_lidc_runs_come_with_all_ratings_or_are_refused_where_nodules_leave_them(shared_data, tmp_path):
    report = run(shared_data / "lidc_idri_partial", tmp_path / "lidc", cohort="lidc_idri")
    (made,) = report.cases
    assert made.case_id == "LIDC-IDRI-0001"
    assert "lungs: cut off at the bottom and the top of the scan" in made.decisions
    assert [failure.case_id for failure in report.failures] == ["LIDC-IDRI-0002", "LIDC-IDRI-0003"]
    assert all("lies outside the CT by" in failure.reason for failure in report.failures)
    outline = json.loads((tmp_path / "lidc" / "LIDC-IDRI-0001" / "case.json").read_text())["outline"]
    (readings,) = outline["readings"]
    assert [one["malignancy"] for one in readings] == [5, 5, 5, 4]
    assert [round(one["volume_ml"], 2) for one in readings] == [8.46, 6.61, 7.09, 7.92]
    assert {"subtlety", "sphericity", "margin", "lobulation", "spiculation", "texture"} <= set(readings[0])
    assert len(outline["small_nodules"]) == 9
