"""A made cohort is the same every time, reads like a real one, and is broken where it says so."""

import hashlib
import warnings

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from tiny_cases import TINY

from radiogen.errors import ConfigError, OutputError
from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.options import IngestOptions
from radiogen.io.cases import read_manifest
from radiogen.io.clinical import read_clinical
from radiogen.io.polygons import fill_polygons, trace
from radiogen.phantoms.chest import make_chest
from radiogen.phantoms.cohort import make_phantoms
from radiogen.phantoms.traits import draw_traits
from radiogen.volume import array_of, same_grid

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_phantoms(tmp_path_factory.mktemp("phantoms"), 9, seed=4, size=TINY)


@pytest.fixture(scope="module")
def report(cohort):
    options = IngestOptions(cohort="phantoms", clinical=cohort.clinical)
    return ingest(cohort.dicom, cohort.folder / "cases", options)


def hashes(folder, only=""):
    files = (path for path in folder.rglob("*") if path.is_file() and only in str(path))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if "cases" not in path.relative_to(folder).parts
    }


def chest_of(patient_id, seed=4):
    return make_chest(draw_traits(seed, int(patient_id[-3:])), seed, TINY)


def series_of(cohort, number):
    """The files of the CT series of one patient, in the order of z, by what ITK says."""
    folder = next((cohort.dicom / f"Phantom no. {number}").glob("*/3.000000-*"))
    main = max(
        sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)),
        key=lambda uid: len(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)),
    )
    return folder, sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), main)


def test_the_same_seed_gives_the_same_bytes(cohort, tmp_path):
    again = make_phantoms(tmp_path, 9, seed=4, size=TINY)
    assert hashes(again.folder) == hashes(cohort.folder)
    assert again.patients == cohort.patients


def test_a_patient_is_the_same_in_a_smaller_cohort_and_another_with_another_seed(cohort, tmp_path):
    few = make_phantoms(tmp_path / "few", 2, seed=4, size=TINY)
    other = make_phantoms(tmp_path / "other", 1, seed=5, size=TINY)
    for name in ("no. 1", "no. 2"):
        assert hashes(few.dicom, name) == hashes(cohort.dicom, name)
    assert not set(hashes(other.dicom).values()) & set(hashes(few.dicom).values())


@pytest.mark.parametrize("number", [1, 2, 4])
def test_itk_reads_the_series_back_to_the_same_hu_at_the_same_place(cohort, number):
    _, names = series_of(cohort, number)
    volume, made = sitk.ReadImage(names), chest_of(f"{number:03d}").volume
    hu, expected = array_of(volume), array_of(made)
    outside = hu == -2000 - 1024
    assert same_grid(volume, made)
    assert outside.any() == (number % 5 in (0, 2))
    assert expected[outside].max(initial=-1024) < 0  # nothing of the body is cut off but noise and table
    assert np.array_equal(hu[~outside], expected[~outside])


@pytest.mark.parametrize(("number", "kind"), [(1, "SEG"), (2, "RTSTRUCT"), (3, "SEG"), (4, "RTSTRUCT")])
def test_every_outline_refers_to_slices_of_the_series_beside_it(cohort, number, kind):
    _, names = series_of(cohort, number)
    slices = [dcmread(name, stop_before_pixels=True) for name in names]
    path = next((cohort.dicom / f"Phantom no. {number}").glob("*/1000.000000-*/*"))
    outline = dcmread(path)
    assert outline.Modality == kind
    assert {one.StudyInstanceUID for one in slices} == {outline.StudyInstanceUID}
    if kind == "SEG":
        series = outline.ReferencedSeriesSequence[0]
        images = series.ReferencedInstanceSequence
        assert outline.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
        assert outline.SegmentSequence[0].SegmentLabel in ("Heart", "Tissue")
    else:
        frame = outline.ReferencedFrameOfReferenceSequence[0]
        series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
        images = series.ContourImageSequence
        assert frame.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
        assert "GTV-1" in [roi.ROIName for roi in outline.StructureSetROISequence]
    assert series.SeriesInstanceUID == slices[0].SeriesInstanceUID
    assert {image.ReferencedSOPInstanceUID for image in images} <= {one.SOPInstanceUID for one in slices}
    assert len(images) > 0


