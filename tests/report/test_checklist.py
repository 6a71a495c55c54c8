"""Reporting checklists: all their items, filled where the run has evidence that can be found again."""

import json
import re

import pytest
from report.made_run import SCRIPT

from radiogen.errors import ConfigError
from radiogen.report.checklist import LISTS, read_list, write_checklist
from radiogen.report.evidence import FORMATS, FUNCTIONS, PLACEHOLDER, RunFiles, look_up, read_entries
from radiogen.report.page import ReportOptions
from radiogen.report.reading import Run

NUMBERS = {
    "claim": [str(number) for number in range(1, 45)],
    "clear": [str(number) for number in range(1, 59)],
    "tripod-ai": [
        "1",
        "2",
        "3a",
        "3b",
        "3c",
        "4",
        "5a",
        "5b",
        "6a",
        "6b",
        "6c",
        "7",
        "8a",
        "8b",
        "8c",
        "9a",
        "9b",
        "9c",
        "10",
        "11",
        "12a",
        "12b",
        "12c",
        "12d",
        "12e",
        "12f",
        "12g",
        "13",
        "14",
        "15",
        "16",
        "17",
        "18a",
        "18b",
        "18c",
        "18d",
        "18e",
        "18f",
        "19",
        "20a",
        "20b",
        "20c",
        "21",
        "22",
        "23a",
        "23b",
        "24",
        "25",
        "26",
        "27a",
        "27b",
        "27c",
    ],
}


def rows_of(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"\| \d", line)]
    cells = (re.split(r"(?<!\\)\|", line)[1:-1] for line in lines)
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_all_its_numbers_in_order_and_only_evidence_that_exists(name):
    items = [pair for section in read_list(name)["sections"].values() for pair in section.items()]
    assert [number for number, _ in items] == NUMBERS[name]
    for _, (words, *wanted) in items:
        assert words and all(each in read_entries() or each in FUNCTIONS for each in wanted)


@pytest.mark.parametrize("name", read_entries())
def test_each_sentence_names_its_place_and_only_what_the_evaluator_knows(name, tmp_path):
    sources = {*RunFiles(Run("empty"), tmp_path).sources, "row"}
    verbs = {"ingest", "split", "train", "segment", "extract-features"}
    for entry in read_entries()[name]:
        if isinstance(entry, str):
            assert entry in read_entries() or entry in FUNCTIONS
            continue
        assert entry.keys() <= {"say", "where", "if", "known", "unless", "each", "file"}
        assert entry["say"] and entry["where"]
        for key, form, _ in PLACEHOLDER.findall(entry["say"] + entry["where"]):
            assert key.split(".")[0] in sources | verbs and (not form or form in FORMATS)


def test_a_key_reaches_into_rows_and_says_none_where_there_is_nothing():
    assert look_up({"rows": [{"a": {"b": 1}}, {}]}, "rows.a.b") == [1, None]
    assert look_up({"a": 1}, "a.b.c") is None


@pytest.mark.parametrize("name", LISTS)
def test_each_item_is_answered_with_its_place_or_left_to_the_authors(name, run_folder, tmp_path):
    rows = rows_of(write_checklist(name, run_folder, tmp_path / "list.md", ReportOptions()))
    assert list(rows) == NUMBERS[name]
    for words, answer, where in rows.values():
        assert words and (answer == "*for the authors*") == (where == "")
    answered = sum(where != "" for _, _, where in rows.values())
    assert 10 < answered < len(rows)


def test_figures_stand_with_the_file_and_key_they_come_from(run_folder, tmp_path):
    rows = rows_of(write_checklist("claim", run_folder, tmp_path / "list.md", ReportOptions()))
    _, answer, where = rows["37"]
    assert "clinical+features 0.810 (0.710 to 0.910)" in answer
    assert "`egfr/validation.json: candidates.clinical+features`" in where
    validation = json.loads((run_folder / "egfr" / "validation.json").read_text())
    assert validation["candidates"]["clinical+features"]["auc"]["value"] == 0.81
    assert "2 × no lesion" not in rows["35"][1] and "1 left" in rows["35"][1]
    assert rows["44"][1] == "*for the authors*"


def test_strings_of_the_run_stay_in_their_cell(run_folder, tmp_path):
    path = write_checklist("claim", run_folder, tmp_path / "list.md", ReportOptions())
    text = path.read_text(encoding="utf-8")
    assert SCRIPT not in text and "&lt;script&gt;" in text
    assert json.loads((tmp_path / "list.run.json").read_text())["options"] == {"checklist": "claim"}


def test_an_unknown_list_is_refused_by_the_names_of_those_there_are(run_folder, tmp_path):
    with pytest.raises(ConfigError, match="take claim, tripod-ai, clear"):
        write_checklist("stard", run_folder, tmp_path / "list.md", ReportOptions())
