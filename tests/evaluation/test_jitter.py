"""Boxes that are off: what a network whose answer is known loses, and that the floors get the same boxes."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from radiogen.config import check_settings
from radiogen.errors import CaseError, ConfigError, ModelError, OutputError
from radiogen.evaluation import jitter as jitter_module
from radiogen.evaluation.jitter import JitterOptions, box_mm, describe_curve, jitter_curve, level_rows
from radiogen.io.cases import Case, find_cases
from radiogen.measures.detection import number_lesions
from radiogen.measures.floors import FLOORS, BoxFaces, exact_boxes
from radiogen.model.folder import Model
from radiogen.model.priors import box_round
from radiogen.volume import array_of

QUICK = JitterOptions(levels=(0.0, 0.2), draws=2)


class FillsTheBox(torch.nn.Module):
    """Says lesion wherever the prior is: the floor of the box filled, as a network."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, _image: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        return 40 * prior - 20


@pytest.fixture
def filling_model(tiny_model: Model) -> Model:
    fine = tiny_model.config.preprocessing.model_copy(
        update={"spacing_mm": (3.0, 3.0, 3.0), "size": (32, 32, 32)}
    )
    config = tiny_model.config.model_copy(update={"preprocessing": fine})
    return replace(tiny_model, network=FillsTheBox(), config=config)


@pytest.fixture
def case(made_cases: Path) -> Case:
    return find_cases(made_cases)[1]


def test_a_box_in_voxels_is_the_same_box_in_space(case: Case) -> None:
    outline = case.lesion()
    (faces,) = exact_boxes(number_lesions(array_of(outline)))
    ours, theirs = box_mm(faces, outline), box_round(outline, 1)
    assert ours.low == pytest.approx(theirs.low) and ours.high == pytest.approx(theirs.high)


def test_a_stray_voxel_gets_no_box_and_is_named(
    filling_model: Model, case: Case, made_cases: Path, tmp_path: Path
) -> None:
    untouched = jitter_curve(made_cases, filling_model, options=QUICK)
    cases = tmp_path / "cases"
    shutil.copytree(made_cases, cases)
    outline = case.lesion()
    outline[2, 2, 2] = 1
    sitk.WriteImage(outline, str(cases / case.folder.name / "lesion.nii.gz"))
    curve = jitter_curve(cases, filling_model, options=QUICK)
    assert curve.rows == [
        {**row, "stray_parts": int(row["case_id"] == case.case_id)} for row in untouched.rows
    ]
    assert "1 stray part of the outlines, below 3 mm, got no box." in describe_curve(curve)


def test_on_a_turned_grid_the_box_in_space_holds_the_corners() -> None:
    grid = sitk.Image(20, 20, 20, sitk.sitkUInt8)
    half = float(np.sqrt(0.5))
    grid.SetDirection((half, -half, 0, half, half, 0, 0, 0, 1))
    box = box_mm(BoxFaces((0.0, 0.0, 0.0), (4.0, 10.0, 10.0)), grid)
    assert box.low == pytest.approx((-10 * half, 0, 0))
    assert box.high == pytest.approx((10 * half, 20 * half, 4))


def test_a_network_that_fills_its_box_is_as_good_as_that_floor(
    filling_model: Model, made_cases: Path
) -> None:
    curve = jitter_curve(made_cases, filling_model, options=QUICK)
    assert [(row["jitter"], row["draw"], row["prompt"]) for row in curve.rows[:3]] == [
        (0.0, 0, "oracle"),
        (0.2, 0, "jitter"),
        (0.2, 1, "jitter"),
    ]
    assert all(row["dice"] == row["floor_box"] for row in curve.rows if row["jitter"] == 0)
    exact, shaken = curve.levels
    # A shaken face may lie near the middle of a voxel, and then a finer grid puts it on the other side.
    assert shaken["dice_mean"] == pytest.approx(shaken["floor_box_mean"], abs=0.05)
    assert (exact["cases"], exact["runs"], shaken["runs"]) == (4, 4, 8)
    assert exact["lost_mean"] == 0
    assert shaken["floor_box_mean"] < exact["floor_box_mean"]


def test_a_draw_depends_on_neither_the_other_levels_nor_the_other_cases(
    filling_model: Model, made_cases: Path, case: Case
) -> None:
    whole = [row for row in jitter_curve(made_cases, filling_model, options=QUICK).rows if row["jitter"]]
    alone = jitter_curve(case.folder, filling_model, options=JitterOptions(levels=(0.2,), draws=2))
    assert alone.rows == [row for row in whole if row["case_id"] == case.case_id]
    other = jitter_curve(case.folder, filling_model, options=JitterOptions(levels=(0.2,), draws=2, seed=1))
    assert [row["floor_box"] for row in other.rows] != [row["floor_box"] for row in alone.rows]


