"""Damaged outline files: a result or one line, never a traceback, a hang or a full memory."""

import warnings
from io import BytesIO

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import ORIGIN, SPACING, ct_slices, rtstruct, seg, square, uid
from fuzzing import damage_tags, damaged, damages, fuzz, tag_damages
from hypothesis import assume, given
from hypothesis import strategies as st
from lidc_phantom import ring, roi, write_xml
from pydicom import dcmread

from radiogen.errors import RadiogenError
from radiogen.ingestion.outline_choice import OutlineChoice
from radiogen.ingestion.outlines import LesionLabels, read_lesions
from radiogen.io.contours import CtReference

pytestmark = pytest.mark.fuzz
KINDS = ["BINARY", "FRACTIONAL", "LABELMAP", "rtstruct", "lidc-xml"]
REFERENCE = CtReference(
    frozenset({uid("frame", "A 1")}),
    {uid("s", "A 1", k): (*ORIGIN[:2], ORIGIN[2] + k * SPACING[2]) for k in range(5)},
)


def ct():
    volume = sitk.Image((11, 7, 5), sitk.sitkInt16)
    volume.SetSpacing(SPACING)
    volume.SetOrigin(ORIGIN)
    return volume


def whole(kind, folder):
    """The bytes of an undamaged file."""
    if kind == "lidc-xml":
        rois = [roi(1, ring(1, 1, 6, 5)), roi(1, ring(3, 2, 5, 4), "FALSE"), roi(2, ring(2, 1, 5, 4))]
        sessions = [[(5, rois), (None, [roi(3, [(3, 4)])])], [(4, rois[:1])], [(3, rois)], []]
        return write_xml(folder / "a.xml", sessions).read_bytes()
    buffer = BytesIO()
    if kind == "rtstruct":
        hole = [square(2, (1, 1), (8, 6)), square(2, (3, 2), (5, 4)), square(3, (1, 1), (8, 6))]
        item = rtstruct({"GTV-1": hole, "Lung": [square(1, (0, 0), (3, 3))]})
    else:
        mask = np.zeros((5, 7, 11), dtype=bool)
        mask[1:4, 2:5, 3:8] = True
        shares = mask.astype(np.float32) if kind == "FRACTIONAL" else mask
        how = {"fractional_type": "PROBABILITY"} if kind == "FRACTIONAL" else {}
        item = seg({"Heart": shares, "Node": np.roll(shares, 5, axis=2)}, ct_slices(), kind=kind, **how)
    item.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="module", params=KINDS)
def outline(request, tmp_path_factory):
    """Kind of file, undamaged bytes, a place to write to."""
    folder = tmp_path_factory.mktemp("outline")
    kind = request.param if request.param in ("rtstruct", "lidc-xml") else "seg"
    return kind, whole(request.param, folder), folder / "outline"


CHOICES = st.sampled_from(
    [OutlineChoice(), OutlineChoice(roi="GTV.*", segment="largest"), OutlineChoice(segment="1")]
)


def read(kind, content, path, choice):
    """The result of reading, or the line that says why not."""
    path.write_bytes(content)
    try:
        lesions = read_lesions(path, kind, ct(), choice, REFERENCE)
    except RadiogenError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1000
        return
    assert isinstance(lesions, LesionLabels)
    assert lesions.labels.GetSize() == (11, 7, 5)


def test_undamaged_files_are_read(outline):
    kind, content, path = outline
    path.write_bytes(content)
    assert read_lesions(path, kind, ct(), OutlineChoice(segment="1"), REFERENCE).decisions


@fuzz()
@given(ways=damages(), choice=CHOICES)
def test_damaged_bytes_give_a_result_or_one_line(outline, ways, choice):
    kind, content, path = outline
    read(kind, damaged(content, ways), path, choice)


@fuzz(10)
@given(content=st.binary(max_size=400), head=st.booleans())
def test_any_bytes_give_a_result_or_one_line(outline, content, head):
    kind, _, path = outline
    read(kind, (b"\0" * 128 + b"DICM" if head else b"") + content, path, OutlineChoice())


@pytest.mark.parametrize("outline", KINDS[:4], indirect=True)
@fuzz(40)
@given(ways=tag_damages(), choice=CHOICES)
def test_damaged_tags_give_a_result_or_one_line(outline, ways, choice):
    kind, content, path = outline
    dataset, buffer = dcmread(BytesIO(content)), BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        damage_tags(dataset, ways)
        try:
            dataset.save_as(buffer, enforce_file_format=False)
        except Exception:  # pydicom does not write every damage
            assume(False)
    read(kind, buffer.getvalue(), path, choice)


TEXTS = st.sampled_from(["", "nan", "1e308", "-1e9", "1e5", "-99999", "1.5", "TRUE", "five", "0" * 400, "٣"])


@pytest.mark.parametrize("outline", ["lidc-xml"], indirect=True)
@fuzz()
@given(data=st.data())
def test_damaged_numbers_of_an_xml_give_a_result_or_one_line(outline, data):
    kind, content, path = outline
    pieces = content.decode().split("<")
    for _ in range(data.draw(st.integers(1, 4))):
        k = data.draw(st.integers(1, len(pieces) - 1))
        pieces[k] = pieces[k].split(">")[0] + ">" + data.draw(TEXTS)
    read(kind, "<".join(pieces).encode(), path, OutlineChoice())