def test_file_names_say_nothing_of_the_order(cohort):
    _, names = series_of(cohort, 3)
    assert list(names) != sorted(names)
    assert list(names) != sorted(names, reverse=True)


def test_something_that_is_no_slice_lies_beside_the_slices(report, cohort):
    assert report.ignored == {"localizer": 3, "secondary capture": 3}


def test_ingest_gives_the_made_ct_and_lesions_back(report, cohort):
    rows = {row["patient_id"]: row for row in read_manifest(cohort.folder / "cases")}
    for patient in cohort.patients:
        if patient.broken in ("missing slice", "no outline"):
            continue
        row, made = rows[patient.patient_id], chest_of(patient.patient_id)
        lesion, ct = (
            array_of(sitk.ReadImage(cohort.folder / "cases" / row[name])) for name in ("lesion", "ct")
        )
        expected = array_of(made.lesion) > 0
        assert 2 * np.sum((lesion > 0) & expected) / (np.sum(lesion > 0) + expected.sum()) > 0.95
        assert np.mean(ct != array_of(made.volume)) < 0.15


def test_broken_patients_fail_or_pass_as_said(report, cohort):
    assert [patient.broken for patient in cohort.patients[:6]] == [""] * 6
    assert [p.broken for p in cohort.patients[6:]] == ["missing slice", "no outline", "doubled slice"]
    assert [(f.case_id, "slices missing" in f.reason) for f in report.failures] == [("PHANTOM-007", True)]
    said = {case.case_id: " ".join(case.decisions) for case in report.cases}
    assert "no outline was found" in said["PHANTOM-008"]
    assert "1 doubled slices with equal voxels" in said["PHANTOM-009"]
    assert sum("doubled" in text or "no outline" in text for text in said.values()) == 2


def test_small_cohorts_have_fewer_broken_patients(tmp_path):
    four = make_phantoms(tmp_path / "four", 4, size=TINY)
    assert [patient.broken for patient in four.patients] == ["", "", "", "missing slice"]
    three = make_phantoms(tmp_path / "three", 3, size=TINY)
    assert [patient.broken for patient in three.patients] == ["", "", ""]


def test_the_clinical_table_joins_and_tells_the_traits(report, cohort):
    table = read_clinical(cohort.clinical).set_index("patient_id")
    manifest = {row["patient_id"]: row for row in read_manifest(cohort.folder / "cases")}
    for number, patient in enumerate(cohort.patients, start=1):
        traits, row = draw_traits(4, number), table.loc[patient.patient_id]
        words = ("site", "sex", "smoking", "histology", "ethnicity", "age")
        assert [row[name] for name in words] == [getattr(traits, name) for name in words]
        assert row["egfr"] == patient.egfr == traits.known_egfr
        assert pd.isna(row["pack_years"]) or row["pack_years"] == traits.pack_years
        if patient.broken != "missing slice":
            assert manifest[patient.patient_id]["egfr"] == patient.egfr


def test_every_file_is_valid_without_a_warning_and_names_no_one(cohort):
    for path in cohort.dicom.rglob("*"):
        if path.is_file():
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                dataset = dcmread(path)
                str(dataset)
            assert dataset.PatientID.startswith("PHANTOM-")
            assert dataset.StudyDate == dataset.SeriesDate < "1996"
            assert dataset.SOPClassUID != CT or dataset.FrameOfReferenceUID


def test_tracing_and_filling_give_any_mask_back():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (5, 8), (9, 4)):
        mask = rng.random(shape) < 0.6
        polygons = [np.array(line) - 0.5 for line in trace(mask)]
        assert np.array_equal(fill_polygons(polygons, shape[::-1]), mask)


def test_a_folder_with_dicom_and_an_empty_cohort_are_refused(cohort, tmp_path):
    with pytest.raises(OutputError, match="there already"):
        make_phantoms(cohort.folder, 1, size=TINY)
    with pytest.raises(ConfigError, match="no cohort"):
        make_phantoms(tmp_path, 0)
