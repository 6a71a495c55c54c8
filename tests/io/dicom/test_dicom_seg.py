from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import ct_slices, save, seg, uid
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from radiogen.errors import OutlineError
from radiogen.io.dicom import seg as seg_stack
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.seg import read_seg, segment_mask
from radiogen.io.dicom.series import group_series, read_series
from radiogen.io.masks import mask_on_grid

STRICT = "SEG read by highdicom"


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    save(ct_slices(), folder)
    (series,) = group_series(find_dicom(folder).slices)
    return read_series(series).volume


def two_masks():
    lesion = np.zeros((5, 7, 11), dtype=bool)
    lesion[1:4, 2:5, 3:8] = True
    lesion[2, 3, 4] = False
    node = np.zeros_like(lesion)
    node[0, 1, 1:3] = node[4, 5, 9] = node[2, 3, 3] = True  # shares a voxel with the lesion
    return {"Heart": lesion, "Node": node}


def read_back(path, number, ct, positions=None):
    """The segment on the CT's voxels, and how it was read."""
    found = segment_mask(read_seg(path), number, ct, positions or {})
    mask, _ = mask_on_grid(found.mask, ct, path, is_dicom=True)
    return sitk.GetArrayFromImage(mask).astype(bool), found.decisions


def write(item, folder):
    (path,) = save([item], folder, ["seg.dcm"])
    return path


def bits_of(frames):
    bits = np.packbits(np.asarray(frames, dtype=np.uint8).ravel(), bitorder="little").tobytes()
    return bits + b"\0" * (len(bits) % 2)


def keep_frames(dataset, wanted):
    """Rewrite a binary SEG so that it holds these frames in this order."""
    frames = dataset.pixel_array
    dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[k] for k in wanted]
    dataset.NumberOfFrames = len(wanted)
    dataset.PixelData = bits_of(frames[list(wanted)])
    return dataset


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_what_highdicom_wrote_is_read_back_equal_by_both_readers(tmp_path, ct, kind):
    masks = two_masks()
    if kind == "LABELMAP":
        masks["Node"] &= ~masks["Heart"]  # a label map cannot overlap
    arrays = {name: mask.astype(np.float32 if kind == "FRACTIONAL" else bool) for name, mask in masks.items()}
    how = {"fractional_type": "PROBABILITY"} if kind == "FRACTIONAL" else {}
    path = write(seg(arrays, ct_slices(), kind=kind, **how), tmp_path)
    assert [segment.label for segment in read_seg(path).segments] == ["Heart", "Node"]
    early = dcmread(path)
    for group in early.PerFrameFunctionalGroupsSequence:
        del group.FrameContentSequence
    (tmp_path / "early").mkdir()
    early.save_as(tmp_path / "early" / "seg.dcm")
    for number, mask in enumerate(masks.values(), start=1):
        found, how_read = read_back(path, number, ct)
        assert np.array_equal(found, mask)
        assert how_read[0] == STRICT
        found, how_read = read_back(tmp_path / "early" / "seg.dcm", number, ct)
        assert np.array_equal(found, mask)
        assert how_read[0].startswith("SEG read by frame positions, highdicom refused it (AttributeError")


@pytest.mark.parametrize("early", [False, True])
def test_of_a_fractional_segment_half_of_the_maximum_counts_and_that_is_said(tmp_path, ct, early):
    shares = np.linspace(0, 1, 5 * 7 * 11).reshape(5, 7, 11)
    path = write(
        seg({"Tissue": shares}, ct_slices(), kind="FRACTIONAL", fractional_type="OCCUPANCY"), tmp_path
    )
    dataset = dcmread(path)
    if early:
        del dataset.SegmentSequence[0].SegmentAlgorithmType
        dataset.save_as(path)
    stored = dataset.pixel_array  # frames of the file, those without any voxel left out
    found, decisions = read_back(path, 1, ct)
    assert found.sum() == (stored >= dataset.MaximumFractionalValue / 2).sum()
    assert "SEG: a voxel counts if its occupancy is at least half of the maximum" in decisions


