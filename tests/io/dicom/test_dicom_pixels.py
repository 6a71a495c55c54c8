"""However the numbers of a slice are stored, the HU are the same."""

import base64
import io
import sys
import time

import gdcm
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import box_hu, ct_slices, save
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from radiogen.errors import SeriesError
from radiogen.io.dicom import decode as dicom_decode
from radiogen.io.dicom import file_kind as dicom_headers
from radiogen.io.dicom.decode import Decoders, decoding_error
from radiogen.io.dicom.files import find_dicom
from radiogen.io.dicom.series import group_series, read_series

LARGE = np.clip(box_hu((41, 37, 5)), -1000, 1000)  # JPEG 2000 takes no smaller image
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"


def read(folder):
    (series,) = group_series(find_dicom(folder).slices)
    return read_series(series)


def hu_in(folder):
    return sitk.GetArrayFromImage(read(folder).volume)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_headers_of_every_kind_give_the_same_volume(tmp_path, syntax):
    slices = ct_slices()
    for item in slices:
        item.file_meta.TransferSyntaxUID = syntax
    save(slices, tmp_path)
    assert np.array_equal(hu_in(tmp_path), box_hu())


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_big_endian_numbers_of_every_width_give_the_same_volume(tmp_path, bits):
    slices = ct_slices(np.where(box_hu() > 0, -20, -200))
    for item in slices:
        item.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        stored = np.frombuffer(item.PixelData, np.uint16).astype(int) - 824
        item.RescaleIntercept = -200
        item.BitsAllocated = item.BitsStored = bits
        item.HighBit = bits - 1
        item.PixelData = stored.reshape(7, 11).astype(f">u{bits // 8}").tobytes() + b"\0" * (bits == 8)
        item["PixelData"].VR = "OB" if bits == 8 else "OW"
    save(slices, tmp_path)
    assert np.array_equal(hu_in(tmp_path), np.where(box_hu() > 0, -20, -200))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_slices_compressed_without_loss_give_the_same_volume(tmp_path, syntax):
    slices = ct_slices(LARGE)
    for item in slices:
        item.compress(syntax)
    save(slices, tmp_path)
    assert np.array_equal(hu_in(tmp_path), LARGE)


def test_lossless_jpeg_and_uncompressed_slices_in_one_series_give_the_same_volume(tmp_path):
    for path in save(ct_slices(), tmp_path)[1::2]:
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    syntaxes = {item.pixels.syntax for item in find_dicom(tmp_path).slices}
    assert JPEG_LOSSLESS in syntaxes and len(syntaxes) == 2
    assert np.array_equal(hu_in(tmp_path), box_hu())


# 12 x 8 pixels, 200 * row + 7 * column, encoded with OpenJPH 0.26.3: no encoder is at hand in tests.
HTJ2K = (
    "/0//UQApQAAAAAAMAAAACAAAAAAAAAAAAAAADAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQ"
    "kJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAGQAAf+TwAAmM/wFB3QAAMAAEoD2AId0AMAAEcAAE4AX"
    "cwAgB/kAojQAwAASwAAVQN6Ay3QAggsW/AAQgHdWAMAAJ4AAVwAk+dinQnUAjh0dHR0d4Bj2MYHsuAD/2Q=="
)


def test_high_throughput_jpeg_2000_is_decoded(tmp_path):
    slices = ct_slices(np.zeros((5, 8, 12)))
    for item in slices:
        item.PixelData = encapsulate([base64.b64decode(HTJ2K)])
        item["PixelData"].VR = "OB"
        item.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
    save(slices, tmp_path)
    ramp = np.add.outer(200 * np.arange(8), 7 * np.arange(12)) - 1024
    assert np.array_equal(hu_in(tmp_path), np.stack([ramp] * 5))


def test_baseline_jpeg_is_read_nearly_and_its_loss_is_said(tmp_path):
    y, x = np.mgrid[:64, :64]
    grey = (40 + 2 * x + y / 2).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", quality=95)
    slices = ct_slices(np.zeros((5, 64, 64)))
    for item in slices:
        item.BitsAllocated = item.BitsStored = 8
        item.HighBit, item.RescaleSlope, item.RescaleIntercept = 7, 10, -1024
        item.LossyImageCompression = "01"
        item.PixelData = encapsulate([stream.getvalue()])
        item["PixelData"].VR = "OB"
        item.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
    save(slices, tmp_path)
    ct = read(tmp_path)
    assert np.abs(sitk.GetArrayFromImage(ct.volume) - (10.0 * grey - 1024)).max() <= 30
    assert ct.decisions == ("5 slices were once compressed with loss",)


def test_signed_numbers_of_twelve_bits_keep_their_sign_through_jpeg_2000(tmp_path):
    slices = ct_slices(LARGE)
    for k, item in enumerate(slices):
        item.BitsStored, item.HighBit, item.PixelRepresentation, item.RescaleIntercept = 12, 11, 1, 0
        item.PixelData = LARGE[k].astype(np.int16).tobytes()
        item.compress(JPEG2000Lossless)
    save(slices, tmp_path)
    assert np.array_equal(hu_in(tmp_path), LARGE)


