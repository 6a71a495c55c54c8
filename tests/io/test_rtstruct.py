import pytest
from dicom_phantom import rtstruct, save, square

from radiogen.errors import OutlineError
from radiogen.io.rtstruct import read_rtstruct


def test_rois_come_with_their_contours_and_points_are_counted_apart(tmp_path):
    corners = square(1, (2, 2), (4, 4))
    rois = {"GTV-1 ": [corners, corners[:1]], "Couch": []}
    (path,) = save([rtstruct(rois)], tmp_path)
    gtv, couch = read_rtstruct(path)
    assert (gtv.name, len(gtv.contours), gtv.left_out) == ("GTV-1", 1, 1)
    assert gtv.contours[0].tolist() == corners
    assert (couch.name, couch.contours) == ("Couch", ())


def test_a_damaged_file_is_one_line(tmp_path):
    (path,) = save([rtstruct({"GTV": [square(1, (2, 2), (4, 4))]})], tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(OutlineError, match="cannot be read as RTSTRUCT"):
        read_rtstruct(path)
