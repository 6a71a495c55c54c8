"""Laws of volume files: a voxel stays at its millimetre, or the file is refused with one line."""

import gzip
import itertools
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from radiogen.errors import VolumeError
from radiogen.io.nifti import read_grid, read_mask, read_volume, read_volume_file, write_volume
from radiogen.volume import array_of, same_grid

RAS = np.array([-1, -1, 1])
HU = np.random.default_rng(0).integers(-1000, 400, (4, 5, 6)).astype(np.int16)  # x, y, z
FLIPPED = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
OBLIQUE = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]


def affine_with(axes, origin=(-90.5, 20.25, -300.0)):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, origin
    return affine


def save(path, affine, values=HU, qform=None, sform=1, header=None):
    """A NIfTI file by nibabel, with qform and sform codes and further header fields."""
    fields = nibabel.Nifti1Header()
    fields.set_data_dtype(values.dtype)
    fields.set_data_shape(values.shape)
    fields.set_sform(affine, sform)
    fields.set_qform(np.eye(4) if qform is None else qform, int(qform is not None))
    fields["vox_offset"] = 352
    for key, value in (header or {}).items():
        fields[key] = value
    path.write_bytes(fields.binaryblock + bytes(4) + values.tobytes(order="F"))
    return path


def world(volume, index):
    return np.array(volume.TransformIndexToPhysicalPoint([int(i) for i in index])) * RAS


def voxels_at(affine, index):
    return affine[:3, :3] @ index + affine[:3, 3]


def lies_at(volume, affine, tolerance_mm=1e-3):
    corners = list(itertools.product(*((0, n - 1) for n in volume.GetSize())))
    return all(np.abs(world(volume, c) - voxels_at(affine, c)).max() < tolerance_mm for c in corners)


@pytest.mark.parametrize(("order", "signs"), FLIPPED)
def test_flipped_and_permuted_axes_stay_at_their_millimetre(tmp_path, order, signs):
    axes = np.eye(3)[:, list(order)] * np.array(signs) * (0.75, 1.5, 2.5)  # half are left-handed
    affine = affine_with(axes)
    volume = read_volume(save(tmp_path / "a.nii", affine, qform=affine))
    assert lies_at(volume, affine) and np.array_equal(array_of(volume), HU.T)
    assert set(np.abs(volume.GetDirection())) == {0.0, 1.0}


@pytest.mark.parametrize("handedness", [1, -1])
@pytest.mark.parametrize("forms", ["qform", "sform", "both"])
def test_an_oblique_volume_stays_at_its_millimetre(tmp_path, forms, handedness):
    affine = affine_with(OBLIQUE * np.array([0.7, 0.8, 2.5 * handedness]))
    qform = affine if forms != "sform" else None
    volume = read_volume(save(tmp_path / "a.nii", affine, qform=qform, sform=int(forms != "qform")))
    assert lies_at(volume, affine) and np.array_equal(array_of(volume), HU.T)


def test_what_itk_reads_lies_where_we_read_it(tmp_path):
    affine = affine_with(OBLIQUE * (0.7, 0.8, 2.5))
    path = save(tmp_path / "a.nii", affine, qform=affine)
    assert same_grid(read_volume(path), sitk.ReadImage(str(path)), 1e-2)


def test_of_two_places_the_sform_wins_and_it_is_said(tmp_path):
    sform, qform = affine_with(np.diag([1.0, 1, 2])), affine_with(np.diag([1.0, 1, 2]), (0, 0, 0))
    read = read_volume_file(save(tmp_path / "a.nii", sform, qform=qform))
    assert lies_at(read.volume, sform)
    assert "the sform was taken" in read.decisions[0] and "314.0 mm" in read.decisions[0]


def test_alike_places_say_nothing(tmp_path):
    affine = affine_with(OBLIQUE * (0.7, 0.8, 2.5))
    assert read_volume_file(save(tmp_path / "a.nii", affine, qform=affine)).decisions == ()


def test_a_bad_qform_beside_a_good_sform_does_not_matter(tmp_path):
    affine = affine_with(np.diag([1.0, 1, 2]))
    path = save(tmp_path / "a.nii", affine, qform=affine, header={"quatern_b": 7.0})
    assert lies_at(read_volume(path), affine)