def test_empty_frames_between_may_be_left_out(tmp_path, ct):
    mask = np.zeros((5, 7, 11), dtype=bool)
    mask[0, 1:3, 1:4] = mask[4, 2:6, 5:9] = True
    path = write(seg({"Tissue": mask}, ct_slices(), omit_empty_frames=True), tmp_path)
    assert dcmread(path).NumberOfFrames == 2
    assert np.array_equal(read_back(path, 1, ct)[0], mask)


def test_empty_frames_may_be_there(tmp_path, ct):
    mask = two_masks()["Heart"]
    path = write(seg({"Tissue": mask}, ct_slices(), omit_empty_frames=False), tmp_path)
    assert dcmread(path).NumberOfFrames == 5
    assert np.array_equal(read_back(path, 1, ct)[0], mask)


@settings(max_examples=12)
@given(wanted=st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_frames_may_be_left_out_shuffled_and_doubled(tmp_path_factory, ct, wanted):
    mask = two_masks()["Heart"]
    path = write(seg({"Heart": mask}, ct_slices()), tmp_path_factory.mktemp("seg"))
    keep_frames(dcmread(path), wanted).save_as(path)
    expected = np.zeros_like(mask)
    places = [3 - k for k in wanted]  # highdicom writes the highest slice first
    expected[places] = mask[places]
    found, decisions = read_back(path, 1, ct)
    assert np.array_equal(found, expected)
    doubled = len(wanted) - len(set(wanted))
    said = [f"SEG: {doubled} doubled frames with equal pixels left out"] if doubled else []
    assert [line for line in decisions if "doubled" in line] == said


def test_doubled_frames_that_differ_are_refused(tmp_path, ct):
    path = write(seg({"Heart": two_masks()["Heart"]}, ct_slices()), tmp_path)
    dataset = keep_frames(dcmread(path), [0, 1, 1])
    frames = dataset.pixel_array.copy()
    frames[2] ^= 1
    dataset.PixelData = bits_of(frames)
    dataset.save_as(path)
    with pytest.raises(OutlineError, match=r"frames at z -95\.00 mm that differ"):
        read_back(path, 1, ct)


@pytest.mark.parametrize("turned", [[0], [1, 2], [0, 1, 2]])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_single_flipped_frames_are_turned_back(tmp_path, ct, turned, axis):
    mask = two_masks()["Heart"]
    path = write(seg({"Heart": mask}, ct_slices()), tmp_path)
    dataset = dcmread(path)
    frames = dataset.pixel_array.copy()
    shared = dataset.SharedFunctionalGroupsSequence[0]
    plane = shared.PlaneOrientationSequence[0]
    del shared.PlaneOrientationSequence
    for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        item = type(plane)()
        cosines = [1, 0, 0, 0, 1, 0]
        if k in turned:
            x, y, z = (float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient)
            place = [x, y + 6 * 1.25, z] if axis == "rows" else [x + 10 * 0.75, y, z]
            cosines = [1, 0, 0, 0, -1, 0] if axis == "rows" else [-1, 0, 0, 0, 1, 0]
            group.PlanePositionSequence[0].ImagePositionPatient = place
            frames[k] = frames[k][::-1] if axis == "rows" else frames[k][:, ::-1]
        item.ImageOrientationPatient = cosines
        group.PlaneOrientationSequence = [item]
    dataset.PixelData = bits_of(frames)
    dataset.save_as(path)
    assert np.array_equal(read_back(path, 1, ct)[0], mask)


def test_a_segment_on_flipped_slices_lies_where_they_say(tmp_path, ct):
    flipped = ct_slices()
    for item in flipped:
        x, y, z = (float(v) for v in item.ImagePositionPatient)
        item.ImagePositionPatient = [x, y + 6 * 1.25, z]
        item.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
    mask = two_masks()["Heart"]
    path = write(seg({"Tissue": mask[:, ::-1]}, flipped), tmp_path)
    found, decisions = read_back(path, 1, ct)
    assert np.array_equal(found, mask)
    assert decisions == (STRICT,)


@pytest.mark.parametrize("early", [False, True])
def test_a_segment_of_an_oblique_ct_is_read_back_equal(tmp_path, early):
    turn = np.array(sitk.VersorTransform((0.3, 0.5, 0.2), 0.4).GetMatrix()).reshape(3, 3)
    slices = ct_slices()
    for k, item in enumerate(slices):
        item.ImagePositionPatient = np.round(turn @ [-20.0, 10.0, -100 + 2.5 * k], 6).tolist()
        item.ImageOrientationPatient = np.round(turn[:, :2].T.ravel(), 9).tolist()
    save(slices, tmp_path / "ct")
    (series,) = group_series(find_dicom(tmp_path / "ct").slices)
    ct = read_series(series).volume
    mask = two_masks()["Heart"]
    path = write(seg({"Tissue": mask}, slices), tmp_path)
    if early:
        dataset = dcmread(path)
        del dataset.SegmentSequence[0].SegmentAlgorithmType
        dataset.save_as(path)
    assert np.array_equal(read_back(path, 1, ct)[0], mask)


@pytest.mark.parametrize("gone", ["frame content", "algorithm", "category"])
def test_a_file_that_highdicom_refuses_is_read_by_frame_positions(tmp_path, ct, gone):
    masks = {"Tissue": two_masks()["Heart"]}
    path = write(seg(masks, ct_slices()), tmp_path)
    dataset = dcmread(path)
    if gone == "frame content":
        for group in dataset.PerFrameFunctionalGroupsSequence:
            del group.FrameContentSequence
    elif gone == "algorithm":
        del dataset.SegmentSequence[0].SegmentAlgorithmType
    else:
        del dataset.SegmentSequence[0].SegmentedPropertyCategoryCodeSequence
    dataset.save_as(path)
    found, decisions = read_back(path, 1, ct)
    assert "highdicom refused it (AttributeError" in decisions[0]
    assert np.array_equal(found, masks["Tissue"])


def test_frames_without_a_position_take_that_of_their_source_image(tmp_path, ct):
    masks = {"Tissue": two_masks()["Heart"]}
    path = write(seg(masks, ct_slices()), tmp_path)
    dataset = dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID
    dataset.save_as(path)
    positions = {str(item.SOPInstanceUID): tuple(item.ImagePositionPatient) for item in ct_slices()}
    assert np.array_equal(read_back(path, 1, ct, positions)[0], masks["Tissue"])
    with pytest.raises(OutlineError, match="cannot be placed: frames say neither where they lie"):
        segment_mask(read_seg(path), 1, ct, {})


def test_the_planes_name_the_slices_they_were_drawn_on(tmp_path, ct):
    path = write(seg(two_masks(), ct_slices()), tmp_path)
    planes = segment_mask(read_seg(path), 1, ct, {}).planes
    assert [plane.point_mm[2] for plane in planes] == [-92.5, -95.0, -97.5]
    assert [plane.slice_uids for plane in planes] == [(uid("s", "A 1", k),) for k in (3, 2, 1)]


def test_a_segment_beside_the_ct_is_refused_with_the_distance(tmp_path, ct):
    moved = ct_slices(origin=(-20.0, 10.0, -60.0))
    path = write(seg({"Tissue": two_masks()["Heart"]}, moved), tmp_path)
    with pytest.raises(OutlineError, match=r"outside the CT by 36\.2 mm"):
        read_back(path, 1, ct)


def test_a_segment_that_is_not_there_or_empty_is_refused(tmp_path, ct):
    masks = two_masks() | {"Nothing": np.zeros((5, 7, 11), dtype=bool)}
    path = write(seg(masks, ct_slices(), omit_empty_frames=False), tmp_path)
    for number in (3, 4):
        with pytest.raises(OutlineError, match=f"segment {number} is empty"):
            segment_mask(read_seg(path), number, ct, {})


def test_a_damaged_file_is_one_line(tmp_path):
    path = Path(tmp_path / "seg.dcm")
    path.write_bytes(b"\0" * 128 + b"DICM" + b"nonsense")
    with pytest.raises(OutlineError, match=r"seg.dcm"):
        read_seg(path)


def _claim_frames(dataset):
    dataset.NumberOfFrames = 1_000_000


def _claim_pixels(dataset):
    dataset.Rows, dataset.Columns = 65535, 65535


def _number_twice(dataset):
    dataset.SegmentSequence[1].SegmentNumber = 1


def _shorten(dataset):
    dataset.PixelData = dataset.PixelData[:10]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (_claim_frames, "it claims 1000000 frames and places 6"),
        (_claim_pixels, "frames of 65535 x 65535 pixels"),
        (_number_twice, "gives two segments the same number"),
        (_shorten, "it claims 6 frames, its pixels are those of 1"),
    ],
)
def test_a_file_that_holds_other_than_it_claims_is_refused(tmp_path, change, wrong):
    path = write(seg(two_masks(), ct_slices()), tmp_path)
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)
    with pytest.raises(OutlineError, match=wrong):
        read_seg(path)


