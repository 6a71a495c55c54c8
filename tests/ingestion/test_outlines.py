import json

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import ORIGIN, SPACING, ct_slices, rtstruct, save, seg, square, uid
from lidc_phantom import grid, ring, roi, write_xml
from pydicom import dcmread

from radiogen.errors import OutlineError
from radiogen.ingestion.outline_choice import OutlineChoice
from radiogen.ingestion.outlines import read_lesions
from radiogen.io.contours import CtReference
from radiogen.io.nifti import write_volume
from radiogen.volume import array_of

CT_OF_PHANTOM = CtReference(
    frozenset({uid("frame", "A 1")}),
    {uid("s", "A 1", k): (*ORIGIN[:2], ORIGIN[2] + k * SPACING[2]) for k in range(5)},
)


def ct(size=(11, 7, 5)):
    volume = sitk.Image(size, sitk.sitkInt16)
    volume.SetSpacing(SPACING)
    volume.SetOrigin(ORIGIN)
    return volume


def voxels(lesions):
    labels = array_of(lesions.labels)
    return [int((labels == n).sum()) for n in range(1, labels.max() + 1)]


def write_rtstruct(folder, rois, change=None):
    item = rtstruct(rois)
    for one in item.StructureSetROISequence:
        one.ReferencedFrameOfReferenceUID = uid("frame", "A 1")
    if change is not None:
        change(item)
    (path,) = save([item], folder)
    return path


def write_seg(folder, masks, change=None):
    (path,) = save([seg(masks, ct_slices())], folder, ["seg.dcm"])
    if change is not None:
        dataset = dcmread(path)
        change(dataset)
        dataset.save_as(path)
    return path


def block(*boxes):
    mask = np.zeros((5, 7, 11), dtype=bool)
    for z0, y0, x0, z1, y1, x1 in boxes:
        mask[z0:z1, y0:y1, x0:x1] = True
    return mask


SMALL, LARGE = block((0, 0, 0, 2, 2, 2)), block((1, 3, 3, 4, 6, 9))


def test_lesions_of_a_roi_are_numbered_by_size_and_gaps_are_said(tmp_path):
    rois = {"GTV": [square(0, (1, 1), (3, 3)), square(1, (6, 1), (10, 5)), square(3, (6, 1), (10, 5))]}
    lesions = read_lesions(write_rtstruct(tmp_path, rois), "rtstruct", ct(), OutlineChoice())
    assert voxels(lesions) == [16, 16, 4]
    gap = "RTSTRUCT: GTV: 1 slices between the contours have none and stay empty (z -95.0 mm)"
    assert gap in lesions.decisions
    assert "RTSTRUCT: GTV: 0.084 ml in voxels, 0.084 ml in polygons" in lesions.decisions


def test_rois_of_a_pattern_are_lesions_of_their_own_unless_they_overlap(tmp_path):
    inner = {"GTV-a": [square(2, (1, 1), (8, 6))], "GTV-b": [square(2, (3, 2), (5, 4))]}
    path = write_rtstruct(tmp_path / "1", inner)
    joined = read_lesions(path, "rtstruct", ct(), OutlineChoice(roi="GTV.*"))
    assert (voxels(joined), joined.details) == ([35], {"names": ["GTV-a + GTV-b"]})
    beside = {"GTV-a": [square(2, (1, 1), (3, 6))], "GTV-b": [square(2, (3, 1), (8, 6))], "Lung": []}
    path = write_rtstruct(tmp_path / "2", beside)
    apart = read_lesions(path, "rtstruct", ct(), OutlineChoice(roi="GTV.*"))
    assert (voxels(apart), apart.details) == ([25, 10], {"names": ["GTV-b", "GTV-a"]})


def test_a_structure_that_encloses_no_voxel_centre_is_refused(tmp_path):
    corner = np.array(square(2, (3, 3), (4, 4)))
    tiny = (corner.mean(axis=0) + 0.4 * (corner - corner[0]) / 2 + 0.1 * (corner[2] - corner[0])).tolist()
    path = write_rtstruct(tmp_path, {"GTV": [tiny]})
    with pytest.raises(OutlineError, match="GTV encloses no voxel centre of the CT"):
        read_lesions(path, "rtstruct", ct(), OutlineChoice())