@pytest.mark.parametrize(("unit", "in_mm"), [(1, 1000.0), (2, 1.0), (3, 0.001), (0, 1.0)])
def test_other_units_become_millimetres_and_it_is_said(tmp_path, unit, in_mm):
    affine = affine_with(np.diag([1.0, 1, 2]) / in_mm, np.array((1.0, 2, 3)) / in_mm)
    read = read_volume_file(save(tmp_path / "a.nii", affine, header={"xyzt_units": unit}))
    assert lies_at(read.volume, affine_with(np.diag([1.0, 1, 2]), (1, 2, 3)))
    assert len(read.decisions) == int(in_mm != 1)


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [(2.0, -1024.0, HU.T * 2.0 - 1024), (0.0, 5.0, HU.T), (np.nan, 5.0, HU.T), (1.0, 0.0, HU.T)],
)
def test_slope_and_intercept(tmp_path, slope, intercept, expected):
    header = {"scl_slope": slope, "scl_inter": intercept}
    volume = read_volume(save(tmp_path / "a.nii", affine_with(np.eye(3)), header=header))
    assert np.array_equal(array_of(volume), expected)


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "i8", "f4", ">f4", "f8"])
def test_every_plain_type_of_number_is_read(tmp_path, dtype):
    values = np.abs(HU).astype(dtype) % 200
    header = nibabel.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    image = nibabel.Nifti1Image(values, affine_with(np.eye(3)), header, dtype=values.dtype)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert np.array_equal(array_of(read_volume(tmp_path / "a.nii.gz")), values.T)


def test_fractions_of_hu_are_kept_until_they_are_rounded_and_said(tmp_path):
    values = HU + np.float32(0.25)
    volume = read_volume(save(tmp_path / "a.nii", affine_with(np.eye(3)), values))
    assert np.array_equal(array_of(volume), values.T)


def test_nifti_2_is_read(tmp_path):
    affine = affine_with(np.diag([1.0, 1, 2]))
    nibabel.save(nibabel.Nifti2Image(HU, affine), tmp_path / "a.nii.gz")
    assert lies_at(read_volume(tmp_path / "a.nii.gz"), affine)


def test_the_content_tells_whether_a_file_is_packed(tmp_path):
    plain = save(tmp_path / "a.nii.gz", affine_with(np.eye(3)))
    packed = tmp_path / "b.nii"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert np.array_equal(array_of(read_volume(plain)), array_of(read_volume(packed)))


def test_one_volume_of_four_dimensions_is_a_volume(tmp_path):
    path = save(tmp_path / "a.nii", affine_with(np.eye(3)), HU[..., None])
    assert read_volume(path).GetSize() == HU.shape == read_grid(path).GetSize()


