import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from radiogen.errors import OutputError
from radiogen.ingestion import case_folder
from radiogen.ingestion.certificate import certify
from radiogen.ingestion.ingest import ingest
from radiogen.io.nifti import write_volume


def scan(turn=0.3, size=(6, 5, 4), spacing=(0.7, 0.8, 2.5)):
    """A volume turned about two axes."""
    volume = sitk.Image(size, sitk.sitkInt16)
    volume.SetSpacing(spacing)
    volume.SetOrigin((-150.3, 20.1, -900.7))
    turned = sitk.Euler3DTransform((0, 0, 0), turn / 2, 0, turn)
    volume.SetDirection(turned.GetMatrix())
    return volume


def positions(volume):
    return [volume.TransformIndexToPhysicalPoint((0, 0, k)) for k in range(volume.GetSize()[2])]


def write(volume, path):
    write_volume(volume, path)
    return path


@given(turn=st.floats(-3.2, 3.2))
def test_a_file_that_lies_in_its_place_is_certified(tmp_path_factory, turn):
    volume = scan(turn, size=(6, 5, 40))
    path = write(volume, tmp_path_factory.mktemp("c") / "ct.nii.gz")
    found = certify([path], volume, positions(volume)[::-1])
    assert found["corners_error_mm"] < 0.001 and found["slices_error_mm"] < 0.001
    assert found["corners_error_qform_mm"] < 0.3
    assert found["reader"].startswith("nibabel")


@pytest.mark.parametrize(
    "move",
    [
        lambda v: v.SetOrigin(np.add(v.GetOrigin(), (0.02, 0, 0))),
        lambda v: v.SetSpacing((0.7, 0.81, 2.5)),
        lambda v: v.SetDirection(scan(0.31).GetDirection()),
        lambda v: v.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, -1)),
    ],
)
def test_a_file_beside_its_place_is_refused_with_the_distance(tmp_path, move):
    moved = scan()
    move(moved)
    right, wrong = write(scan(), tmp_path / "ct.nii.gz"), write(moved, tmp_path / "lungs.nii.gz")
    with pytest.raises(OutputError, match=r"lungs.nii.gz: was written \d+\.\d+ mm beside its place"):
        certify([right, wrong], scan())


def test_a_file_of_another_size_is_refused(tmp_path):
    with pytest.raises(OutputError, match="voxels instead of"):
        certify([write(scan(size=(6, 5, 5)), tmp_path / "ct.nii.gz")], scan())


def test_slices_are_looked_up_where_their_headers_place_them(tmp_path):
    path = write(scan(), tmp_path / "ct.nii.gz")
    there = np.array(positions(scan()))
    assert certify([path], scan(), there)["slices_error_mm"] < 0.001
    assert certify([path], scan(), np.add(there, (0.05, 0, 0)))["slices_error_mm"] == pytest.approx(
        0.05, abs=1e-3
    )
    with pytest.raises(OutputError, match=r"1\.000 mm beside the slices"):
        certify([path], scan(), np.add(there, (1.0, 0, 0)))


@pytest.mark.parametrize("how", ["uneven", "tilted", "fewer"])
def test_slices_that_were_resampled_have_no_place_to_compare(tmp_path, how):
    there = np.array(positions(scan()))
    there[2] += {"uneven": (0, 0, 1.0), "tilted": (0, 1.0, 0), "fewer": (0, 0, 0)}[how]
    there = there[: 3 if how == "fewer" else None]
    assert certify([write(scan(), tmp_path / "ct.nii.gz")], scan(), there)["slices_error_mm"] is None


def test_a_case_that_fails_its_certificate_is_never_put_into_place(tmp_path, monkeypatch, made_cases):
    from radiogen.io.cases import find_cases

    def write_beside(volume, path):
        moved = sitk.Image(volume)
        moved.SetOrigin(np.add(volume.GetOrigin(), (0, 0, 3.0)))
        write_volume(moved, path)

    ct = find_cases(made_cases)[0].ct_path
    monkeypatch.setattr(case_folder, "write_volume", write_beside)
    with pytest.raises(OutputError, match=r"3\.000 mm beside its place"):
        ingest(ct, tmp_path / "cases")
    assert not list(tmp_path.rglob("*.nii.gz"))
    monkeypatch.undo()
    done = ingest(ct, tmp_path / "cases").cases[0]
    certificate = case_folder.read_case_json(tmp_path / "cases" / done.case_id)["geometry"]["certificate"]
    assert certificate["corners_error_mm"] < 0.001 and "ct.nii.gz" in certificate["files"]
