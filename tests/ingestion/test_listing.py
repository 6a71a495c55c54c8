"""What a source holds is shown before anything is read: which series would be taken, and why."""

import pytest
from dicom_phantom import box_hu, ct_slices, files_in, rtstruct, save, square, write_ct

from radiogen.errors import SeriesError
from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.listing import list_sources
from radiogen.ingestion.options import IngestOptions
from radiogen.io.cases import find_cases
from radiogen.volume import array_of


def marked(folder, series, hu=None, kernel="B40", contrast="", thickness=2.5):
    slices = ct_slices(hu, series=series)
    for item in slices:
        item.ConvolutionKernel, item.ContrastBolusAgent, item.SliceThickness = kernel, contrast, thickness
    save(slices, folder / series)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "src"
    marked(folder, "soft", box_hu((11, 7, 6)), "B30f", thickness=5)
    marked(folder, "lung", box_hu((11, 7, 8)), "B70s", thickness=1)
    marked(folder, "contrast", box_hu((11, 7, 7)), "B30f", contrast="IODINE")
    marked(folder, "few", box_hu((11, 7, 3)), "B50", thickness=0.5)
    return folder


def taken(source, **options):
    listing = list_sources(source, IngestOptions(**options))
    (one,) = [candidate for candidate in listing.candidates if candidate.taken]
    return one


@pytest.mark.parametrize(
    ("options", "slices"),
    [
        ({}, 8),
        ({"series_rule": "most-slices"}, 8),
        ({"series_rule": "thickest"}, 6),
        ({"series_rule": "thinnest"}, 8),  # the three slices of half a millimetre cover too little
        ({"kernel": "b30"}, 7),
        ({"kernel": "B50"}, 3),
        ({"contrast": "yes"}, 7),
        ({"contrast": "no", "kernel": "B30"}, 6),
    ],
)
def test_rule_kernel_and_contrast_choose_the_series_that_ingest_then_reads(source, tmp_path, options, slices):
    one = taken(source, **options)
    assert one.slices == slices and one.spacing_mm == (0.75, 1.25, 2.5)
    ingest(source, tmp_path / "cases", IngestOptions(**options))
    (case,) = find_cases(tmp_path / "cases")
    assert case.case_id == one.case_id and array_of(case.ct()).shape[0] == slices


def test_each_series_that_is_not_taken_says_why(source):
    listing = list_sources(source, IngestOptions())
    assert [(one.slices, one.taken, one.why) for one in listing.candidates] == [
        (
            8,
            True,
            "of 4 CT series the one with 8 files taken, it has the most axial slices; no outline was found",
        ),
        (7, False, "it has fewer slices"),
        (6, False, "it has fewer slices"),
        (3, False, "it has fewer slices"),
    ]
    listing = list_sources(source, IngestOptions(series_rule="thinnest", contrast="no"))
    assert {one.slices: one.why for one in listing.candidates if not one.taken} == {
        7: "it is not as asked for",
        6: "its slices are thicker",
        3: "it covers less than half of the longest",
    }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kernel": "X"}, r"no kernel matches 'X', there are B30f, B50, B70s"),
        ({"kernel": "B70", "contrast": "yes"}, "holds no CT with contrast medium"),
    ],
)
def test_a_wish_that_no_series_fulfils_is_refused_with_what_there_is(source, tmp_path, options, says):
    with pytest.raises(SeriesError, match=says):
        ingest(source, tmp_path / "cases", IngestOptions(**options))
    assert not any(one.taken for one in list_sources(source, IngestOptions(**options)).candidates)


def test_an_outline_decides_unless_a_rule_was_given(source, tmp_path):
    outline = rtstruct({"GTV": [square(2, (3, 2), (7, 5))]}, series="soft")
    save([outline], source / "rt", ["1.dcm"])
    one = taken(source)
    assert one.slices == 6 and one.outline == "rtstruct" and "the outline refers to it" in one.why
    one = taken(source, series_rule="most-slices")
    assert one.slices == 8 and "another series of the same frame of reference" in one.why


