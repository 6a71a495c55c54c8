"""Lesions written as DICOM SEG, RTSTRUCT and SR come back as the same voxels, whoever reads them."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import box_hu, ct_slices, save
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as MplPath
from pydicom import dcmread
from pydicom.config import disable_value_validation

from radiogen.errors import SeriesError
from radiogen.io.contours import CtReference, check_frame, fill_contours
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.referenced_ct import read_scan
from radiogen.io.dicom.rtstruct import contours_of, read_rtstruct
from radiogen.io.dicom.seg import read_seg, segment_mask
from radiogen.io.dicom.series import group_series, read_series
from radiogen.io.dicom.write_object import OutlineAuthor, Outlines, write_dicom
from radiogen.io.dicom.write_rtstruct import make_rtstruct
from radiogen.io.dicom.write_seg import make_seg, make_sr
from radiogen.io.masks import mask_on_grid
from radiogen.io.polygons import fill_polygons, trace
from radiogen.measures.lesions import measure_lesions
from radiogen.volume import array_of, volume_like

TURN = np.linalg.qr(np.array([[3.0, 1.0, 0.2], [-1.0, 3.0, 0.5], [0.1, -0.6, 3.0]]))[0]
PLACES = {
    "axial": (np.eye(3), (0.75, 1.25, 2.5)),
    "flipped": (np.diag([-1.0, -1.0, 1.0]), (0.75, 1.25, 2.5)),
    "feet first": (np.diag([1.0, -1.0, -1.0]), (0.75, 1.25, 2.5)),
    "oblique": (TURN * np.sign(np.linalg.det(TURN)), (0.7, 0.7, 1.0)),
    "sagittal": (np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), (0.9, 0.6, 3.0)),
}
SIZE = (16, 8, 6)
SIZES = {"whole bytes": SIZE, "uneven": (17, 9, 7)}  # frames of single bits that begin within a byte
HOSTILE = "<script>alert(1)</script>^../../etc/passwd\x1b[31m" + 90 * "x"


def placed_ct(folder, name, patient="A 1", size=SIZE):
    """A CT lying as asked: its volume and its scan."""
    direction, spacing = PLACES[name]
    slices = ct_slices(box_hu(size), patient=patient)
    for k, item in enumerate(slices):
        position = np.array([-20.0, 10.0, -100.0]) + direction @ [0, 0, k * spacing[2]]
        item.ImagePositionPatient = [f"{v:.9f}" for v in position]
        item.ImageOrientationPatient = [f"{v:.12f}" for v in direction[:, :2].T.ravel()]
        item.PixelSpacing, item.SliceThickness = [spacing[1], spacing[0]], spacing[2]
    save(slices, folder)
    (series,) = group_series(find_dicom(folder).slices)
    return read_series(series).volume, read_scan(series)


def difficult_mask(ct):
    """Two lesions: a ring with an island, parts that touch by a corner and lie slices apart; and the edge."""
    voxels = np.zeros(ct.GetSize()[::-1], np.uint8)
    voxels[1:3, 1:7, 1:8] = 1
    voxels[1, 2:6, 2:7] = 0
    voxels[1, 4, 4] = 1
    voxels[4, 2, 2] = voxels[4, 3, 3] = 1
    voxels[0, 0, 9:13] = voxels[-1, -1, -1] = 2
    return volume_like(voxels, ct)


def outlines_on(folder, name, keep=False, patient="A 1", size=SIZE):
    ct, scan = placed_ct(folder, name, patient, size)
    scan = scan if keep else scan.without_patient("case-1")
    names = {1: "Lesion 1", 2: "Lesion 2"}
    return Outlines(difficult_mask(ct), names, OutlineAuthor("radiogen RA-Seg", "9, model abc"), scan), ct


def objects_of(outlines):
    seg = make_seg(outlines)
    return seg, make_rtstruct(outlines), make_sr(outlines, measure_lesions(outlines.labels), seg)


def laid_back(seg_path, number, ct):
    found = segment_mask(read_seg(seg_path), number, ct, {})
    assert found.decisions[0] == "SEG read by highdicom"
    return array_of(mask_on_grid(found.mask, ct, seg_path, is_dicom=True)[0])


def read_by_dcmqi(program, *words):
    done = subprocess.run([Path(sys.executable).with_name(program), *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def found_by_dcmqi(path, folder, ct):
    """The labels that dcmqi reads from a SEG, voxel by voxel on the CT, whatever grid it gives them."""
    folder.mkdir()
    how = ("--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd")
    read_by_dcmqi("segimage2itkimage", *how)
    voxels = np.zeros(ct.GetSize()[::-1], np.uint8)
    for file in folder.glob("*.nrrd"):
        mask = sitk.ReadImage(str(file))
        for z, y, x in np.argwhere(sitk.GetArrayFromImage(mask)).tolist():
            point = mask.TransformIndexToPhysicalPoint((x, y, z))
            place = np.array(ct.TransformPhysicalPointToContinuousIndex(point))
            i, j, k = np.round(place).astype(int).tolist()
            assert np.abs(place - (i, j, k)).max() < 0.01
            assert voxels[k, j, i] == 0
            voxels[k, j, i] = mask[x, y, z]
    return voxels


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PLACES)
def test_a_seg_holds_the_same_voxels_for_three_readers(tmp_path, name, size):
    outlines, ct = outlines_on(tmp_path / "ct", name, size=SIZES[size])
    path = tmp_path / "lesion.seg.dcm"
    write_dicom(make_seg(outlines), path)
    expected = array_of(outlines.labels)

    for number in (1, 2):
        assert np.array_equal(laid_back(path, number, ct), expected == number)

    strict = highdicom.seg.segread(path)
    for lesion in measure_lesions(outlines.labels):
        volume = strict.get_volume(segment_numbers=[lesion.label])
        indices = np.argwhere(volume.array[..., 0] == 1)
        centre = (volume.affine @ np.append(indices.mean(axis=0), 1))[:3]
        assert len(indices) == (expected == lesion.label).sum()
        assert np.abs(centre - lesion.center_mm).max() < 0.001

    assert np.array_equal(found_by_dcmqi(path, tmp_path / "dcmqi", ct), expected)


def test_a_reader_that_knows_no_segments_finds_each_frame_on_its_slice(tmp_path):
    outlines, ct = outlines_on(tmp_path / "ct", "oblique")  # ITK reads single bits only in whole bytes
    path = tmp_path / "lesion.seg.dcm"
    write_dicom(make_seg(outlines), path)
    expected = array_of(outlines.labels)
    frames = array_of(sitk.ReadImage(str(path)))
    groups = dcmread(path).PerFrameFunctionalGroupsSequence
    for frame, group in zip(frames, groups, strict=True):
        place = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        k = ct.TransformPhysicalPointToIndex(place)[2]
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert np.array_equal(frame != 0, expected[k] == number)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PLACES)
def test_an_rtstruct_fills_to_the_same_voxels(tmp_path, name, size):
    outlines, ct = outlines_on(tmp_path / "ct", name, size=SIZES[size])
    path = tmp_path / "lesion.rtstruct.dcm"
    write_dicom(make_rtstruct(outlines), path)
    scan = outlines.scan
    reference = CtReference(frozenset({scan.frame_uid}), {one.uid: one.position_mm for one in scan.slices})
    for number, roi in enumerate(read_rtstruct(path), start=1):
        drawn = contours_of(roi, path)
        assert roi.name == f"Lesion {number}"
        assert check_frame(roi.frame_uid, drawn.planes, ct, reference, path) == []
        laid = fill_contours(drawn.contours, ct, path)
        assert np.array_equal(laid.inside, array_of(outlines.labels) == number)
        assert np.array_equal(filled_by_matplotlib(drawn.contours, ct), laid.inside)


def filled_by_matplotlib(contours, ct):
    """The voxels whose centres lie in an odd number of contours, by another hand than ours."""
    width, height, depth = ct.GetSize()
    centres = [(x, y) for y in range(height) for x in range(width)]
    inside = np.zeros((depth, height, width), bool)
    for points in contours:
        corners = np.array([ct.TransformPhysicalPointToContinuousIndex(point) for point in points.tolist()])
        k = round(corners[0, 2])
        assert np.abs(corners[:, 2] - k).max() < 0.001
        inside[k] ^= MplPath(corners[:, :2], closed=False).contains_points(centres).reshape(height, width)
    return inside


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_traced_lines_fill_to_the_pixels_they_were_drawn_round(mask):
    lines = [np.array(line) - 0.5 for line in trace(mask)]
    assert np.array_equal(fill_polygons(lines, mask.shape[::-1]), mask)


def test_frames_name_the_slices_they_lie_on_and_empty_ones_are_left_out(tmp_path):
    outlines, ct = outlines_on(tmp_path / "ct", "flipped")
    seg = make_seg(outlines)
    filled = [(n, k) for n in (1, 2) for k in range(6) if (array_of(outlines.labels)[k] == n).any()]
    slices = outlines.scan.slices_on(ct)
    named = [
        (
            group.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID,
        )
        for group in seg.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(named) == sorted((n, slices[k].uid) for n, k in filled)
    assert seg.StudyInstanceUID == outlines.scan.study_uid
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == outlines.scan.series_uid
    segment = seg.SegmentSequence[0]
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"  # SCT: Neoplasm
    assert segment.AnatomicRegionSequence[0].CodeValue == "39607008"  # SCT: Lung
    assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "9, model abc"


def test_measurements_point_at_the_segments(tmp_path):
    outlines, _ = outlines_on(tmp_path / "ct", "oblique")
    seg, lesions = make_seg(outlines), measure_lesions(outlines.labels)
    path = tmp_path / "lesion.sr.dcm"
    write_dicom(make_sr(outlines, lesions, seg), path)
    report = highdicom.sr.srread(path)
    groups = report.content.get_volumetric_roi_measurement_groups()
    for lesion, group in zip(lesions, groups, strict=True):
        volume, diameter = (one.value for one in group.get_measurements())
        assert volume == pytest.approx(1000 * lesion.volume_ml, abs=0.06)
        assert diameter == pytest.approx(lesion.longest_diameter_mm, abs=0.01)
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert segment.referenced_segment_numbers[0] == lesion.label

    read_by_dcmqi("tid1500reader", "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
    for group, lesion in zip(
        json.loads((tmp_path / "sr.json").read_text())["Measurements"], lesions, strict=True
    ):
        assert group["TrackingIdentifier"] == f"Lesion {lesion.label}"
        assert group["segmentationSOPInstanceUID"] == seg.SOPInstanceUID
        values = [float(item["value"]) for item in group["measurementItems"]]
        assert values == pytest.approx([1000 * lesion.volume_ml, lesion.longest_diameter_mm], abs=0.06)


@pytest.mark.parametrize("keep", [False, True])
def test_the_same_input_gives_the_same_bytes(tmp_path, keep):
    written = []
    for turn in ("a", "b"):
        outlines, _ = outlines_on(tmp_path / "ct", "axial", keep)
        for item in objects_of(outlines):
            path = tmp_path / turn / f"{len(written) % 3}.dcm"
            write_dicom(item, path)
            written.append(path.read_bytes())
    assert written[:3] == written[3:]


def test_the_patient_is_left_out_unless_asked_for(tmp_path):
    patients = {}
    for keep in (False, True):
        outlines, _ = outlines_on(tmp_path / f"{keep}", "axial", keep)
        for made in objects_of(outlines):
            path = tmp_path / "one.dcm"
            write_dicom(made, path)
            content, item = path.read_bytes(), dcmread(path)
            assert (b"Doe" in content, b"20010304" in content, b"A 1" in content) == (keep, keep, keep)
            patients.setdefault(keep, set()).add((str(item.PatientID), str(item.PatientName)))
    assert patients == {False: {("case-1", "case-1")}, True: {("A 1", "Doe^Jane")}}


def test_hostile_strings_of_the_header_become_harmless_values(tmp_path):
    folder = tmp_path / "ct"
    slices = ct_slices()
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for item in slices:
            item.SpecificCharacterSet = "ISO_IR 192"
            item.PatientName = item.PatientID = item.StudyDescription = item.AccessionNumber = HOSTILE
            item.SeriesDescription = HOSTILE
        save(slices, folder)
    (series,) = group_series(find_dicom(folder).slices)
    scan, ct = read_scan(series), read_series(series).volume
    voxels = np.zeros(ct.GetSize()[::-1], np.uint8)
    voxels[1, 2, 3] = 1
    outlines = Outlines(volume_like(voxels, ct), {1: "Lesion 1"}, OutlineAuthor(), scan)
    path = tmp_path / "one.dcm"
    for item in objects_of(outlines):
        write_dicom(item, path)
        read = dcmread(path)
        for value in (str(read.PatientName), read.PatientID, read.StudyDescription, read.AccessionNumber):
            assert value.isprintable() and len(value) <= 64 and "\\" not in value
        assert read.SeriesDescription.startswith("radiogen ")
    assert make_seg(outlines).SegmentSequence[0].SegmentAlgorithmType == "MANUAL"


@pytest.mark.parametrize("name", ["StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"])
def test_a_uid_that_is_a_path_or_markup_is_refused(tmp_path, name):
    slices = ct_slices()
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k, item in enumerate(slices):
            setattr(item, name, f"../../etc/<b>{k if name == 'SOPInstanceUID' else ''}")
        save(slices, tmp_path / "ct")
        (series,) = group_series(find_dicom(tmp_path / "ct").slices)
    with pytest.raises(SeriesError, match="has a UID that is none") as refused:
        read_scan(series)
    assert "etc" not in str(refused.value).split("ct:")[-1]


def test_a_ct_that_was_resampled_refers_to_its_series_and_is_found_all_the_same(tmp_path):
    ct, scan = placed_ct(tmp_path / "ct", "flipped")
    grid = sitk.Image((20, 10, 9), sitk.sitkInt16)  # as after --gaps resample or --tilt resample
    grid.SetOrigin(ct.TransformContinuousIndexToPhysicalPoint((-0.4, 0.3, 0.2)))
    grid.SetSpacing((0.6, 1.0, 1.7))
    grid.SetDirection(ct.GetDirection())
    outlines = Outlines(
        difficult_mask(grid),
        {1: "Lesion 1", 2: "Lesion 2"},
        OutlineAuthor("a", "1"),
        scan.without_patient("c"),
    )
    seg, structures, report = objects_of(outlines)
    write_dicom(seg, tmp_path / "lesion.seg.dcm")
    write_dicom(structures, tmp_path / "lesion.rtstruct.dcm")
    write_dicom(report, tmp_path / "lesion.sr.dcm")
    expected = array_of(outlines.labels)
    assert np.array_equal(
        sum(n * laid_back(tmp_path / "lesion.seg.dcm", n, grid).astype(int) for n in (1, 2)), expected
    )
    assert np.array_equal(found_by_dcmqi(tmp_path / "lesion.seg.dcm", tmp_path / "dcmqi", grid), expected)
    for number, roi in enumerate(read_rtstruct(tmp_path / "lesion.rtstruct.dcm"), start=1):
        laid = fill_contours(contours_of(roi, tmp_path).contours, grid, tmp_path)
        assert np.array_equal(laid.inside, expected == number)
    assert (
        dcmread(tmp_path / "lesion.seg.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID == scan.series_uid
    )
