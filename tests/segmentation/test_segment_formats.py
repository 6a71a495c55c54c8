"""Lesions in other formats beside the mask: whatever was segmented, and refusals in one line."""

import json
import shutil

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from tiny_cases import TINY
from training.oracles import CopyOfPrior, oracle

from radiogen.cohorts.run import run_cohort
from radiogen.cohorts.settings import CohortSettings
from radiogen.errors import CaseError, ConfigError
from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.options import IngestOptions
from radiogen.io.nifti import read_grid, read_mask, write_volume
from radiogen.phantoms.cohort import make_phantoms
from radiogen.segmentation.formats import parse_formats
from radiogen.segmentation.segment import SegmentOptions, segment
from radiogen.volume import array_of

EVERY = parse_formats("nifti,dicom-seg,rtstruct,sr")
BESIDE = ("lesion.ctbl", "lesion.rtstruct.dcm", "lesion.seg.dcm", "lesion.sr.dcm")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """The DICOM of two patients with outlines, and their cases."""
    home = tmp_path_factory.mktemp("phantoms")
    made = make_phantoms(home / "made", 2, seed=3, size=TINY, broken=False)
    ingest(made.dicom, home / "cases", IngestOptions())
    return made.dicom, home / "cases"


def asked(**how):
    return SegmentOptions(**{"prior": "mask", "picture": False, "formats": EVERY, **how})


def files_beside(folder):
    return tuple(sorted(path.name for path in folder.iterdir() if path.name in BESIDE))


def segments_on(path, mask):
    """The labels of a SEG as highdicom reads them, on the grid of a mask of the same CT."""
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    found = np.zeros_like(array_of(mask))
    for index in np.argwhere(volume.array):
        point = (volume.affine @ np.append(index, 1))[:3].tolist()
        i, j, k = mask.TransformPhysicalPointToIndex(point)
        found[k, j, i] = volume.array[tuple(index)]
    return found


def test_cases_get_every_format_where_their_dicom_is_given(phantoms, tmp_path):
    dicom, cases = phantoms
    report = segment(cases, tmp_path / "out", oracle(CopyOfPrior()), asked(dicom=dicom))
    assert len(report.done) == 2 and not report.failures
    for done in report.done:
        assert done.lesions and files_beside(done.folder) == BESIDE
        mask = read_mask(done.folder / "lesion.nii.gz")
        assert np.array_equal(segments_on(done.folder / "lesion.seg.dcm", mask), array_of(mask))
        item = dcmread(done.folder / "lesion.seg.dcm")
        assert (item.PatientID, item.PatientName, item.StudyDate) == (done.case_id, done.case_id, "")
        kept = json.loads((done.folder / "lesion.run.json").read_text())["outputs"]
        assert {f"{name}" for name in BESIDE} <= {path.rsplit("/", 1)[-1] for path in kept}


def test_a_scan_given_directly_refers_to_itself_and_bears_its_patient_if_asked(phantoms, tmp_path):
    scan = next(path for path in sorted(phantoms[0].iterdir()) if path.is_dir())
    (done,) = segment(scan, tmp_path / "out", oracle(CopyOfPrior()), asked(keep_patient=True)).done
    ct = next(item for path in scan.rglob("*") if path.is_file() and (item := dcmread(path)).Modality == "CT")
    for name in BESIDE[1:]:
        item = dcmread(done.folder / name)
        assert (item.PatientID, item.PatientName) == (ct.PatientID, ct.PatientName)
        assert item.StudyInstanceUID == ct.StudyInstanceUID
    assert dcmread(done.folder / "lesion.seg.dcm").FrameOfReferenceUID == ct.FrameOfReferenceUID


def test_a_second_run_writes_nothing_and_one_without_formats_takes_them_away(phantoms, tmp_path):
    dicom, cases = phantoms
    model, out = oracle(CopyOfPrior()), tmp_path / "out"
    segment(cases, out, model, asked(dicom=dicom))
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/lesion.*")}
    assert not any(done.is_new for done in segment(cases, out, model, asked(dicom=dicom)).done)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/lesion.*")} == before
    again = segment(cases, out, model, SegmentOptions(prior="mask", picture=False))
    assert all(files_beside(done.folder) == BESIDE[:1] for done in again.done)


def test_a_missing_file_is_made_again(phantoms, tmp_path):
    dicom, cases = phantoms
    model, out = oracle(CopyOfPrior()), tmp_path / "out"
    gone = segment(cases, out, model, asked(dicom=dicom)).done[0].folder / "lesion.seg.dcm"
    content = gone.read_bytes()
    gone.unlink()
    segment(cases, out, model, asked(dicom=dicom))
    assert gone.read_bytes() == content


