import pytest
import SimpleITK as sitk
from dicom_phantom import ORIGIN, SPACING, rtstruct, save, square

from radiogen.config import check_settings
from radiogen.errors import ConfigError, OutlineError
from radiogen.io.nifti import write_volume
from radiogen.preprocess.outlines import OutlineChoice, choose_named, read_lesions
from radiogen.resources import OutlineRule
from radiogen.volume import array_of


def ct(size=(11, 7, 5)):
    volume = sitk.Image(size, sitk.sitkInt16)
    volume.SetSpacing(SPACING)
    volume.SetOrigin(ORIGIN)
    return volume


def choose(names, asked=None, rule=None):
    return [names[i] for i in choose_named(names, asked, rule, "plan.dcm: ROI", "--roi PATTERN")[0]]


@pytest.mark.parametrize(
    ("names", "asked", "rule", "taken"),
    [
        (["Lung", "GTV-1", "GTV-12"], "gtv-1", None, ["GTV-1"]),
        (["Lung", "GTV-1", "GTV-2"], "GTV.*", None, ["GTV-1", "GTV-2"]),
        (["Lung", "Heart"], None, "Heart|Tissue", ["Heart"]),
        (["Carina", "LN_c40", "Tumor_c40"], None, None, ["Tumor_c40"]),
        (["Spinal cord", "Primary tumour", "GTV LN", "lymph node lesion"], None, "GTV-1", ["Primary tumour"]),
        (["Heart"], None, "GTV-1", ["Heart"]),
        (["Neoplasm, Primary", "Lungs"], None, None, ["Neoplasm, Primary"]),
    ],
)
def test_the_tumour_is_chosen_as_asked_by_rule_or_by_its_name(names, asked, rule, taken):
    assert choose(names, asked, rule) == taken


def test_a_pattern_without_a_match_names_the_rois():
    with pytest.raises(OutlineError, match="none matches 'GTV', there are 'GTV-1', 'Lung'"):
        choose(["GTV-1", "Lung"], asked="GTV")


def test_it_is_not_guessed_which_of_several_is_the_tumour():
    with pytest.raises(OutlineError, match=r"not clear from 'Heart', 'Tissue' \(choose with --roi PATTERN\)"):
        choose(["Heart", "Tissue"])


def test_a_broken_pattern_is_one_line():
    with pytest.raises(ConfigError):
        choose(["Heart", "Tissue"], asked="GTV(")
    with pytest.raises(ConfigError):
        check_settings(OutlineRule, {"roi": "GTV("}, what="card")


def test_lesions_are_numbered_by_size_and_gaps_are_said(tmp_path):
    rois = {"GTV": [square(0, (1, 1), (3, 3)), square(1, (6, 1), (10, 5)), square(3, (6, 1), (10, 5))]}
    (path,) = save([rtstruct(rois)], tmp_path)
    lesions = read_lesions(path, "rtstruct", ct(), OutlineChoice())
    labels = array_of(lesions.labels)
    assert [int((labels == n).sum()) for n in (1, 2, 3)] == [16, 16, 4]
    assert "RTSTRUCT: 1 slices between the contours have none and stay empty" in lesions.decisions


def test_a_roi_within_another_is_added_not_cut_out(tmp_path):
    rois = {"GTV-a": [square(2, (1, 1), (8, 6))], "GTV-b": [square(2, (3, 2), (5, 4))]}
    (path,) = save([rtstruct(rois)], tmp_path)
    labels = array_of(read_lesions(path, "rtstruct", ct(), OutlineChoice(roi="GTV.*")).labels)
    assert (labels > 0).sum() == 7 * 5


def test_the_labels_of_a_mask_file_stay_lesions_of_their_own(tmp_path):
    mask = sitk.Image((11, 7, 5), sitk.sitkUInt8)
    mask.CopyInformation(ct())
    mask[1:3, 1:5, 1:4] = 2
    mask[3:8, 1:5, 1:4] = 7
    write_volume(mask, tmp_path / "mask.nii.gz")
    lesions = read_lesions(tmp_path / "mask.nii.gz", "mask", ct(), OutlineChoice())
    labels = array_of(lesions.labels)
    assert [int((labels == n).sum()) for n in (1, 2, 3)] == [60, 24, 0]
    one = read_lesions(tmp_path / "mask.nii.gz", "mask", ct(), OutlineChoice(segment="2"))
    assert int((array_of(one.labels) == 1).sum()) == 24
