import pytest
from dicom_phantom import ct_slices, file_of, rtstruct, save, square, uid, write_ct

from radiogen.errors import SeriesError
from radiogen.io.dicom.file_kind import read_outline_file
from radiogen.io.dicom.files import find_dicom


def other(sop_class, modality):
    item = file_of(sop_class, uid(sop_class))
    item.Modality = modality
    return item


def test_slices_are_found_at_any_depth_whatever_they_are_called(tmp_path):
    save(ct_slices()[:2], tmp_path / "a b" / "c.d", ["IM1", "IM2.txt"])
    save(ct_slices()[2:], tmp_path, ["x.jpg", "y.nii.gz", "z"])
    assert len(find_dicom(tmp_path).slices) == 5


def test_other_objects_are_told_apart_and_counted(tmp_path):
    write_ct(tmp_path / "ct")
    localizer = ct_slices(series="scout")[0]
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    energy = ct_slices(series="energy")[0]
    energy.RescaleType = "Z_EFF"
    capture = other("1.2.840.10008.5.1.4.1.1.7", "CT")
    dose = other("1.2.840.10008.5.1.4.1.1.88.67", "SR")
    pet = other("1.2.840.10008.5.1.4.1.1.128", "PT")
    save([localizer, energy, capture, dose, pet], tmp_path / "more")
    (tmp_path / "notes.txt").write_text("read me")
    tree = find_dicom(tmp_path)
    assert len(tree.slices) == 5
    assert dict(tree.ignored) == {
        "localizer": 1,
        "CT that is not in HU": 1,
        "secondary capture": 1,
        "dose report": 1,
        "PET": 1,
        "not DICOM": 1,
    }


def test_hidden_files_and_the_folder_of_results_are_not_looked_into(tmp_path):
    write_ct(tmp_path / "ct")
    write_ct(tmp_path / "cases", series="other")
    (tmp_path / "ct" / "._000.ima").write_bytes((tmp_path / "ct" / "000.ima").read_bytes())
    assert len(find_dicom(tmp_path, leave_out=(tmp_path / "cases").resolve()).slices) == 5


def test_an_rtstruct_says_which_series_and_frame_it_belongs_to(tmp_path):
    (path,) = save([rtstruct({"GTV": [square(1, (2, 2), (4, 4))]})], tmp_path)
    outline = read_outline_file(path)
    assert outline.kind == "rtstruct"
    assert outline.series_uids == {uid("s", "A 1")}
    assert outline.frame_uids == {uid("frame", "A 1")}


def test_a_header_that_ends_early_is_damaged(tmp_path):
    paths = write_ct(tmp_path)
    paths[0].write_bytes(paths[0].read_bytes()[:500])
    assert list(find_dicom(tmp_path).damaged) == [paths[0]]


def test_an_empty_file_that_calls_itself_dicom_is_damaged(tmp_path):
    (tmp_path / "1.dcm").touch()
    assert find_dicom(tmp_path).damaged == {tmp_path / "1.dcm": "is empty"}


def test_a_ct_slice_is_no_outline(tmp_path):
    paths = write_ct(tmp_path)
    with pytest.raises(SeriesError, match="is no outline"):
        read_outline_file(paths[0])
