"""Pictures of a CT with outlines."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from radiogen.drawing.panels import LUNG, FieldOfView, Panel, color_of, draw_panel
from radiogen.drawing.pictures import write_picture
from radiogen.drawing.planes import cut_planes, patient_axes
from radiogen.errors import VolumeError


def chest() -> tuple[sitk.Image, sitk.Image]:
    """A block of tissue with one lung on the patient's left and a lesion in it."""
    array = np.full((8, 20, 24), -1000, np.int16)
    array[:, 3:17, 2:22] = 40
    array[1:7, 5:15, 12:20] = -850
    array[3:5, 8:11, 15:18] = 20
    ct = sitk.GetImageFromArray(array)
    ct.SetSpacing((4.0, 5.0, 9.0))
    ct.SetOrigin((-40.0, -60.0, -300.0))
    lesion = sitk.BinaryThreshold(ct, 0, 30)
    return ct, lesion


def test_the_same_input_gives_the_same_bytes_however_the_voxels_are_stored(tmp_path: Path) -> None:
    ct, lesion = chest()
    write_picture(ct, {"lesion": lesion}, tmp_path / "a.png", title="R01-001")
    write_picture(
        sitk.DICOMOrient(ct, "PIR"),
        {"lesion": sitk.DICOMOrient(lesion, "PIR")},
        tmp_path / "b.png",
        title="R01-001",
    )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_state_of_pyplot_is_touched(tmp_path: Path) -> None:
    from matplotlib import pyplot

    ct, lesion = chest()
    write_picture(ct, {"lesion": lesion}, tmp_path / "a.png")
    assert pyplot.get_fignums() == []


def test_a_picture_without_lesion_has_no_close_up(tmp_path: Path) -> None:
    ct, lesion = chest()
    write_picture(ct, {"lesion": lesion}, tmp_path / "with.png")
    write_picture(ct, {"lesion": lesion * 0, "lungs": lesion * 0}, tmp_path / "without.png")
    with_lesion, without = imread(tmp_path / "with.png"), imread(tmp_path / "without.png")
    assert with_lesion.shape[1] / without.shape[1] == pytest.approx(3 / 2, abs=0.02)


def test_hostile_names_and_titles_are_drawn_as_text(tmp_path: Path) -> None:
    ct, lesion = chest()
    write_picture(ct, {"$\\frac$": lesion, "_肺\n": lesion}, tmp_path / "a.png", title="$x^{ 肺癌 " * 30)
    assert (tmp_path / "a.png").stat().st_size > 0


def test_a_mask_on_another_grid_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    ct, lesion = chest()
    lesion.SetOrigin((0.0, 0.0, 0.0))
    with pytest.raises(VolumeError, match="mask lesion: does not lie on the grid"):
        write_picture(ct, {"lesion": lesion}, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_point_outside_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    ct, lesion = chest()
    with pytest.raises(VolumeError, match="outside"):
        write_picture(ct, {"lesion": lesion}, tmp_path / "a.png", at_mm=(0.0, 0.0, 500.0))
    assert list(tmp_path.iterdir()) == []


def test_a_volume_of_one_slice_can_be_drawn(tmp_path: Path) -> None:
    ct, lesion = chest()
    write_picture(ct[:, :, 3:4], {"lesion": lesion[:, :, 3:4]}, tmp_path / "a.png")
    assert imread(tmp_path / "a.png").shape[2] == 4


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_outline_is_drawn_round_the_lesion(plane: str) -> None:
    ct, lesion = chest()
    planes = cut_planes(ct, {"lesion": lesion}, (16, 9, 3), patient_axes(ct))
    width, height = planes[plane].size_mm
    figure = Figure(figsize=(width / 20, height / 20), dpi=100)  # 5 pixels a millimetre
    canvas = FigureCanvasAgg(figure)
    draw_panel(
        figure.add_axes((0, 0, 1, 1)),
        Panel(planes[plane], LUNG, FieldOfView(0, width, 0, height)),
        ["lesion"],
        height / width,
    )
    canvas.draw()
    red, green, blue, _ = np.moveaxis(np.asarray(canvas.buffer_rgba()).astype(int), 2, 0)
    rows, columns = np.nonzero((abs(red - 230) < 30) & (abs(green - 159) < 30) & (blue < 40))
    drawn = [columns.min() / 5, columns.max() / 5, rows.min() / 5, rows.max() / 5]
    x, y, z = (60.0, 72.0), (40.0, 55.0), (27.0, 45.0)  # z counted from the top slice downwards
    wanted = {"axial": (*x, *y), "coronal": (*x, *z), "sagittal": (*y, *z)}[plane]
    assert drawn == pytest.approx(wanted, abs=0.6)


def test_masks_keep_colours_that_can_be_told_apart() -> None:
    names = ["lesion", "nodule", "reference", "airway", "lungs"]
    assert len({color_of(name, names) for name in names}) == len(names)


def test_a_real_chest_is_drawn(shared_data: Path, tmp_path: Path) -> None:
    ct = sitk.ReadImage(str(shared_data / "pyradiomics_lung1" / "lung1_image.nrrd"))
    lesion = sitk.ReadImage(str(shared_data / "pyradiomics_lung1" / "lung1_label.nrrd"))
    write_picture(ct, {"lesion": sitk.Cast(lesion != 0, sitk.sitkUInt8)}, tmp_path / "a.png")
    assert imread(tmp_path / "a.png").shape[1] > 1000
