"""The pictures of a validation."""

import shutil

import numpy as np
from matplotlib.image import imread

from radiogen.drawing.egfr_plots import STYLES
from radiogen.egfr.train import plot_validation

NAMES = ("roc", "precision_recall", "calibration", "decision_curve", "confusion")


def test_each_picture_is_there_whole_and_the_same_a_second_time(trained, tmp_path):
    for name in ("oof.csv", "validation.json"):
        shutil.copy(trained.folder / name, tmp_path / name)
    written = plot_validation(tmp_path)
    assert [path.stem for path in written] == list(NAMES)
    for path in written:
        picture = imread(path)[:, :, :3]
        assert picture.shape == (540, 600, 3)
        assert np.ptp(picture) > 0.5
        assert path.read_bytes() == (trained.folder / path.name).read_bytes()


def test_the_lines_are_told_apart_without_colour():
    assert len({line for _, line in STYLES}) == len(STYLES)
