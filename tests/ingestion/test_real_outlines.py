"""Outlines of real scans, and SEG files made of them in every order and disorder."""

from dataclasses import dataclass

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import save, seg
from pydicom import Dataset, dcmread

from radiogen.ingestion.outline_choice import OutlineChoice
from radiogen.ingestion.outlines import read_lesions
from radiogen.io.contours import CtReference
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.series import group_series, read_series
from radiogen.volume import array_of, voxel_ml


@dataclass(frozen=True)
class Scan:
    ct: sitk.Image
    reference: CtReference
    slices: tuple[Dataset, ...]
    lesions: np.ndarray


def read_scan(folder, choice=None):
    tree = find_dicom(folder)
    (series,) = group_series(tree.slices)
    read = read_series(series)
    reference = CtReference(
        series.frame_of_reference_uids, {one.sop_uid: one.position_mm for one in read.slices}
    )
    (outline,) = tree.outlines
    lesions = read_lesions(outline.path, outline.kind, read.volume, choice or OutlineChoice(), reference)
    slices = tuple(dcmread(one.path) for one in read.slices)
    return Scan(read.volume, reference, slices, array_of(lesions.labels) > 0)


@pytest.mark.parametrize(
    ("roi", "ml"), [(None, 67.56), ("LN_c40", 6.41), ("Carina_c40", 0.49), ("Vertebra_c40", 9.87)]
)
def test_the_structures_of_4d_lung_have_their_published_volumes(shared_data, roi, ml):
    scan = read_scan(shared_data / "lung_4d_113", OutlineChoice(roi=roi))
    assert scan.lesions.sum() * voxel_ml(scan.ct) == pytest.approx(ml, rel=0.01)


@pytest.fixture(scope="module", params=["lidc_idri_partial/LIDC-IDRI-0001", "ibsi_ct_phantom/dicom"])
def scan(request, shared_data):
    return read_scan(shared_data / request.param)


def write_seg(scan, folder):
    for item in scan.slices:  # what highdicom asks for and old scanners left out
        for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyTime", "StudyID"):
            setattr(item, name, item.get(name) or "")
        item.PatientName = "Doe^Jane"  # a name of one word makes highdicom warn
        item.PositionReferenceIndicator = item.get("PositionReferenceIndicator") or ""
    (path,) = save([seg({"Heart": scan.lesions}, list(scan.slices))], folder, ["seg.dcm"])
    return path


def read_back(scan, path):
    lesions = read_lesions(path, "seg", scan.ct, OutlineChoice(), scan.reference)
    return array_of(lesions.labels) > 0, lesions.decisions


def rearrange(path, order, flipped=()):
    """Rewrite a SEG with frames in another order, some of them upside down with the place to match."""
    dataset = dcmread(path)
    frames = dataset.pixel_array[order].copy()
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array([float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient])
    rows_mm = float(shared.PixelMeasuresSequence[0].PixelSpacing[0])
    groups = [Dataset.from_json(dataset.PerFrameFunctionalGroupsSequence[k].to_json()) for k in order]
    if flipped:
        del shared.PlaneOrientationSequence
    for k, group in enumerate(groups if flipped else ()):
        sign = -1 if k in flipped else 1
        place, plane = group.PlanePositionSequence[0], Dataset()
        plane.ImageOrientationPatient = [*cosines[:3], *(sign * cosines[3:])]
        group.PlaneOrientationSequence = [plane]
        if k in flipped:
            down = cosines[3:] * rows_mm * (dataset.Rows - 1)
            place.ImagePositionPatient = np.round(np.array(place.ImagePositionPatient) + down, 6).tolist()
            frames[k] = frames[k][::-1]
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = len(order)
    bits = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset.PixelData = bits + b"\0" * (len(bits) % 2)
    dataset.save_as(path)
    return frames.any(axis=(1, 2))


def test_a_seg_of_a_real_outline_is_read_back_equal(scan, tmp_path):
    path = write_seg(scan, tmp_path)
    found, decisions = read_back(scan, path)
    assert np.array_equal(found, scan.lesions)
    assert "SEG read by highdicom" in decisions
    count = int(dcmread(path).NumberOfFrames)
    rng = np.random.default_rng(0)
    order = rng.permutation(count)
    rearrange(path, [*order, *order[:3]])
    found, decisions = read_back(scan, path)
    assert np.array_equal(found, scan.lesions)
    assert "SEG: 3 doubled frames with equal pixels left out" in decisions
    rearrange(path, list(range(count)), flipped=set(order[: count // 2].tolist()))
    found, decisions = read_back(scan, path)
    assert np.array_equal(found, scan.lesions)
    assert any("highdicom refused it" in line for line in decisions)


def test_frames_that_are_gone_leave_their_slices_empty_and_nothing_else(scan, tmp_path):
    path = write_seg(scan, tmp_path)
    count = int(dcmread(path).NumberOfFrames)
    kept = [k for k in range(count) if k % 3 != 1]
    rearrange(path, kept)
    found, _ = read_back(scan, path)
    slices = np.flatnonzero(scan.lesions.any(axis=(1, 2)))
    expected = np.zeros_like(scan.lesions)
    there = sorted(slices, reverse=_is_descending(path))
    expected[[there[k] for k in kept]] = scan.lesions[[there[k] for k in kept]]
    assert np.array_equal(found, expected)


def _is_descending(path):
    first, *_, last = dcmread(path).PerFrameFunctionalGroupsSequence
    z = [float(group.PlanePositionSequence[0].ImagePositionPatient[2]) for group in (first, last)]
    return z[0] > z[1]
