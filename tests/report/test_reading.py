"""What counts as a run, in whole or in part, and what is refused."""

import shutil

import pytest
from report.made_run import SCRIPT, write_content, write_rows
from report.page_reader import text_of, write_page

from radiogen.errors import CaseError, TableError
from radiogen.report.page import report


def test_a_failure_that_two_tables_name_is_counted_once(run_folder):
    first = {
        "case_id": "R01-009",
        "step": "segment",
        "reason": f"holds no CT {SCRIPT}",
        "way_out": "give a CT",
    }
    later = {"case_id": "R01-003", "step": "segment", "reason": "has no outline", "way_out": "take lungs"}
    write_rows(run_folder / "segmented" / "failures.csv", [first, later])
    write_rows(run_folder / "features.failures.csv", [later | {"step": "extract-features"}])
    text = text_of(write_page(run_folder))
    assert "3 ingested 2 failed" in text and "R01-009 ingest holds no CT" in text
    assert "R01-003 segment has no outline take lungs" in text


@pytest.mark.parametrize(
    "part",
    ["cases", "segmented", "model", "pruned", "egfr", "evaluation.csv", "features.csv", "predictions.csv"],
)
def test_any_part_may_be_absent_or_be_all_there_is(run_folder, part):
    alone = run_folder.parent / "alone"
    alone.mkdir()
    source = run_folder / part
    if source.is_dir():
        shutil.move(source, alone / part)
    else:
        (alone / part).write_bytes(source.read_bytes())
        source.unlink()
    for run in (run_folder, alone):
        assert "Not for clinical use" in text_of(write_page(run))


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("segmented", "2 segmented"),
        ("segmented/R01-001", "1 segmented"),
        ("cases", "3 ingested"),
        ("cases/R01-001", "1 ingested"),
        ("egfr", "EGFR classifier"),
        ("model", "Training and pruning"),
        ("pruned", "encoder.0.conv.weight"),
    ],
)
def test_a_part_of_a_run_can_be_reported_by_itself(run_folder, inside, said):
    assert said in text_of(report(run_folder / inside, run_folder.parent / "page.html"))


def test_a_folder_with_nothing_to_report_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(CaseError, match="holds nothing to report") as caught:
        report(tmp_path, tmp_path / "page.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CaseError, match="is not a folder"):
        report(tmp_path / "absent", tmp_path / "page.html")


def test_damaged_files_are_refused(run_folder):
    (run_folder / "egfr" / "validation.json").write_text("{", encoding="utf-8")
    with pytest.raises(CaseError, match=r"validation\.json: is not JSON"):
        write_page(run_folder)
    write_content(run_folder / "egfr" / "validation.json", {})
    (run_folder / "evaluation.csv").write_text("case_id,dice\na\n", encoding="utf-8")
    with pytest.raises(TableError, match=r"evaluation\.csv"):
        write_page(run_folder)
    (run_folder / "evaluation.csv").unlink()
    (run_folder / "segmented" / "R01-001" / "lesion.png").write_bytes(b"no picture")
    with pytest.raises(CaseError, match=r"lesion\.png: is not a PNG"):
        write_page(run_folder)