def _turn_one(groups):
    groups[0].PlanePositionSequence[0].ImagePositionPatient = [-20, 10, -91.2]


def _shift_one(groups):
    groups[0].PlanePositionSequence[0].ImagePositionPatient = [-19, 10, -92.5]


def _send_one_away(groups):
    groups[0].PlanePositionSequence[0].ImagePositionPatient = [-20, 10, 99000]
    groups[1].PlanePositionSequence[0].ImagePositionPatient = [-20, 10, -97.49]  # a grid of 0.01 mm


def _lose_one(groups):
    groups[0].PlanePositionSequence[0].ImagePositionPatient = [-20, 10, 1e300]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (_turn_one, "frames at uneven distances"),
        (_shift_one, "frames that are shifted against each other"),
        (_send_one_away, "frames 99098 mm apart that fill no volume"),
        (_lose_one, "coordinates that are no millimetres"),
    ],
)
def test_frames_that_form_no_grid_are_refused(tmp_path, ct, monkeypatch, change, wrong):
    monkeypatch.setattr(seg_stack, "MOST_VOXELS", 1_000_000)
    path = write(seg({"Heart": two_masks()["Heart"]}, ct_slices()), tmp_path)
    dataset = dcmread(path)
    change(dataset.PerFrameFunctionalGroupsSequence)
    dataset.save_as(path)
    with pytest.raises(OutlineError, match=wrong):
        read_back(path, 1, ct)