def test_an_outline_that_belongs_to_no_ct_of_the_source_is_counted(source):
    save([rtstruct({"GTV": [square(2, (3, 2), (7, 5))]}, patient="B")], source / "rt", ["1.dcm"])
    listing = list_sources(source, IngestOptions())
    assert listing.ignored == {"outline of a CT that is not here": 1}


def test_a_series_that_would_be_refused_is_shown_with_the_reason(source):
    (source / "lung" / "007.ima").unlink()
    one, *_ = list_sources(source, IngestOptions(kernel="B70")).candidates
    assert not one.taken and "missing between" in one.why and "--gaps resample" in one.why
    assert taken(source, kernel="B70", gaps="resample").slices == 7


def test_one_of_several_volumes_is_taken_by_its_number_and_the_choice_is_said(tmp_path):
    slices = []
    for n in (1, 2):
        for item in ct_slices(box_hu() + n):
            item.AcquisitionNumber = n
            slices.append(item)
    save(slices, tmp_path / "src", [f"{n}" for n in range(10)])
    one = taken(tmp_path / "src")
    assert (
        one.series.endswith("#1")
        and "volume 1 of its SeriesInstanceUID, told apart by acquisition 1" in one.why
    )
    other = taken(tmp_path / "src", series=one.series.replace("#1", "#2"))
    assert other.series.endswith("#2") and other.case_id != one.case_id
    ingest(tmp_path / "src", tmp_path / "cases", IngestOptions(series=other.series))
    assert int(array_of(find_cases(tmp_path / "cases")[0].ct()).max()) == 42


def test_volumes_of_one_uid_go_with_the_images_that_the_outline_names(tmp_path):
    from dicom_phantom import uid
    from pydicom import Dataset

    slices = []
    for n in (1, 2):
        for item in ct_slices(box_hu() + n):
            item.AcquisitionNumber = n
            item.SOPInstanceUID = item.file_meta.MediaStorageSOPInstanceUID = uid(item.SOPInstanceUID, n)
            slices.append(item)
    save(slices, tmp_path / "src", [f"{n}" for n in range(10)])
    outline = rtstruct({"GTV": [square(2, (3, 2), (7, 5))]})
    images = [Dataset() for _ in range(5)]
    for image, item in zip(images, slices[5:], strict=True):
        image.ReferencedSOPInstanceUID = item.SOPInstanceUID
    study = outline.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    study.RTReferencedSeriesSequence[0].ContourImageSequence = images
    save([outline], tmp_path / "src" / "rt", ["1.dcm"])
    assert taken(tmp_path / "src").series.endswith("#2")


def test_patients_in_one_flat_folder_are_cases_of_their_own(tmp_path):
    for n, name in enumerate("AB"):
        save(ct_slices(patient=name), tmp_path / "src", [f"{n}{k}" for k in range(5)])
    assert len({one.case_id for one in list_sources(tmp_path / "src", IngestOptions()).candidates}) == 2
    ingest(tmp_path / "src", tmp_path / "cases")
    assert len(find_cases(tmp_path / "cases")) == 2


def test_looking_writes_nothing(source, tmp_path):
    before = files_in(tmp_path)
    list_sources(source, IngestOptions(), tmp_path / "cases")
    assert files_in(tmp_path) == before


def test_volume_files_are_listed_too(tmp_path, source):
    from radiogen.io.nifti import write_volume

    write_ct(tmp_path / "ct")
    ingest(tmp_path / "ct", tmp_path / "cases")
    write_volume(find_cases(tmp_path / "cases")[0].ct(), tmp_path / "files" / "a_image.nii.gz")
    (one,) = list_sources(tmp_path / "files", IngestOptions()).candidates
    assert one.taken and one.series == "a_image.nii.gz" and one.slices is None
    write_volume(find_cases(tmp_path / "cases")[0].ct(), source / "b.nii.gz")
    assert list_sources(source, IngestOptions()).ignored["volume file beside DICOM"] == 1
