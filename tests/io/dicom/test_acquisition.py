import json
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread
from pydicom.datadict import keyword_dict

from radiogen.io.dicom.acquisition import ACQUISITION_KEYS, describe_acquisition


def header(**elements):
    made = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that the standard forbids
        for key, value in elements.items():
            setattr(made, key, value)
    return made


def test_scanner_reconstruction_and_dose_are_told():
    about = describe_acquisition(
        header(
            Manufacturer="SIEMENS", ManufacturerModelName="Sensation 64", ConvolutionKernel=["B60f", "2"],
            SliceThickness="1.5", PixelSpacing=["0.8", "0.7"], KVP="120", Exposure="200",
            XRayTubeCurrent="300", PixelPaddingValue=-2000, BodyPartExamined="CHEST", PatientPosition="HFS",
        )
    )  # fmt: skip
    assert about["vendor"] == "SIEMENS" and about["model"] == "Sensation 64" and about["kernel"] == "B60f 2"
    assert about["slice_thickness_mm"] == 1.5 and about["pixel_spacing_mm"] == [0.7, 0.8]
    assert (about["kvp"], about["exposure_mas"], about["tube_current_ma"]) == (120, 200, 300)
    assert about["pixel_padding"] == -2000 and about["contrast"] is None and about["gated"] is False


def test_an_empty_header_tells_nothing():
    about = describe_acquisition(Dataset())
    assert not any(about.values()) and set(ACQUISITION_KEYS) <= set(keyword_dict)


@pytest.mark.parametrize(
    ("agent", "given_"),
    [
        ("OMNIPAQUE 350", True),
        ("IV", True),
        ("none", False),
        ("NO CONTRAST", False),
        ("W/O", False),
        ("", None),
    ],
)
def test_contrast_is_told_and_its_agent_is_not(agent, given_):
    about = describe_acquisition(header(ContrastBolusAgent=agent))
    assert about["contrast"] is given_ and (not agent or agent not in json.dumps(about))


def test_of_a_date_the_year_is_told_and_the_rest_only_when_asked():
    dated = header(StudyDate="19991126", AcquisitionDate="19991127")
    assert describe_acquisition(dated)["year"] == "1999" and "1127" not in json.dumps(
        describe_acquisition(dated)
    ).replace("-", "")
    assert describe_acquisition(dated, keep_dates=True)["acquisition_date"] == "1999-11-27"
    assert describe_acquisition(header(AcquisitionDateTime="20200229101530.5"))["year"] == "2020"
    assert describe_acquisition(header(StudyDate="00000000"))["year"] == ""


@pytest.mark.parametrize(
    ("description", "gated", "percent"),
    [
        ("P4^P113^S303^I10349, Gated, 40.0%B", True, 40.0),
        ("4D RESP 0%", True, 0.0),
        ("Lung 5.0 B60f", False, None),
        ("gated", True, None),
        ("ASiR 30% chest", False, None),
    ],
)
def test_a_phase_is_taken_from_a_description_and_its_words_are_not(description, gated, percent):
    about = describe_acquisition(header(SeriesDescription=description))
    assert (about["gated"], about["phase_percent"]) == (gated, percent)
    assert "P113" not in json.dumps(about) and "description" not in about


def test_an_enhanced_header_is_read_through_its_functional_groups():
    group = header(
        CTReconstructionSequence=Sequence([header(ConvolutionKernel="STANDARD")]),
        CTExposureSequence=Sequence([header(ExposureInmAs=88.0)]),
        CTXRayDetailsSequence=Sequence([header(KVP="100")]),
    )
    about = describe_acquisition(header(SharedFunctionalGroupsSequence=Sequence([group])))
    assert (about["kernel"], about["exposure_mas"], about["kvp"]) == ("STANDARD", 88.0, 100.0)


PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "AccessionNumber", "StudyID")
PEOPLE = ("ReferringPhysicianName", "OperatorsName", "InstitutionName", "StationName", "DeviceSerialNumber")
FREE = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "ImageComments",
    "RequestedProcedureDescription",
)


@given(word=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=8, max_size=12))
def test_nothing_of_who_the_patient_is_or_where_is_told(word):
    told = json.dumps(
        describe_acquisition(header(**dict.fromkeys(PATIENT + PEOPLE + FREE, word)), keep_dates=True)
    )
    assert word not in told


def test_long_or_unprintable_text_is_no_name_of_a_thing():
    assert describe_acquisition(header(ManufacturerModelName="see letter of " + "x" * 80))["model"] == ""


@pytest.mark.fuzz
@given(
    content=st.lists(
        st.tuples(
            st.sampled_from([key for key in ACQUISITION_KEYS if "Sequence" not in key]),
            st.binary(max_size=20),
        )
    )
)
def test_damaged_elements_are_empty(content):
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    made = Dataset()
    for key, value in content:
        tag = Tag(key)
        made[tag] = RawDataElement(tag, None, len(value), value, 0, True, True)
    json.dumps(describe_acquisition(made))


def test_real_scans_are_described(shared_data):
    about = {}
    for name, pattern in (("4d", "lung_4d_113/**/1-58.dcm"), ("lidc", "lidc_idri_partial/**/-186.5*.dcm")):
        path = next(shared_data.glob(pattern))
        slice_header = dcmread(path, stop_before_pixels=True, specific_tags=list(ACQUISITION_KEYS))
        about[name] = describe_acquisition(slice_header)
    assert about["4d"]["phase_percent"] == 40.0 and about["4d"]["year"] == "1999"
    assert about["lidc"]["contrast"] is True and about["lidc"]["exposure_mas"] == 32
    assert about["lidc"]["kernel"] == "STANDARD" and about["lidc"]["pixel_padding"] == -2000
