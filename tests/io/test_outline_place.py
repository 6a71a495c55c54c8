from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.errors import OutlineError
from radiogen.io.contours import CtReference, OutlinePlane, check_frame, check_numbers, indices_of

SOURCE = Path("plan.dcm")


def ct():
    volume = sitk.Image((11, 7, 5), sitk.sitkInt16)
    volume.SetSpacing((0.75, 1.25, 2.5))
    volume.SetOrigin((-20.0, 10.0, -100.0))
    return volume


REFERENCE = CtReference(frozenset({"1.2"}), {f"s{k}": (-20.0, 10.0, -100.0 + 2.5 * k) for k in range(5)})


def plane(k, *uids):
    return OutlinePlane(np.array([3.0, 4.0, -100.0 + 2.5 * k]), uids)


def frame(uid, *planes, reference=REFERENCE):
    return check_frame(uid, planes, ct(), reference, SOURCE)


def test_indices_are_those_of_itk():
    volume = ct()
    volume.SetDirection(sitk.VersorTransform((0.3, 0.5, 0.2), 0.4).GetMatrix())
    points = np.array([[-19.0, 11.0, -97.0], [3.0, 4.0, 5.0]])
    expected = [volume.TransformPhysicalPointToContinuousIndex(point) for point in points.tolist()]
    assert np.allclose(indices_of(points, volume), expected)


def test_an_outline_of_the_same_frame_of_reference_is_taken():
    assert frame("1.2", plane(1), plane(2, "s2", "elsewhere")) == []
    assert frame("", plane(1)) == []


def test_another_frame_of_reference_is_taken_if_every_plane_lies_on_the_slice_it_names():
    (said,) = frame("9.9", plane(1, "s1"), plane(2.4, "s2", "other"))
    assert "each plane lies on the CT slice it names" in said


@pytest.mark.parametrize(
    ("planes", "why"),
    [
        ([plane(1, "s1"), plane(2)], "does not name the CT's slices"),
        ([plane(1, "elsewhere")], "does not name the CT's slices"),
        ([], "does not name the CT's slices"),
        ([plane(1, "s1"), plane(4, "s1")], "lies 7.5 mm off the slices it names"),
    ],
)
def test_another_frame_of_reference_without_proof_is_refused(planes, why):
    with pytest.raises(OutlineError, match=f"another frame of reference than the CT and {why}"):
        frame("9.9", *planes)


def test_planes_that_do_not_lie_on_the_slices_they_name_are_said():
    (said,) = frame("1.2", plane(1, "s1"), plane(4, "s1"))
    assert said == "planes of the outline lie up to 7.5 mm off the slices they name: their millimetres count"


def test_a_ct_without_a_frame_of_reference_is_said():
    (said,) = frame("1.2", plane(1), reference=CtReference())
    assert "placed by its millimetres" in said


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e308, 1e6])
def test_numbers_that_are_no_place_are_refused(value):
    with pytest.raises(OutlineError, match="no millimetres of a scanner"):
        check_numbers(np.array([[0.0, value, 1.0]]), SOURCE)