SHEARED = np.eye(3) + np.eye(3, k=2) * 0.2
REFUSED = {
    "two time points": (dict(values=np.stack([HU, HU], -1)), "is not one 3D volume", "give one time point"),
    "five dimensions": (dict(values=HU[..., None, None]), "is not one 3D volume", "give one 3D volume"),
    "one slice without depth": (dict(values=HU[:, :, 0]), "is not one 3D volume", "give one 3D volume"),
    "affine with NaN": (dict(axes=np.diag([np.nan, 1, 1])), "not finite", "export it again"),
    "affine with infinity": (dict(axes=np.diag([np.inf, 1, 1])), "not finite", "export it again"),
    "spacing 0 in the sform": (dict(axes=np.diag([0.0, 1, 1])), "spacing of 0 x 1 x 1", "correct its header"),
    "axes in one plane": (dict(axes=np.ones((3, 3))), "singular", "export it again"),
    "sheared axes": (dict(axes=SHEARED), "sheared axes", "nibabel.processing.resample_to_output"),
    "neither form": (dict(sform=0), "where the patient lies", "dcm2niix"),
    "spacing 0 in the qform": (
        dict(sform=0, header={"qform_code": 1, "pixdim": [1, 1, 0, 1, 1, 1, 1, 1]}),
        "spacing of 1 x 0 x 1",
        "convert it from DICOM",
    ),
    "spacing below 0": (
        dict(sform=0, header={"qform_code": 1, "pixdim": [1, 1, -1, 1, 1, 1, 1, 1]}),
        "spacing of 1 x -1 x 1",
        "convert it from DICOM",
    ),
    "quaternion too long": (
        dict(sform=0, header={"qform_code": 1, "quatern_b": 2.0}),
        "no rotation",
        "again",
    ),
    "intercept NaN": (dict(header={"scl_slope": 1.0, "scl_inter": np.nan}), "scl_inter", "again"),
    "unknown units": (dict(header={"xyzt_units": 5}), "xyzt_units", "again"),
    "voxels before the header ends": (dict(header={"vox_offset": 100}), "begin at byte", "again"),
    "voxels behind the end": (dict(header={"vox_offset": 1e6}), "truncated", "copy it again"),
    "complex numbers": (dict(values=HU.astype(np.complex64)), "no plain numbers", "export it"),
    "unknown datatype": (dict(header={"datatype": 3333}), "datatype", "again"),
    "size 0": (dict(header={"dim": [3, 4, 0, 6, 1, 1, 1, 1]}), "its size is", "again"),
    "size that nobody can hold": (
        dict(header={"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}),
        "truncated",
        "copy",
    ),
    "a pair of files": (dict(header={"magic": b"ni1"}), "pair of files", "one NIfTI file"),
    "Analyze": (dict(header={"magic": b""}), "Analyze", "one NIfTI file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_sure_place_is_refused_with_the_way_out(tmp_path, name):
    given_, wrong, hint = REFUSED[name]
    rest = {key: value for key, value in given_.items() if key != "axes"}
    with np.errstate(all="ignore"):
        path = save(tmp_path / "a.nii", affine_with(given_.get("axes", np.eye(3))), **rest)
    with pytest.raises(VolumeError, match=wrong) as refused:
        read_volume(path)
    assert hint in refused.value.hint


def test_axes_that_are_nearly_perpendicular_are_made_so_and_said(tmp_path):
    axes = np.eye(3) + np.eye(3, k=2) * 0.01
    read = read_volume_file(save(tmp_path / "a.nii", affine_with(axes)))
    direction = np.array(read.volume.GetDirection()).reshape(3, 3)
    assert np.allclose(direction @ direction.T, np.eye(3), atol=1e-12)
    assert lies_at(read.volume, affine_with(axes), 0.05) and "axes made perpendicular" in read.decisions[0]


def itk_file(path, change, compressed=False):
    """An MHA or NRRD file whose header text is changed."""
    volume = sitk.GetImageFromArray(HU.T.copy())
    volume.SetSpacing((0.5, 0.75, 2.5))
    sitk.WriteImage(volume, str(path), useCompression=compressed)
    content = path.read_bytes()
    assert change[0] in content
    path.write_bytes(content.replace(*change))
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("lost", [1, 40])
@pytest.mark.parametrize("name", ["a.mha", "a.nrrd"])
def test_a_truncated_file_is_one_line_and_itk_prints_none(tmp_path, capfd, name, lost, compressed):
    if (name, compressed, lost) == ("a.nrrd", True, 1):
        pytest.skip("a byte of the checksum: all voxels are there")
    path = itk_file(tmp_path / name, (b"", b""), compressed)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(VolumeError, match="is truncated"):
        read_volume(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("a.mha", (b"TransformMatrix = 1 0 0", b"TransformMatrix = 1 0.5 0"), "sheared axes"),
        ("a.mha", (b"ElementSpacing = 0.5", b"ElementSpacing = 0"), "ElementSpacing = 0"),
        ("a.mha", (b"ElementSpacing = 0.5", b"ElementSpacing = -0.5"), "ElementSpacing = -0.5"),
        ("a.mha", (b"ElementSpacing = 0.5", b"ElementSpacing = x"), "ElementSpacing = x"),
        ("a.mha", (b"Offset = 0 0 0", b"Offset = nan 0 0"), "Offset = nan"),
        ("a.nrrd", (b"(0.5,0,0)", b"(0.5,0.25,0)"), "sheared axes"),
        ("a.nrrd", (b"(0.5,0,0)", b"(0,0,0)"), "cannot be read"),
        ("a.nrrd", (b"(0.5,0,0)", b"(0,0.75,0)"), "cannot be read|singular"),
    ],
)
def test_an_mha_or_nrrd_without_a_sure_place_is_refused(tmp_path, capfd, name, change, says):
    with pytest.raises(VolumeError, match=says):
        read_volume(itk_file(tmp_path / name, change))
    assert capfd.readouterr() == ("", "")


@given(
    values=npst.arrays(
        st.sampled_from([np.int16, np.uint8]), npst.array_shapes(min_dims=3, max_dims=3, max_side=5)
    ),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    origin=st.tuples(*[st.floats(-1500, 1500)] * 3),
    turn=st.integers(0, 200),
    packed=st.booleans(),
)
def test_what_is_written_is_read_alike_by_everybody(tmp_path_factory, values, spacing, origin, turn, packed):
    volume = sitk.GetImageFromArray(values)
    volume.SetSpacing(spacing)
    volume.SetOrigin(origin)
    direction = (
        np.eye(3) if turn % 3 == 0 else np.linalg.qr(np.random.default_rng(turn).normal(size=(3, 3)))[0]
    )
    volume.SetDirection(direction.ravel().tolist())
    path = tmp_path_factory.mktemp("v") / ("a.nii.gz" if packed else "a.nii")
    write_volume(volume, path)
    ours, itk, nib = read_volume(path), sitk.ReadImage(str(path)), nibabel.load(path)
    assert array_of(ours).dtype == values.dtype == nib.get_data_dtype()
    for back in (array_of(ours), array_of(itk), np.asanyarray(nib.dataobj).T):
        assert np.array_equal(back, values)
    assert (
        same_grid(ours, volume, 1e-3) and same_grid(itk, volume, 1e-2) and lies_at(volume, nib.affine, 1e-3)
    )
    assert np.abs(nib.header.get_qform() - nib.header.get_sform()).max() < 0.02
    assert nib.header.get_xyzt_units()[0] == "mm" and nib.header["pixdim"][0] in (1, -1)
    assert np.allclose(nib.header.get_zooms(), spacing, rtol=1e-6)
    before = path.read_bytes()
    write_volume(ours, path)
    assert path.read_bytes() == before or turn % 3  # an oblique place is rounded twice


def test_packed_files_carry_neither_date_nor_name(tmp_path):
    volume = sitk.GetImageFromArray(HU)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(volume, tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert first == second
    assert struct.unpack("<BBBBI", first[:8]) == (0x1F, 0x8B, 8, 0, 0)
    assert gzip.decompress(first)[352:] == HU.tobytes()


def test_a_flipped_bit_of_a_packed_file_is_noticed(tmp_path):
    write_volume(sitk.GetImageFromArray(HU), tmp_path / "a.nii.gz")
    whole = (tmp_path / "a.nii.gz").read_bytes()
    for at in range(len(whole) - 12, len(whole) - 4):
        (tmp_path / "a.nii.gz").write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(VolumeError, match="truncated or damaged"):
            read_volume(tmp_path / "a.nii.gz")


def result_or_one_line(read, path):
    """The law of a damaged file."""
    try:
        volume = read(path)
    except VolumeError as error:
        assert str(error).count("\n") == 0 and error.hint
    else:
        assert volume.GetDimension() == 3


damage = st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6)


@pytest.mark.fuzz
@given(damage=damage, packed=st.booleans(), kept=st.integers(0, 700))
def test_a_damaged_nifti_gives_a_volume_or_one_line(tmp_path_factory, damage, packed, kept):
    folder = tmp_path_factory.mktemp("d")
    content = bytearray(
        save(folder / "a.nii", affine_with(np.eye(3)), qform=affine_with(np.eye(3))).read_bytes()
    )
    for at, value in damage:
        content[at] = value
    content = bytes(content[: kept or None])
    (folder / "a.nii").write_bytes(gzip.compress(content) if packed else content)
    result_or_one_line(read_volume, folder / "a.nii")
    result_or_one_line(read_mask, folder / "a.nii")


@pytest.mark.fuzz
@given(damage=damage, name=st.sampled_from(["a.mha", "a.nrrd"]), compressed=st.booleans())
def test_a_damaged_mha_or_nrrd_gives_a_volume_or_one_line(tmp_path_factory, damage, name, compressed):
    path = itk_file(tmp_path_factory.mktemp("d") / name, (b"", b""), compressed)
    content = bytearray(path.read_bytes())
    for at, value in damage:
        content[at] = value
    path.write_bytes(content)
    result_or_one_line(read_volume, path)