def test_a_loosened_box_is_longer_for_model_and_floors(filling_model: Model, case: Case) -> None:
    tight, loose = (
        jitter_curve(case.folder, filling_model, options=JitterOptions(levels=(0.0,), loosen=share)).rows[0]
        for share in (0.0, 0.5)
    )
    assert loose["floor_box"] < tight["floor_box"] - 0.2
    assert loose["dice"] < tight["dice"] - 0.1


def test_all_is_written_and_a_killed_run_goes_on(
    filling_model: Model, made_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "jitter.csv"
    curve = jitter_curve(made_cases, filling_model, out, QUICK)
    record = json.loads((tmp_path / "jitter.run.json").read_text())
    assert set(record["outputs"]) == {"jitter.csv", "jitter.json", "jitter.md", "jitter.png"}
    assert (record["options"]["levels"], record["model_hash"]) == ([0.0, 0.2], filling_model.hash)
    with out.open(newline="") as file:
        assert [float(row["dice"]) for row in csv.DictReader(file)] == [row["dice"] for row in curve.rows]
    first = out.read_bytes()
    kept = sorted((tmp_path / "jitter_cases").iterdir())
    kept[0].unlink()
    kept[1].write_text("{")
    ran: list[str] = []
    run_case = jitter_module._run_case
    monkeypatch.setattr(
        jitter_module, "_run_case", lambda case, *rest: ran.append(case.case_id) or run_case(case, *rest)
    )
    jitter_curve(made_cases, filling_model, out, QUICK)
    assert ran == [path.stem for path in kept[:2]]
    assert out.read_bytes() == first
    jitter_curve(made_cases, replace(filling_model, hash="other"), out, QUICK)
    assert len(ran) == 2 + 4


def rows_of(dice: dict[tuple[str, float], list[float]]) -> list[dict[str, object]]:
    return [
        {"case_id": case, "patient_id": case, "jitter": level, "draw": draw, "dice": value}
        | {"lesion_dice_mean": value, **dict.fromkeys(FLOORS, 0.5)}
        for (case, level), values in dice.items()
        for draw, value in enumerate(values)
    ]


def test_levels_by_hand() -> None:
    rows = rows_of({("a", 0.0): [0.9], ("b", 0.0): [0.7], ("a", 0.1): [0.8, 0.6], ("b", 0.1): [0.6, 0.2]})
    exact, shaken = level_rows(rows, seed=0, bootstrap=500)
    assert (exact["dice_mean"], shaken["dice_mean"], shaken["dice_lowest"]) == (0.8, 0.55, 0.2)
    assert (shaken["dice_low"], shaken["dice_high"]) == (0.4, 0.7)
    assert shaken["lost_mean"] == 0.25  # 0.2 and 0.3
    assert shaken["lost_low"] == pytest.approx(0.25 - 12.7062 * 0.0707107 / 2**0.5, abs=1e-3)
    assert (shaken["above_floor"], shaken["above_floor_of"]) == (1, 2)  # the mean of b lies below


def test_patients_seen_in_training_are_said(filling_model: Model, case: Case) -> None:
    for seen, said in (((case.patient_id,), "has seen 1 of 1"), (None, "does not say"), (("x",), None)):
        config = filling_model.config.model_copy(update={"patients_seen": seen})
        curve = jitter_curve(case.folder, replace(filling_model, config=config), options=QUICK)
        text = " ".join(describe_curve(curve))
        assert said in text if said else "seen" not in text


def test_cases_without_a_lesion_are_counted_and_alone_refused(
    filling_model: Model, made_cases: Path, tmp_path: Path
) -> None:
    import shutil

    cases = tmp_path / "cases"
    shutil.copytree(made_cases, cases)
    first, second, *rest = find_cases(cases)
    first.lesion_path.unlink()
    sitk.WriteImage(sitk.Cast(second.lesion() * 0, sitk.sitkUInt8), str(second.lesion_path))
    curve = jitter_curve(cases, filling_model, options=QUICK)
    assert (curve.without_lesion, {row["case_id"] for row in curve.rows}) == (2, {c.case_id for c in rest})
    with pytest.raises(CaseError, match="no case with a lesion"):
        jitter_curve(second.folder, filling_model, options=QUICK)
    rest[0].ct_path.write_bytes(b"")
    assert [failure[0] for failure in jitter_curve(cases, filling_model, options=QUICK).failures] == [
        rest[0].case_id
    ]


def test_a_model_without_boxes_and_a_wrong_ending_are_refused(filling_model: Model, made_cases: Path) -> None:
    config = filling_model.config.model_copy(update={"priors": ("lungs",)})
    with pytest.raises(ModelError, match="box"):
        jitter_curve(made_cases, replace(filling_model, config=config), options=QUICK)
    with pytest.raises(OutputError, match="csv"):
        jitter_curve(made_cases, filling_model, Path("jitter.png"), QUICK)


@pytest.mark.parametrize("levels", [[], [0.5], [-0.1], [float("nan")]])
def test_a_share_that_turns_boxes_inside_out_is_refused(levels: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"0 to below 0\.5"):
        check_settings(JitterOptions, {"levels": levels}, source="--jitter")
