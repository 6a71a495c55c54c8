"""Masks change their format and keep their voxels; what cannot be converted is refused by name."""

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import SPACING, box_hu, ct_slices, rtstruct, save, square
from pydicom import dcmread
from pydicom.config import disable_value_validation

from radiogen.errors import ConfigError, OutlineError, OutputError, SeriesError
from radiogen.ingestion import convert as module
from radiogen.ingestion.convert import convert
from radiogen.io.dicom.rtstruct import read_rtstruct
from radiogen.io.nifti import read_mask, write_volume
from radiogen.volume import array_of, same_grid

SIZE = (15, 9, 7)
ENDINGS = {"nifti": ".nii.gz", "dicom-seg": ".dcm", "rtstruct": ".dcm"}
HOSTILE = "<b>GTV</b>\x1b[31m ../../up/é"


@pytest.fixture
def ct(tmp_path):
    save(ct_slices(box_hu(SIZE)), tmp_path / "ct")
    return tmp_path / "ct"


@pytest.fixture
def mask(tmp_path):
    """Labels 2 and 5 on the CT, written as NIfTI."""
    voxels = np.zeros(SIZE[::-1], np.uint8)
    voxels[1:4, 2:6, 3:9] = 2
    voxels[2, 3:5, 4:6] = 0
    voxels[6, 8, 14] = 5
    volume = sitk.GetImageFromArray(voxels)
    volume.SetSpacing(SPACING)
    volume.SetOrigin((-20.0, 10.0, -100.0))
    write_volume(volume, tmp_path / "mask.nii.gz")
    return tmp_path / "mask.nii.gz"


@pytest.mark.parametrize("first", ENDINGS)
@pytest.mark.parametrize("second", ENDINGS)
def test_every_way_between_the_formats_keeps_every_voxel(ct, mask, tmp_path, first, second):
    a, b = tmp_path / f"a{ENDINGS[first]}", tmp_path / f"b{ENDINGS[second]}"
    one = convert(mask, a, first, ct)
    two = convert(a, b, second, ct)
    convert(b, tmp_path / "back.nii", reference=ct)
    before, after = read_mask(mask), read_mask(tmp_path / "back.nii")
    assert same_grid(before, after)
    renumbered = {0: 0, 2: 2, 5: 5} if (first, second) == ("nifti", "nifti") else {0: 0, 2: 1, 5: 2}
    assert np.array_equal(np.vectorize(renumbered.get)(array_of(before)), array_of(after))
    assert list(one.names.values()) == list(two.names.values()) == ["Lesion 2", "Lesion 5"]
    assert one.voxels == two.voxels == np.count_nonzero(array_of(before))
    assert max(one.centre_mm, two.centre_mm) < 0.001
    assert one.reader.startswith({"nifti": "nibabel", "dicom-seg": "highdicom"}.get(first, "the reader"))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_other_volume_files_come_with_their_names(ct, mask, tmp_path, ending):
    convert(mask, tmp_path / "lesion.seg.dcm", "dicom-seg", ct)
    done = convert(tmp_path / "lesion.seg.dcm", tmp_path / f"out{ending}", reference=ct)
    assert [path.name for path in done.files] == [f"out{ending}", "out.ctbl"]
    assert "1 Lesion_2 " in done.files[1].read_text()
    assert np.array_equal(array_of(sitk.ReadImage(str(done.files[0]))) > 0, array_of(read_mask(mask)) > 0)


def test_the_patient_comes_along_only_if_asked(ct, mask, tmp_path):
    for keep in (True, False):
        for kind in ("dicom-seg", "rtstruct"):
            convert(mask, tmp_path / "one.dcm", kind, ct, keep_patient=keep)
            item = dcmread(tmp_path / "one.dcm")
            assert (item.PatientID == "A 1", item.StudyDate != "") == (keep, keep)
            assert (b"Doe" in (tmp_path / "one.dcm").read_bytes()) == keep


def test_who_drew_is_said(ct, mask, tmp_path):
    for program, kind in (("", "MANUAL"), ("nnU-Net\x00\\", "AUTOMATIC")):
        convert(mask, tmp_path / "one.dcm", "dicom-seg", ct, made_by=program)
        segment = dcmread(tmp_path / "one.dcm").SegmentSequence[0]
        assert segment.SegmentAlgorithmType == kind
    assert segment.SegmentAlgorithmName == "nnU-Net"


def test_only_masks_of_lesions_are_called_neoplasm_unless_it_is_said(ct, mask, tmp_path):
    rois = tmp_path / "rois.dcm"
    save([rtstruct({"Carina": [square(2, (3, 2), (7, 5))]})], tmp_path, ["rois.dcm"])
    for source, code, called in (
        (mask, None, "Neoplasm"),
        (mask, "tissue", "Tissue"),
        (rois, None, "Tissue"),
        (rois, "neoplasm", "Neoplasm"),
    ):
        convert(source, tmp_path / "one.dcm", "dicom-seg", ct, code=code)
        segment = dcmread(tmp_path / "one.dcm").SegmentSequence[0]
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == called
        assert ("AnatomicRegionSequence" in segment) == (called == "Neoplasm")