def test_monochrome1_is_a_way_of_showing_and_changes_no_hu(tmp_path):
    hu = box_hu()
    hu[:, :2, :2] = hu[:, :2, -2:] = hu[:, -2:, :2] = hu[:, -2:, -2:] = -1000
    slices = ct_slices(hu)
    for item in slices:
        item.PhotometricInterpretation = "MONOCHROME1"
    save(slices, tmp_path / "a")
    ct = read(tmp_path / "a")
    assert np.array_equal(sitk.GetArrayFromImage(ct.volume), hu)
    assert ct.decisions == ("5 slices are MONOCHROME1: shown inverted, their HU are taken as stored",)
    slices = ct_slices(-hu)
    for item in slices:
        item.PhotometricInterpretation = "MONOCHROME1"
    save(slices, tmp_path / "b")
    with pytest.raises(SeriesError, match="corners are not air"):
        read(tmp_path / "b")


def test_a_range_of_padding_values_becomes_air(tmp_path):
    slices = ct_slices()
    for item in slices:
        item.add_new("PixelPaddingValue", "US", 60000)
        item.add_new("PixelPaddingRangeLimit", "US", 60010)
        voxels = np.frombuffer(item.PixelData, np.uint16).copy()
        voxels[:3] = 60000, 60005, 60010
        item.PixelData = voxels.tobytes()
    save(slices, tmp_path)
    assert (hu_in(tmp_path)[:, 0, :3] == -1024).all()


def spoil(what):
    def change(item):
        for key, value in what.items():
            setattr(item, key, value)

    return change


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"SamplesPerPixel": 3}, "colour"),
        ({"RescaleSlope": 0}, "slope is 0"),
        ({"BitsAllocated": 12}, "12 bits"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"PixelSpacing": [0, 1]}, "not positive"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "right angles"),
        ({"ImagePositionPatient": [1, 0]}, "not 3 numbers"),
        ({"Rows": 8}, "truncated"),
    ],
)
def test_a_header_that_cannot_be_a_ct_is_damage_with_its_reason(tmp_path, changes, says):
    slices = ct_slices()
    spoil(changes)(slices[0])
    (path, *_) = save(slices, tmp_path)
    assert says in find_dicom(tmp_path).damaged[path]


def damaged_slice(folder, syntax=JPEG2000Lossless):
    slices = ct_slices(LARGE)
    for item in slices:
        item.compress(syntax)
    paths = save(slices, folder)
    whole = bytearray(paths[2].read_bytes())
    start = len(whole) - 60
    whole[start:] = bytes(reversed(whole[start:]))
    paths[2].write_bytes(whole)
    return paths[2]


def test_damaged_pixels_are_the_error_of_that_file(tmp_path):
    path = damaged_slice(tmp_path)
    with pytest.raises(SeriesError, match=path.name):
        read(tmp_path)


DIES = "import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 11)"
HANGS = "import time; time.sleep(60)"


@pytest.mark.parametrize(("program", "says"), [(DIES, "it ended its decoder"), (HANGS, "it took too long")])
def test_a_decoder_that_dies_or_hangs_is_the_error_of_that_file(tmp_path, monkeypatch, program, says):
    path = damaged_slice(tmp_path, RLELossless)
    popen = dicom_decode.subprocess.Popen
    monkeypatch.setattr(dicom_decode, "SECONDS", 0.3)
    monkeypatch.setattr(
        dicom_decode.subprocess, "Popen", lambda _, **how: popen([sys.executable, "-c", program], **how)
    )
    item = next(one for one in find_dicom(tmp_path).slices if one.path == path)
    started = time.monotonic()
    with Decoders(1) as decoders, pytest.raises(SeriesError, match=f"{path.name}: .*{says}"):
        list(decoders.decode([item]))
    assert time.monotonic() - started < 30


def test_a_decoder_that_died_is_replaced_for_the_next_slice(tmp_path):
    damaged = damaged_slice(tmp_path, RLELossless)
    one, *_, other = [item for item in find_dicom(tmp_path).slices if item.path != damaged]
    with Decoders(1) as decoders:
        first = next(decoders.decode([one]))
        decoders._workers[0].stop()
        assert np.array_equal(next(decoders.decode([other])).shape, first.shape)


@pytest.mark.parametrize(
    ("syntax", "why", "says"),
    [
        ("1.2.840.10008.1.2.4.70", "all plugins are missing dependencies", "(pip install python-gdcm)"),
        ("1.2.840.10008.1.2.4.90", "are missing dependencies", "(pip install pylibjpeg-openjpeg)"),
        ("1.2.840.10008.1.2.4.201", "are missing dependencies", "(pip install pylibjpeg-openjpeg)"),
        ("1.2.840.10008.1.2.5", "are missing dependencies", "(pip install pylibjpeg-rle)"),
        ("1.2.840.10008.1.2.4.100", "No pixel data decoders have been implemented", "nothing here decodes"),
    ],
)
def test_a_missing_decoder_is_named_with_its_package(tmp_path, syntax, why, says):
    from dataclasses import replace

    save(ct_slices(), tmp_path)
    item = find_dicom(tmp_path).slices[0]
    error = decoding_error(replace(item, pixels=replace(item.pixels, syntax=syntax)), why)
    assert says in str(error) and item.path.name in str(error)


def test_a_deflated_file_that_inflates_without_end_is_damage(tmp_path, monkeypatch):
    slices = ct_slices()
    for item in slices:
        item.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    paths = save(slices, tmp_path)
    monkeypatch.setattr(dicom_headers, "MOST_INFLATED", 100)
    assert set(find_dicom(tmp_path).damaged) == set(paths)


def test_syntax_without_a_file_meta_group_is_found_from_the_bytes(tmp_path):
    slices = ct_slices()
    for item in slices:
        item.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for path in save(slices, tmp_path):
        whole = path.read_bytes()
        meta = 144 + int.from_bytes(whole[140:144], "little")
        path.write_bytes(whole[meta:])
    assert np.array_equal(hu_in(tmp_path), box_hu())