def test_cases_without_their_dicom_are_refused_before_they_are_segmented(phantoms, tmp_path):
    case = sorted(path.parent for path in phantoms[1].glob("*/case.json"))[0]
    model = oracle(CopyOfPrior())
    with pytest.raises(CaseError, match="cannot be written as dicom-seg without the DICOM") as refused:
        segment(case, tmp_path / "out", model, asked())
    assert "--source" in str(refused.value)
    other = make_phantoms(tmp_path / "other", 1, seed=9, size=TINY, broken=False).dicom
    with pytest.raises(CaseError, match="that --source does not hold"):
        segment(case, tmp_path / "out", model, asked(dicom=other))
    assert not list((tmp_path / "out").glob("*/*"))


def test_a_volume_file_has_no_slices_to_refer_to(phantoms, tmp_path):
    case = sorted(path.parent for path in phantoms[1].glob("*/case.json"))[0]
    ct = shutil.copy(case / "ct.nii.gz", tmp_path / "scan.nii.gz")
    with pytest.raises(CaseError, match="was made from a nii file: there are no slices"):
        segment(ct, tmp_path / "out", oracle(CopyOfPrior()), asked(prior="lungs"))


def test_an_unknown_format_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match="--format dicomseg: is unknown"):
        parse_formats("nifti,dicomseg")
    with pytest.raises(ConfigError, match="--format png"):
        SegmentOptions(formats="png")
    assert SegmentOptions(formats=["sr"]).formats == ("nifti", "dicom-seg", "sr")


def test_the_mask_lies_on_the_ct_for_whoever_reads_either_form(phantoms, tmp_path):
    case = tmp_path / "cases" / "oblique"
    shutil.copytree(sorted(path.parent for path in phantoms[1].glob("*/case.json"))[0], case)
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.3, -0.2, 0.5)
    for name in ("ct", "lungs", "lesion"):
        volume = sitk.ReadImage(str(case / f"{name}.nii.gz"))
        volume.SetDirection(turn.GetMatrix())
        write_volume(volume, case / f"{name}.nii.gz")
    about = json.loads((case / "case.json").read_text())
    (case / "case.json").write_text(json.dumps({**about, "case_id": "oblique"}))
    out = tmp_path / "out"
    (done,) = segment(case, out, oracle(CopyOfPrior()), SegmentOptions(prior="mask", picture=False)).done
    ct, mask = (nibabel.load(path) for path in (case / "ct.nii.gz", done.folder / "lesion.nii.gz"))
    assert np.asarray(mask.dataobj).any()
    for form in ("get_qform", "get_sform"):
        (of_ct, ct_code), (of_mask, code) = (getattr(one, form)(coded=True) for one in (ct, mask))
        assert code == ct_code == 1
        np.testing.assert_allclose(of_mask, of_ct, atol=1e-6)  # mm; both hold single precision
        np.testing.assert_allclose(of_mask, ct.affine, atol=1e-4)
    grid = read_grid(case / "ct.nii.gz")
    assert grid.GetDirection() == pytest.approx(read_grid(done.folder / "lesion.nii.gz").GetDirection())


def test_the_colour_table_names_each_lesion(phantoms, tmp_path):
    _, cases = phantoms
    for done in segment(cases, tmp_path, oracle(CopyOfPrior()), SegmentOptions(prior="mask")).done:
        lines = [line.split() for line in (done.folder / "lesion.ctbl").read_text().splitlines()]
        rows = [line for line in lines if line[0] != "#"]
        assert rows[0] == ["0", "background", "0", "0", "0", "0"]
        assert [(row[0], row[1]) for row in rows[1:]] == [
            (f"{lesion.label}", f"Lesion_{lesion.label}") for lesion in done.lesions
        ]
        assert all(len(row) == 6 and all(0 <= int(v) <= 255 for v in row[2:]) for row in rows)


@pytest.mark.parametrize("whole", [True, False], ids=["scans", "cases"])
def test_a_cohort_run_writes_the_formats_too(phantoms, tiny_model, tmp_path, whole):
    dicom, cases = phantoms
    model = tmp_path / "model"
    shutil.copytree(tiny_model.folder, model)
    content = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**content, "threshold": 0.01}))
    how = {"prior": "box", "picture": False, "formats": ["dicom-seg"], "dicom": None if whole else dicom}
    settings = CohortSettings(
        source=dicom if whole else cases, model=model, segment=how, device="cpu",
        steps=("ingest", "segment") if whole else ("segment",),
    )  # fmt: skip
    report = run_cohort(settings, tmp_path / "run")
    assert not report.failures
    found = sorted((tmp_path / "run" / "segmented").glob("*/lesion.seg.dcm"))
    assert len(found) == 2
    for path in found:
        mask = read_mask(path.parent / "lesion.nii.gz")
        assert np.array_equal(segments_on(path, mask), array_of(mask))
