import numpy as np
import pytest
from dicom_phantom import rtstruct, save, square, uid
from pydicom import dcmread

from radiogen.errors import OutlineError
from radiogen.io.dicom.rtstruct import contours_of, read_rtstruct


def write(rois, folder, change=None):
    (path,) = save([rtstruct(rois)], folder)
    if change is not None:
        dataset = dcmread(path)
        change(dataset.ROIContourSequence[0].ContourSequence[0])
        dataset.save_as(path)
    return path


def test_rois_come_with_their_contours_and_points_are_counted_apart(tmp_path):
    corners = square(1, (2, 2), (4, 4))
    path = write({"GTV-1 ": [corners, corners[:1]], "Couch": []}, tmp_path)
    gtv, couch = read_rtstruct(path)
    assert (gtv.name, len(gtv.drawn), gtv.left_out) == ("GTV-1", 1, 1)
    assert contours_of(gtv, path).contours[0].tolist() == corners
    assert (couch.name, couch.drawn) == ("Couch", ())
    assert gtv.frame_uid == uid("frame", "A 1")  # of the file, since the structure names none


@pytest.mark.parametrize(
    "text", ["1.5e1\\ 2.25 \\-3\\4\\5\\6\\7\\8\\9", "15\\2.25\\-3.0\\4\\5\\6\\7\\8\\+9 "]
)
def test_numbers_are_read_however_they_are_written(tmp_path, text):
    path = write({"GTV": [square(1, (2, 2), (4, 4))]}, tmp_path)
    path.write_bytes(_with_contour(path, text))
    (roi,) = read_rtstruct(path)
    (points,) = contours_of(roi, path).contours
    assert np.array_equal(points, [[15, 2.25, -3], [4, 5, 6], [7, 8, 9]])


def _with_contour(path, text):
    """The file with one contour's coordinates overwritten by others, padded to the same length."""
    raw = path.read_bytes()
    old = raw[raw.index(b"DS", raw.index(b"CLOSED_PLANAR")) :]
    stored = "\\".join(f"{v:.4f}" for point in square(1, (2, 2), (4, 4)) for v in point).encode()
    assert stored in old and len(text) < len(stored)
    return raw.replace(stored, text.encode() + b" " * (len(stored) - len(text)))


@pytest.mark.parametrize("value", ["nan", "inf", "1e308", "-2e5"])
def test_coordinates_that_are_no_millimetres_are_refused(tmp_path, value):
    path = write({"GTV": [square(1, (2, 2), (4, 4))]}, tmp_path)
    path.write_bytes(_with_contour(path, f"{value}\\2\\3\\4\\5\\6\\7\\8\\9"))
    (roi,) = read_rtstruct(path)
    with pytest.raises(OutlineError, match="no millimetres of a scanner"):
        contours_of(roi, path)


@pytest.mark.parametrize(
    "text", ["1\\2\\3\\4\\5\\6\\7\\8\\9\\10", "1\\2\\3\\4\\five\\6\\7\\8\\9", "\\\\\\\\\\\\\\\\"]
)
def test_damaged_coordinates_are_one_line(tmp_path, text):
    path = write({"GTV": [square(1, (2, 2), (4, 4))]}, tmp_path)
    path.write_bytes(_with_contour(path, text))
    (roi,) = read_rtstruct(path)
    with pytest.raises(OutlineError, match="cannot be read as RTSTRUCT"):
        contours_of(roi, path)


@pytest.mark.parametrize(("kind", "drawn"), [("OPEN_PLANAR", 0), ("CLOSEDPLANAR_XOR", 1), ("", 1)])
def test_only_closed_contours_enclose(tmp_path, kind, drawn):
    def change(contour):
        contour.ContourGeometricType = kind

    (roi,) = read_rtstruct(write({"GTV": [square(1, (2, 2), (4, 4))]}, tmp_path, change))
    assert (len(roi.drawn), roi.left_out) == (drawn, 1 - drawn)


def test_a_damaged_file_is_one_line(tmp_path):
    path = write({"GTV": [square(1, (2, 2), (4, 4))]}, tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(OutlineError, match="cannot be read as RTSTRUCT"):
        read_rtstruct(path)