def compressed(path, syntax, frames):
    """The SEG with each frame encoded by a codec that writes the pixels of its rows as they are."""
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


def run_length(pixels):
    """One segment of DICOM's RLE: every byte a literal run of its own."""
    data = b"".join(bytes([0, value]) for value in pixels.astype(np.uint8).ravel().tolist())
    return (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + data + b"\0" * (len(data) % 2)


def test_a_compressed_label_map_is_read_back_equal(tmp_path, ct):
    mask = two_masks()["Heart"]
    path = write(seg({"Tissue": mask}, ct_slices(), kind="LABELMAP"), tmp_path)
    compressed(path, RLELossless, [run_length(frame) for frame in dcmread(path).pixel_array])
    found, decisions = read_back(path, 1, ct)
    assert np.array_equal(found, mask)
    assert decisions == (STRICT,)


def test_compressed_pixels_that_cannot_be_decoded_are_one_line(tmp_path):
    path = write(seg({"Tissue": two_masks()["Heart"]}, ct_slices(), kind="LABELMAP"), tmp_path)
    compressed(path, RLELossless, [b"\1\0\0\0" * 20 for _ in range(int(dcmread(path).NumberOfFrames))])
    with pytest.raises(OutlineError, match="its pixel data cannot be decoded"):
        read_seg(path)


def test_the_pixels_are_those_that_simpleitk_reads_frame_by_frame(tmp_path):
    slices = ct_slices(np.zeros((5, 6, 16), dtype=np.int16))  # whole bytes a frame: its reader counts on it
    mask = np.random.default_rng(0).random((5, 6, 16)) < 0.4
    path = write(seg({"Tissue": mask}, slices), tmp_path)
    frames = sitk.GetArrayFromImage(sitk.ReadImage(path)) > 0  # it knows no places: 1 mm, in the file's order
    ct = sitk.Image((16, 6, 5), sitk.sitkInt16)
    ct.SetOrigin((-20.0, 10.0, -100.0))
    ct.SetSpacing((0.75, 1.25, 2.5))
    found, _ = read_back(path, 1, ct)
    for frame, group in zip(frames, dcmread(path).PerFrameFunctionalGroupsSequence, strict=True):
        k = round((float(group.PlanePositionSequence[0].ImagePositionPatient[2]) + 100.0) / 2.5)
        assert np.array_equal(found[k], frame)
