"""Folders of predicted masks against folders of references."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from radiogen.config import check_settings
from radiogen.errors import CaseError, ConfigError, OutputError, VolumeError
from radiogen.evaluation import case as case_module
from radiogen.evaluation.case import EvaluateOptions
from radiogen.evaluation.evaluate import COLUMNS, LESION_COLUMNS, evaluate
from radiogen.evaluation.sentences import describe_prompt as sentences_of


def put(path: Path, columns: slice, dtype: type = np.uint8, value: int = 1) -> Path:
    array = np.zeros((4, 6, 10), dtype)
    array[1:3, 2:4, columns] = value
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing((0.8, 1.1, 2.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(volume, str(path))
    return path


def describe_prompt(case: Path, prompt: str) -> None:
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
            describe_prompt(predicted / name, prompt)
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
    assert evaluate(*folders, options=EvaluateOptions(tolerance_mm=1.0)).rows[1]["surface_dice"] < 1


def test_cases_of_one_side_only_have_a_note_and_no_numbers(folders: tuple[Path, Path]) -> None:
    rows = evaluate(*folders).rows
    assert [row["note"] for row in rows[:3]] == [None, None, None]
    assert "reference has no" in rows[3]["note"]
    assert "prediction has no" in rows[4]["note"]
    assert all(row[name] is None for row in rows[3:] for name in COLUMNS[3:-1])


def test_floors_stand_beside_the_dice_and_need_the_ct_for_thresholds(folders: tuple[Path, Path]) -> None:
    first, second, *_ = evaluate(*folders).rows
    assert first["floor_box"] == second["floor_box"] == 1
    assert first["floor_threshold"] == 0  # all of it is at -500 HU
    assert second["floor_threshold"] is None


def test_the_summary_is_by_prompt(folders: tuple[Path, Path]) -> None:
    summary = {row["prompt"]: row for row in evaluate(*folders).summary}
    oracle = summary["oracle"]
    assert (oracle["n"], oracle["dice_mean"], oracle["dice_median"]) == (2, 0.75, 0.75)
    assert oracle["dice_sd"] == pytest.approx(0.5**0.5 / 2)
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
    beside = ("evaluation_lesions.csv", "evaluation_size.png", "evaluation_volume.png")
    assert set(record["outputs"]) == {"evaluation.csv", "evaluation.json", "evaluation.md", *beside}
    assert {path.name for path in out.parent.iterdir()} == {*record["outputs"], "evaluation.run.json"}
    with (out.parent / "evaluation_lesions.csv").open(newline="") as file:
        lesions = list(csv.DictReader(file))
    assert [row["outcome"] for row in lesions] == ["found", "found", "missed"]
    assert tuple(lesions[0]) == LESION_COLUMNS


def test_two_files_can_be_compared(folders: tuple[Path, Path]) -> None:
    predicted, reference = (folder / "b" / "lesion.nii.gz" for folder in folders)
    (row,) = evaluate(predicted, reference).rows
    assert (row["case_id"], row["prompt"], row["dice"]) == ("lesion", "oracle", 0.5)


def test_a_mask_on_another_grid_is_named_with_the_way_out(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "b" / "lesion.nii.gz"
    sitk.WriteImage(sitk.Image([3, 4, 5], sitk.sitkUInt8), str(path))
    with pytest.raises(VolumeError, match=r"predicted.b.lesion.nii.gz: does not lie on the grid.*resample"):
        evaluate(path, folders[1] / "b" / "lesion.nii.gz")


def test_one_bad_case_stops_no_cohort(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / "a" / "lesion.run.json").write_text('{"options"')
    sitk.WriteImage(sitk.Image([3, 4, 5], sitk.sitkUInt8), str(folders[0] / "b" / "lesion.nii.gz"))
    found = evaluate(*folders, out=tmp_path / "rows.csv")
    assert [case_id for case_id, _, _ in found.failures] == ["a", "b"]
    assert [(row["prompt"], row["dice"]) for row in found.rows[:3]] == [
        ("unknown", None), ("oracle", None), ("auto", 0.0)
    ]  # fmt: skip
    assert "lesion.run.json" in found.rows[0]["note"] and "grid" in found.rows[1]["note"]
    assert (tmp_path / "rows_failures.csv").read_text().count("\n") == 3


def test_folders_without_a_common_case_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    put(tmp_path / "other" / "z" / "lesion.nii.gz", slice(1, 2))
    with pytest.raises(CaseError, match="in common"):
        evaluate(folders[0], tmp_path / "other")


def test_a_folder_and_a_file_are_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(CaseError, match="two folders or two mask files"):
        evaluate(folders[0], folders[1] / "a" / "lesion.nii.gz")


@pytest.mark.parametrize(
    ("name", "value"),
    [("tolerance_mm", -1.0), ("tolerance_mm", float("nan")), ("least_iou", 0), ("size_bins_mm", [20, 10])],
)
def test_a_rule_that_cannot_be_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        check_settings(EvaluateOptions, {name: value}, source="evaluate")


def test_a_result_that_is_no_table_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="csv"):
        evaluate(*folders, out=tmp_path / "evaluation.json")


def test_progress_is_told(folders: tuple[Path, Path]) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(*folders, progress=lambda *what: told.append(what))
    assert [done for _, done, _ in told] == [0, 1, 2, 3, 4, 5]


def lay(path: Path, *parts: tuple[int, int, int]) -> Path:
    """A mask of columns (start, end, label) on 1 mm voxels, 3 x 3 of them thick, 80 columns wide."""
    array = np.zeros((3, 3, 80), np.uint8)
    for start, end, label in parts:
        array[:, :, start:end] = label
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def test_lesions_are_matched_measured_and_put_into_bins(tmp_path: Path) -> None:
    predicted = lay(tmp_path / "p.nii.gz", (0, 4, 1), (20, 35, 1), (70, 72, 1))
    reference = lay(tmp_path / "r.nii.gz", (0, 8, 1), (20, 35, 2), (50, 62, 3))
    found = evaluate(predicted, reference)
    lesions = [
        (row["outcome"], row["lesion"], row["predicted_lesion"], row["size_bin"]) for row in found.lesions
    ]
    assert lesions == [
        ("found", 1, 1, "< 10 mm"),
        ("found", 2, 2, "10-20 mm"),
        ("missed", 3, None, "10-20 mm"),
        ("false", None, 3, "< 10 mm"),
    ]
    first, _, missed, invented = found.lesions
    assert (first["diameter_mm"], first["dice"], first["iou"]) == (pytest.approx(72**0.5), 2 / 3, 0.5)
    assert (first["volume_error_ml"], first["volume_error_share"]) == (pytest.approx(-0.036), -0.5)
    assert (missed["dice"], missed["hd95_mm"], missed["predicted_ml"]) == (0, float("inf"), 0)
    assert (invented["dice"], invented["predicted_ml"], invented["floor_box"]) == (
        None,
        pytest.approx(0.018),
        None,
    )
    small, middle, *_ = found.size_bins
    assert (small["lesions"], small["found"], small["false"]) == (1, 1, 1)
    assert (middle["lesions"], middle["found_share"]) == (2, 0.5)
    assert (middle["dice_mean"], middle["dice_of_found_mean"]) == (0.5, 1.0)
    (row,) = found.rows
    assert (row["f1"], row["panoptic_quality"]) == (pytest.approx(4 / 6), 0.5)


def test_stray_voxels_of_a_reference_are_no_missed_lesions_and_are_named(tmp_path: Path) -> None:
    """A lesion that is found, one that is not, and two stray parts: of 9 voxels (0.009 ml) and of one."""
    reference = lay(tmp_path / "r.nii.gz", (0, 8, 1), (20, 35, 2), (50, 51, 3))
    mask = sitk.ReadImage(str(reference))
    mask[70, 1, 1] = 1
    sitk.WriteImage(mask, str(reference))
    found = evaluate(lay(tmp_path / "p.nii.gz", (0, 8, 1)), reference)
    (row,) = found.rows
    assert (row["lesions"], row["lesions_found"], row["lesions_missed"], row["stray_parts"]) == (2, 1, 1, 2)
    assert row["note"] == "2 stray parts of the reference (0.0100 ml) not counted as lesions"
    assert row["dice"] == 2 * 72 / (72 + 72 + 135 + 10)  # the Dice is that of all voxels
    assert [one["outcome"] for one in found.lesions] == ["found", "missed"]
    assert "1 of 2 lesions found (2 stray parts below 3 mm not counted)" in described(found.summary)
    # With the strays go the lesions that were predicted for them: a mask agrees with itself.
    (same,) = evaluate(reference, reference).rows
    assert (same["lesions_found"], same["lesions_false"], same["f1"]) == (2, 0, 1)


def described(summary: list[dict[str, object]]) -> str:
    return " ".join(sentence for row in summary for sentence in sentences_of(row))


@pytest.mark.parametrize("dice", [0.63855, 0.7124501, 0.0])
def test_figures_are_rounded_once(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dice: float
) -> None:
    """0.63855 was 0.6385 in the table, and 0.638 where that was printed with three digits."""
    measured = case_module.overlap_of
    monkeypatch.setattr(case_module, "overlap_of", lambda *args: replace(measured(*args), dice=dice))
    found = evaluate(folders[0], folders[1], out=tmp_path / "evaluation.csv")
    assert found.rows[0]["dice"] == found.lesions[0]["dice"] == dice
    assert f"Dice {dice:.3f}" in described(found.summary)
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        assert float(next(csv.DictReader(file))["dice"]) == dice
    assert f"| Dice, median | {dice:.3f} |" in (tmp_path / "evaluation.md").read_text()


def test_the_edges_of_the_bins_can_be_set(tmp_path: Path) -> None:
    mask = lay(tmp_path / "r.nii.gz", (0, 8, 1), (20, 35, 2))
    found = evaluate(mask, mask, options=EvaluateOptions(size_bins_mm=(8, 12)))
    assert [row["size_bin"] for row in found.lesions] == ["8-12 mm", ">= 12 mm"]
    assert [row["size_bin"] for row in found.size_bins] == ["< 8 mm", "8-12 mm", ">= 12 mm"]


def cohort(tmp_path: Path, prompt: str, scores: bool = True) -> tuple[Path, Path]:
    """Two scans: one lesion found with 0.9 and one false with 0.5; no lesion, and one false with 0.95."""
    predicted, reference = tmp_path / "p", tmp_path / "r"
    lay(predicted / "one" / "lesion.nii.gz", (0, 8, 1), (30, 34, 2))
    lay(predicted / "two" / "lesion.nii.gz", (0, 8, 1))
    lay(reference / "one" / "lesion.nii.gz", (0, 8, 1), (50, 60, 2))
    lay(reference / "two" / "lesion.nii.gz")
    for name, listed in (("one", "1,0.9\n2,0.5\n"), ("two", "1,0.95\n")):
        describe_prompt(predicted / name, prompt)
        table = f"lesion,score\n{listed}" if scores else "lesion\n1\n2\n"
        (predicted / name / "lesions.csv").write_text(table)
    return predicted, reference


def test_scores_give_a_froc(tmp_path: Path) -> None:
    found = evaluate(*cohort(tmp_path, "auto"))
    (curve,) = found.froc
    assert (curve["scans"], curve["sensitivity_at_0.25"], curve["sensitivity_at_0.5"]) == (2, 0, 0.5)
    assert [row["score"] for row in found.lesions] == [0.9, None, 0.5, 0.95]


@pytest.mark.parametrize(("prompt", "scores"), [("auto", False), ("oracle", True)])
def test_without_scores_or_where_the_prompt_tells_there_is_no_froc(
    tmp_path: Path, prompt: str, scores: bool
) -> None:
    assert evaluate(*cohort(tmp_path, prompt, scores)).froc == []


def test_a_scan_without_a_lesion_counts_by_its_false_lesions_alone(tmp_path: Path) -> None:
    found = evaluate(*cohort(tmp_path, "auto"))
    empty = found.rows[1]
    assert (empty["dice"], empty["hd95_mm"], empty["lesions_false"], empty["f1"]) == (None, None, 1, 0)
    assert "no lesion in the reference" in empty["note"]
    (summary,) = found.summary
    assert (summary["scans"], summary["n"], summary["scans_without_lesion"]) == (2, 1, 1)
    assert (summary["lesions_false"], summary["false_per_scan"]) == (2, 1.0)


def test_a_table_beside_the_mask_makes_every_label_one_lesion(tmp_path: Path) -> None:
    predicted, reference = cohort(tmp_path, "auto")
    lay(predicted / "one" / "lesion.nii.gz", (0, 3, 1), (4, 8, 1))
    assert evaluate(predicted, reference).rows[0]["lesions_fragments"] == 0
    (predicted / "one" / "lesions.csv").unlink()
    assert evaluate(predicted, reference).rows[0]["lesions_fragments"] == 1


def test_a_damaged_table_of_lesions_is_refused(tmp_path: Path) -> None:
    predicted, reference = cohort(tmp_path, "auto")
    for content in ("lesion,score\n1,high\n", "lesion,score\n1,nan\n", "label\n1\n"):
        (predicted / "one" / "lesions.csv").write_text(content)
        with pytest.raises(CaseError, match=r"lesions\.csv"):
            evaluate(predicted / "one" / "lesion.nii.gz", reference / "one" / "lesion.nii.gz")


def test_patients_are_those_of_the_manifest_and_share_an_interval(made_cases: Path, tmp_path: Path) -> None:
    found = evaluate(made_cases, made_cases, options=EvaluateOptions(loosen=0.1))
    assert [row["patient_id"].lower() for row in found.rows] == [row["case_id"] for row in found.rows]
    (summary,) = found.summary
    assert summary["above_floor"] == summary["above_floor_of"] == 4
    best = summary["best_floor"]
    gap = [1 - row[best] for row in found.rows]
    assert summary["over_floor_mean"] == pytest.approx(np.mean(gap), abs=1e-3)
    assert summary["over_floor_low"] < summary["over_floor_mean"] < summary["over_floor_high"]


def test_the_page_says_the_prompt_the_floor_and_what_is_no_result(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    evaluate(*folders, out=tmp_path / "rows.csv")
    page = (tmp_path / "rows.md").read_text()
    assert "## Prompt: oracle" in page and "an upper bound" in page
    assert "Above the floor (the box filled, 1.000) in 0 of 2 cases" in page
    assert "that they were found is no result" in page
    assert "1 case without a prediction" in page
    assert "![rows_size](rows_size.png)" in page and "not for clinical use" in page
