"""Folders of predicted masks against folders of references."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.engines.evaluate import COLUMNS, evaluate
from radiogen.errors import CaseError, ConfigError, OutputError, VolumeError


def put(path: Path, columns: slice, dtype: type = np.uint8, value: int = 1) -> Path:
    array = np.zeros((4, 6, 10), dtype)
    array[1:3, 2:4, columns] = value
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing((0.8, 1.1, 2.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(volume, str(path))
    return path


def say_prompt(case: Path, prompt: str) -> None:
    (case / "lesion.run.json").write_text(json.dumps({"options": {"prior": "box", "prompt": prompt}}))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """One case with Dice 1, one with 0.5, one empty prediction, one without reference, one not predicted."""
    predicted, reference = tmp_path / "predicted", tmp_path / "reference"
    for name, columns, prompt in (
        ("a", slice(2, 6), "oracle"),
        ("b", slice(4, 8), "oracle"),
        ("c", slice(0, 0), "auto"),
        ("d", slice(2, 6), ""),
    ):
        put(predicted / name / "lesion.nii.gz", columns)
        if prompt:
            say_prompt(predicted / name, prompt)
    for name in "abce":
        put(reference / name / "lesion.nii.gz", slice(2, 6))
    put(reference / "a" / "ct.nii.gz", slice(2, 6), np.int16, -500)
    return predicted, reference


def test_each_case_is_a_row_with_its_prompt(folders: tuple[Path, Path]) -> None:
    rows = {row["case_id"]: row for row in evaluate(*folders).rows}
    assert {name: row["dice"] for name, row in rows.items()} == {
        "a": 1,
        "b": 0.5,
        "c": 0,
        "d": None,
        "e": None,
    }
    assert [row["prompt"] for row in rows.values()] == [
        "oracle",
        "oracle",
        "auto",
        "unknown",
        "no prediction",
    ]
    assert all(tuple(row) == COLUMNS for row in rows.values())
    assert rows["b"]["surface_dice"] == 1  # moved by 1.6 mm, the tolerance is 2
    assert evaluate(*folders, tolerance_mm=1.0).rows[1]["surface_dice"] < 1


def test_cases_of_one_side_only_have_a_note_and_no_numbers(folders: tuple[Path, Path]) -> None:
    rows = evaluate(*folders).rows
    assert [row["note"] for row in rows[:3]] == [None, None, None]
    assert "reference has no" in rows[3]["note"]
    assert "prediction has no" in rows[4]["note"]
    assert all(row[name] is None for row in rows[3:] for name in COLUMNS[2:-1])


def test_floors_stand_beside_the_dice_and_need_the_ct_for_thresholds(folders: tuple[Path, Path]) -> None:
    first, second, *_ = evaluate(*folders).rows
    assert first["floor_box"] == second["floor_box"] == 1
    assert first["floor_threshold"] == 0  # all of it is at -500 HU
    assert second["floor_threshold"] is None


def test_the_summary_is_by_prompt(folders: tuple[Path, Path]) -> None:
    summary = {row["prompt"]: row for row in evaluate(*folders).summary}
    oracle = summary["oracle"]
    assert (oracle["n"], oracle["dice_mean"], oracle["dice_median"]) == (2, 0.75, 0.75)
    assert oracle["dice_sd"] == pytest.approx(0.3536)
    assert oracle["hd95_mm_median"] == pytest.approx(0.8)
    assert (oracle["lesions"], oracle["lesions_found"], oracle["lesions_false"]) == (2, 2, 0)
    assert (summary["auto"]["lesions_missed"], summary["auto"]["hd95_mm_median"]) == (1, float("inf"))
    assert summary["auto"]["dice_sd"] is None
    assert (summary["unknown"]["n"], summary["unknown"]["without_numbers"]) == (0, 1)
    assert summary["no prediction"]["without_numbers"] == 1


def test_rows_summary_and_record_are_written(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "results" / "evaluation.csv"
    evaluation = evaluate(*folders, out=out)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["dice"] for row in rows] == ["1.0", "0.5", "0.0", "", ""]
    assert rows[2]["hd95_mm"] == "inf"
    content = json.loads(out.with_suffix(".json").read_text(), parse_constant=pytest.fail)
    assert [row["prompt"] for row in content["prompts"]] == [row["prompt"] for row in evaluation.summary]
    record = json.loads((out.parent / "evaluation.run.json").read_text())
    assert set(record["outputs"]) == {"evaluation.csv", "evaluation.json"}


def test_two_files_can_be_compared(folders: tuple[Path, Path]) -> None:
    predicted, reference = (folder / "b" / "lesion.nii.gz" for folder in folders)
    (row,) = evaluate(predicted, reference).rows
    assert (row["case_id"], row["prompt"], row["dice"]) == ("lesion", "oracle", 0.5)


def test_a_mask_on_another_grid_is_named_with_the_way_out(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "b" / "lesion.nii.gz"
    sitk.WriteImage(sitk.Image([3, 4, 5], sitk.sitkUInt8), str(path))
    with pytest.raises(VolumeError, match=r"predicted.b.lesion.nii.gz: does not lie on the grid.*resample"):
        evaluate(*folders)


def test_folders_without_a_common_case_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    put(tmp_path / "other" / "z" / "lesion.nii.gz", slice(1, 2))
    with pytest.raises(CaseError, match="in common"):
        evaluate(folders[0], tmp_path / "other")


def test_a_folder_and_a_file_are_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(CaseError, match="two folders or two mask files"):
        evaluate(folders[0], folders[1] / "a" / "lesion.nii.gz")


def test_a_torn_run_record_is_refused(folders: tuple[Path, Path]) -> None:
    (folders[0] / "a" / "lesion.run.json").write_text('{"options"')
    with pytest.raises(CaseError, match=r"lesion\.run\.json"):
        evaluate(*folders)


@pytest.mark.parametrize("tolerance_mm", [-1.0, float("nan")])
def test_a_tolerance_that_is_no_distance_is_refused(folders: tuple[Path, Path], tolerance_mm: float) -> None:
    with pytest.raises(ConfigError, match="--tolerance"):
        evaluate(*folders, tolerance_mm=tolerance_mm)


def test_a_result_that_is_no_table_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="csv"):
        evaluate(*folders, out=tmp_path / "evaluation.json")


def test_progress_is_told(folders: tuple[Path, Path]) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(*folders, tick=lambda *what: told.append(what))
    assert [done for _, done, _ in told] == [0, 1, 2, 3, 4, 5]