def test_a_structure_of_another_frame_of_reference_is_refused(tmp_path):
    def other_frame(item):
        item.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3.4"

    path = write_rtstruct(tmp_path, {"GTV": [square(2, (1, 1), (8, 6))]}, other_frame)
    with pytest.raises(OutlineError, match="another frame of reference than the CT and does not name"):
        read_lesions(path, "rtstruct", ct(), OutlineChoice(), CT_OF_PHANTOM)


def test_segments_are_chosen_by_name_number_or_size(tmp_path):
    path = write_seg(tmp_path, {"Heart": SMALL, "Node": LARGE})
    for asked, expected, why in (
        ("heart", [8], "SEG: segment 1 'Heart' taken, as asked"),
        ("2", [54], "SEG: segment 2 'Node' taken, as asked"),
        ("largest", [54], "SEG: segment 2 'Node' taken, the largest of 2"),
        ("Heart|Node", [54, 8], "SEG: segment 1 'Heart', 2 'Node' taken, as asked"),
    ):
        lesions = read_lesions(path, "seg", ct(), OutlineChoice(segment=asked), CT_OF_PHANTOM)
        assert voxels(lesions) == expected
        assert lesions.decisions[:2] == (why, "SEG read by highdicom")
    with pytest.raises(OutlineError, match="not clear from 1 'Heart', 2 'Node'"):
        read_lesions(path, "seg", ct(), OutlineChoice(), CT_OF_PHANTOM)


def test_overlapping_segments_are_one_lesion(tmp_path):
    path = write_seg(tmp_path, {"a": LARGE, "b": block((1, 5, 8, 4, 7, 11))})
    lesions = read_lesions(path, "seg", ct(), OutlineChoice(segment="a|b"), CT_OF_PHANTOM)
    assert voxels(lesions) == [54 + 18 - 3]
    assert "a and b share 0.007 ml and are one lesion" in lesions.decisions


def test_the_largest_leaves_out_what_is_empty_and_says_so(tmp_path):
    def without_second(dataset):
        groups = dataset.PerFrameFunctionalGroupsSequence
        for group in groups:
            group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1
        del groups[2:]
        dataset.NumberOfFrames = len(groups)

    path = write_seg(tmp_path, {"Heart": SMALL, "Node": LARGE}, without_second)
    lesions = read_lesions(path, "seg", ct(), OutlineChoice(segment="largest"), CT_OF_PHANTOM)
    assert lesions.decisions[0].endswith("taken, the largest of 2, 1 empty ones left out")


def test_the_largest_is_not_chosen_among_those_that_happen_to_be_readable(tmp_path):
    def shift_one(dataset):
        second = [
            group
            for group in dataset.PerFrameFunctionalGroupsSequence
            if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 2
        ]
        second[0].PlanePositionSequence[0].ImagePositionPatient = [-20, 10, -91.2]

    path = write_seg(tmp_path, {"Heart": SMALL, "Node": LARGE}, shift_one)
    with pytest.raises(OutlineError, match="frames at uneven distances"):
        read_lesions(path, "seg", ct(), OutlineChoice(segment="largest"), CT_OF_PHANTOM)


def test_a_seg_of_another_frame_of_reference_is_taken_only_on_the_slices_it_names(tmp_path):
    def other_frame(dataset):
        dataset.FrameOfReferenceUID = "1.2.3.4"

    path = write_seg(tmp_path, {"Heart": LARGE}, other_frame)
    lesions = read_lesions(path, "seg", ct(), OutlineChoice(), CT_OF_PHANTOM)
    assert any("each plane lies on the CT slice it names" in line for line in lesions.decisions)
    elsewhere = CtReference(CT_OF_PHANTOM.frame_uids, {"1.9": ORIGIN})
    with pytest.raises(OutlineError, match="another frame of reference"):
        read_lesions(path, "seg", ct(), OutlineChoice(), elsewhere)


