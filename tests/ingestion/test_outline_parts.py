from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.ingestion.outlines import StructureMask, label_lesions
from radiogen.volume import array_of

SOURCE = Path("plan.dcm")


def part(name, *boxes, size=(5, 12, 14)):
    inside = np.zeros(size, dtype=bool)
    for x0, y0, x1, y1 in boxes:
        inside[2, y0:y1, x0:x1] = True
    return StructureMask(name, inside)


def lesions(*parts):
    found = label_lesions(parts, sitk.Image(parts[0].inside.shape[::-1], sitk.sitkInt16), SOURCE)
    labels = array_of(found.labels)
    return found, [int((labels == n).sum()) for n in range(1, labels.max() + 1)]


def test_each_connected_part_is_a_lesion_the_largest_first():
    found, voxels = lesions(part("GTV", (0, 0, 2, 2), (5, 0, 9, 3)))
    assert voxels == [12, 4]
    assert found.details["names"] == ["GTV", "GTV"]
    assert found.decisions == ()


def test_structures_that_touch_stay_two_lesions():
    found, voxels = lesions(part("GTV-1", (0, 0, 2, 3)), part("GTV-2", (2, 0, 6, 3)))
    assert voxels == [12, 6]
    assert found.details["names"] == ["GTV-2", "GTV-1"]


def test_structures_that_share_voxels_are_one_lesion_and_that_is_said():
    core, boost, far = part("core", (0, 0, 4, 3)), part("boost", (3, 0, 6, 3)), part("far", (9, 0, 11, 1))
    found, voxels = lesions(core, far, boost)
    assert voxels == [18, 2]
    assert found.details["names"] == ["core + boost", "far"]
    assert found.decisions == ("core and boost share 0.003 ml and are one lesion",)


def test_overlap_joins_through_others():
    a, b, both = part("a", (0, 0, 3, 1)), part("b", (5, 0, 8, 1)), part("both", (2, 0, 6, 1))
    found, voxels = lesions(a, b, both)
    assert voxels == [8]
    assert found.details["names"] == ["a + b + both"]


def test_more_lesions_than_a_mask_holds_are_refused():
    size = (5, 40, 40)
    one = part("a", *((x, y, x + 1, y + 1) for x in range(0, 40, 2) for y in range(0, 20, 2)), size=size)
    two = part("b", *((x, y, x + 1, y + 1) for x in range(0, 40, 2) for y in range(20, 40, 2)), size=size)
    with pytest.raises(OutlineError, match="holds 400 lesions, a mask 255"):
        lesions(one, two)