def test_names_of_the_source_become_harmless(ct, tmp_path):
    rois = {HOSTILE: [square(2, (3, 2), (7, 5))], 90 * "n": [square(4, (3, 2), (7, 5))]}
    with disable_value_validation():
        item = rtstruct(rois)
        item.SpecificCharacterSet = "ISO_IR 192"
        save([item], tmp_path, ["rois.dcm"])
    done = convert(tmp_path / "rois.dcm", tmp_path / "one.dcm", "dicom-seg", ct)
    assert list(done.names.values()) == ["<b>GTV</b> [31m ../../up/é", 64 * "n"]
    assert [one.SegmentLabel for one in dcmread(tmp_path / "one.dcm").SegmentSequence] == list(
        done.names.values()
    )
    convert(tmp_path / "rois.dcm", tmp_path / "two.dcm", "rtstruct", ct)
    assert [roi.name for roi in read_rtstruct(tmp_path / "two.dcm")] == list(done.names.values())
    done = convert(tmp_path / "rois.dcm", tmp_path / "out.nii.gz", reference=ct, roi=".*GTV.*")
    assert done.files[1].read_text().splitlines()[-1].split()[1] == "b_GTV_b_31m_up"
    assert not (tmp_path.parent / "up").exists()


def test_what_cannot_be_meant_is_refused_and_nothing_is_written(ct, mask, tmp_path):
    seg = tmp_path / "lesion.seg.dcm"
    convert(mask, seg, "dicom-seg", ct)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    out, cases = tmp_path / "new" / "out.dcm", {
        ConfigError: [
            (dict(out=tmp_path / "new" / "out"), "does not say what to write"),
            (dict(out=tmp_path / "new" / "out.nii", to="rtstruct"), "end it in .dcm"),
            (dict(out=tmp_path / "new" / "out.nrrd", to="nifti"), "end it in .nii.gz or .nii"),
            (dict(to="rtstruct"), "give its DICOM folder with --reference"),
            (dict(to="rtstruct", reference=mask), "give its DICOM folder with --reference"),
            (dict(source=seg, out=seg, to="dicom-seg", reference=ct), "is the mask itself"),
        ],
        OutlineError: [
            (dict(source=tmp_path / "absent.dcm", to="rtstruct", reference=ct), "is not a file"),
            (dict(source=seg, out=tmp_path / "new" / "out.nii"), "give its CT with --reference"),
            (dict(source=seg, to="rtstruct", reference=ct, segment="Heart"), "Heart"),
        ],
        SeriesError: [
            (dict(to="rtstruct", reference=ct, series="1.2.3"), "1 CT series, 0 of them could be meant"),
            (dict(source=next(ct.iterdir()), to="rtstruct", reference=ct), "is no outline"),
        ],
    }  # fmt: skip
    for error, refused in cases.items():
        for how, said in refused:
            given = {"source": mask, "out": out, **how}
            with pytest.raises(error) as caught:
                convert(**given)
            assert said in str(caught.value) and "\n" not in str(caught.value), how
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before
    assert not (tmp_path / "new").exists()


def test_a_seg_of_another_scan_is_refused(ct, mask, tmp_path):
    save(ct_slices(box_hu(SIZE), patient="B 2"), tmp_path / "other")
    convert(mask, tmp_path / "lesion.seg.dcm", "dicom-seg", ct)
    with pytest.raises(OutlineError, match="frame of reference"):
        convert(tmp_path / "lesion.seg.dcm", tmp_path / "out.nii.gz", reference=tmp_path / "other")


def test_overlapping_structures_do_not_fit_one_mask(ct, tmp_path):
    rois = {"GTV": [square(2, (3, 2), (7, 5))], "PTV": [square(2, (2, 1), (8, 6))]}
    save([rtstruct(rois)], tmp_path, ["rois.dcm"])
    with pytest.raises(OutlineError, match="'GTV' and 'PTV' share 12 voxels"):
        convert(tmp_path / "rois.dcm", tmp_path / "out.nii.gz", reference=ct)
    assert convert(tmp_path / "rois.dcm", tmp_path / "out.nii.gz", reference=ct, roi="GTV").voxels == 12


@pytest.mark.parametrize("kind", ENDINGS)
def test_what_would_not_be_found_again_takes_no_place(ct, mask, tmp_path, kind, monkeypatch):
    out = tmp_path / f"out{ENDINGS[kind]}"
    out.write_bytes(b"an earlier result")
    which = "_read_volume" if kind == "nifti" else "_read_dicom"
    true = getattr(module, which)

    def shifted(*given):
        back, reader = true(*given)
        back.SetOrigin([v + 0.3 for v in back.GetOrigin()])
        return back, reader

    monkeypatch.setattr(module, which, shifted)
    with pytest.raises(OutputError, match="would not be found again"):
        convert(mask, out, kind, ct)
    assert out.read_bytes() == b"an earlier result"