def test_a_seg_on_a_finer_grid_is_resampled_and_both_volumes_are_said(tmp_path):
    fine = ct_slices(np.zeros((10, 14, 22), dtype=np.int16), spacing=(0.375, 0.625, 1.25))
    mask = np.kron(LARGE, np.ones((2, 2, 2), dtype=bool)).astype(bool)
    mask[:, :, -6:] = True
    shifted = [0.375 / 2 - 0.75 / 2, 0.625 / 2 - 1.25 / 2, 1.25 / 2 - 2.5 / 2]
    for item in fine:
        item.ImagePositionPatient = [v + s for v, s in zip(item.ImagePositionPatient, shifted, strict=True)]
    (path,) = save([seg({"Heart": mask}, fine)], tmp_path, ["seg.dcm"])
    lesions = read_lesions(path, "seg", ct(), OutlineChoice())
    expected = LARGE.copy()
    expected[:, :, -3:] = True
    assert np.array_equal(array_of(lesions.labels) > 0, expected)
    assert any("own grid of (22, 14, 10) voxels was placed on the CT" in line for line in lesions.decisions)


def test_the_labels_of_a_mask_file_stay_lesions_of_their_own(tmp_path):
    mask = sitk.Image((11, 7, 5), sitk.sitkUInt8)
    mask.CopyInformation(ct())
    mask[1:3, 1:5, 1:4] = 2
    mask[3:8, 1:5, 1:4] = 7
    path = tmp_path / "mask.nii.gz"
    write_volume(mask, path)
    assert voxels(read_lesions(path, "mask", ct(), OutlineChoice())) == [60, 24]
    assert voxels(read_lesions(path, "mask", ct(), OutlineChoice(segment="2"))) == [24]
    assert voxels(read_lesions(path, "mask", ct(), OutlineChoice(segment="largest"))) == [60]
    for asked in ("3", "Tumor"):
        with pytest.raises(OutlineError, match=f"has no label '{asked}', there are 2, 7"):
            read_lesions(path, "mask", ct(), OutlineChoice(segment=asked))


def test_lidc_readings_and_small_nodules_come_as_plain_values(tmp_path):
    block, point = [roi(1, ring(3, 3, 5, 5))], [roi(2, [(3, 4)])]
    path = write_xml(tmp_path / "a.xml", [[(5, block), (None, point)], [(4, block)], [], []])
    lesions = read_lesions(path, "lidc-xml", grid(), OutlineChoice())
    assert voxels(lesions) == [9]
    details = json.loads(json.dumps(lesions.details))
    first = {
        "reader": 1,
        "nodule": "0-0",
        "volume_ml": 0.011,
        "subtlety": 5,
        "calcification": 6,
        "malignancy": 5,
    }
    assert details["readings"] == [[first, {**first, "reader": 2, "nodule": "1-0", "malignancy": 4}]]
    assert details["small_nodules"] == [
        {"reader": 1, "nodule": "0-1", "position_mm": pytest.approx([5.1, 6.8, -95.0])}
    ]


def test_pixels_counted_by_lidc_are_not_laid_on_a_volume_file(tmp_path):
    path = write_xml(tmp_path / "a.xml", [[(5, [roi(1, ring(3, 3, 5, 5))])]])
    with pytest.raises(OutlineError, match="this CT is a volume file"):
        read_lesions(path, "lidc-xml", grid(), OutlineChoice(), CtReference())


def test_what_is_known_to_be_wrong_is_said_with_the_result_and_with_the_refusal(tmp_path):
    path = write_seg(tmp_path, {"Heart": LARGE})
    known = OutlineChoice(known="lies outside the CT")
    said = read_lesions(path, "seg", ct(), known, CT_OF_PHANTOM).decisions
    assert said[-1] == "known of this patient: lies outside the CT"
    moved = ct()
    moved.SetOrigin((500.0, 0.0, 0.0))
    with pytest.raises(OutlineError, match=r"outside the CT by .* mm; known of this patient: lies outside"):
        read_lesions(path, "seg", moved, known, CT_OF_PHANTOM)
