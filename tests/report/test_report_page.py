"""The page of a run: what it says, and that it needs nothing else."""

import json
import re
import shutil

from report.made_run import CASES, SCRIPT, write_content, write_rows, write_segmented
from report.page_reader import read, text_of, write_page

from radiogen.model.folder import model_hash, starter_model
from radiogen.report.flow import NO_CASE
from radiogen.report.page import ReportOptions, report


def test_mean_dice_stands_with_its_prompt_beside_the_floors(run_folder):
    text = text_of(write_page(run_folder))
    assert "Mean Dice, 2 cases · prompt oracle 0.750 median 0.750, quartiles 0.725 to 0.775" in text
    floor = "Above the floor (the ellipsoid in the box, 0.610) in"
    assert f"{floor} 2 of 2 cases; the mean difference is +0.140 (-0.495 to +0.775)" in text
    assert "the interval holds zero: no gain over the floor is shown." in text
    assert f"{floor} 0 of 1 cases; the mean difference is -0.110" in text  # prompt auto
    assert "1 evaluated row without a Dice" in text


def test_floors_are_of_the_cases_that_have_a_dice(run_folder):
    rows = [
        {"case_id": "a", "prompt": "auto", "dice": "0.6", "floor_box": "0.4"},
        {"case_id": "b", "prompt": "auto", "dice": "", "floor_box": "0.9"},
    ]
    write_rows(run_folder / "evaluation.csv", rows)
    text = text_of(write_page(run_folder))
    assert "Above the floor (the box filled, 0.400) in 1 of 1 cases; the mean difference is +0.200" in text


def test_cases_without_a_prediction_are_pointed_out(run_folder):
    rows = [
        {"case_id": "a", "prompt": "auto", "dice": "0.6", "hd95_mm": "inf", "note": ""},
        {"case_id": "b", "prompt": "no prediction", "dice": "", "hd95_mm": "", "note": "not there"},
    ]
    write_rows(run_folder / "evaluation.csv", rows)
    text = text_of(write_page(run_folder))
    assert "1 evaluated case has no Dice" in text and "∞" in text
    assert "prompt no prediction" not in text


def test_auc_stands_beside_clinical_variables_and_the_increment_has_an_interval(run_folder):
    text = text_of(write_page(run_folder))
    assert "0.810 interval 0.710 to 0.910" in text
    assert "clinical variables alone 0.780 0.680 to 0.880" in text
    assert "increment: clinical + features minus clinical +0.031 -0.044 to +0.106" in text
    assert "The interval holds zero" in text


def test_answers_come_before_everything_else(run_folder):
    sections = [attrs["id"] for tag, attrs in read(write_page(run_folder)).tags if tag == "section"]
    assert sections == [
        "answers", "patients", "cases", "lesions", "predictions", "segmentation", "egfr", "training",
        "features", "decisions", "steps", "records",
    ]  # fmt: skip


def test_patients_are_counted_and_failures_say_the_way_out(run_folder):
    text = text_of(write_page(run_folder))
    assert "3 ingested 1 failed 2 segmented 2 with known EGFR status 1 mutant, 1 wildtype" in text
    assert "Ingested, not segmented: R01-003." in text
    assert "R01-009 ingest holds no CT" in text and "give a CT" in text


def test_patients_that_the_model_learned_from_are_pointed_out(run_folder):
    text = text_of(write_page(run_folder))
    assert "The model learned from 1 of the evaluated patients: the figure flatters." in text
    assert "R01-077" not in text  # the number is enough


def test_a_prediction_is_never_a_bare_class(run_folder):
    text = text_of(write_page(run_folder))
    assert "0.62 (0.52 to 0.77)" in text and "mutant at 0.31" in text
    rows = [{"patient_id": "R01-001", "class": "mutant"}]
    write_rows(run_folder / "predictions.csv", rows)
    after = text_of(write_page(run_folder))
    row = after[after.index("call at the threshold") : after.index("Segmentation, case by case")]
    assert "mutant" not in row


def test_not_for_clinical_use_stands_at_the_top_and_at_the_bottom(run_folder):
    words = [word.strip() for word in read(write_page(run_folder)).words if word.strip()]
    assert words[1].startswith("Not for clinical use") and words[-1].startswith("Not for clinical use")


def test_strings_of_the_run_cannot_become_markup(run_folder):
    write_segmented(run_folder / "segmented", cases=("<img src=x onerror=alert(1)>",))
    page = write_page(run_folder)
    reader = read(page)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not [attrs for tag, attrs in reader.tags if "onerror" in attrs]
    assert SCRIPT in " ".join(reader.words)  # said, not run
    assert "<img src=x onerror=alert(1)>" in "".join(reader.words)


def test_the_page_needs_no_other_file(run_folder):
    page = write_page(run_folder)
    for tag, attrs in read(page).tags:
        for name in ("src", "href"):
            value = attrs.get(name) or ""
            assert value == "" or value.startswith(("data:image/", "#")), f"{tag} reaches for {value}"
    assert not re.search(r"https?://|url\(|@import", page.read_text(encoding="utf-8"))


def test_every_link_of_the_page_leads_somewhere(run_folder):
    tags = read(write_page(run_folder)).tags
    ids = {attrs["id"] for _, attrs in tags if "id" in attrs}
    assert {attrs["href"] for tag, attrs in tags if tag == "a"} == {f"#{name}" for name in ids}


def test_the_same_run_gives_the_same_bytes_even_with_the_page_inside(run_folder):
    first = report(run_folder, run_folder).read_bytes()
    assert (run_folder / "report.run.json").is_file()
    assert report(run_folder, run_folder).read_bytes() == first


def test_a_run_record_vouches_for_the_page(run_folder):
    page = write_page(run_folder)
    record = json.loads((page.parent / "page.run.json").read_text(encoding="utf-8"))
    assert record["verb"] == "report" and list(record["outputs"]) == ["page.html"]


def test_an_egfr_model_without_clinical_variables_is_reported(run_folder):
    path = run_folder / "egfr" / "validation.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= {"model": "volume", "headline": None, "permutation": None, "comparisons": []}
    del content["candidates"]["clinical"]
    write_content(path, content)
    assert "The increment over clinical variables could not be measured." in text_of(write_page(run_folder))


def test_the_increment_stands_beside_its_own_model_where_another_was_chosen(run_folder):
    path = run_folder / "egfr" / "validation.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["comparisons"][0]["p"] = 1e-9
    write_content(path, content | {"model": "volume"})
    text = text_of(write_page(run_folder))
    assert "volume 0.550" in text and "clinical variables + features 0.810 0.710 to 0.910" in text
    assert "< 0.001" in text and "0.000" not in text


def test_curves_and_layers_are_drawn(run_folder):
    tags = read(write_page(run_folder)).tags
    assert len([tag for tag, _ in tags if tag == "polyline"]) == 3  # loss, two prompts
    bars = [attrs for tag, attrs in tags if tag == "rect" and attrs.get("class") == "front"]
    assert [float(bar["width"]) for bar in bars[:2]] == [84.0, 52.5]  # 0.2 and 0.125 of 420


def test_a_training_of_one_epoch_is_drawn(run_folder):
    epochs = [{"epoch": 0, "loss": 0.0, "learning_rate": 0.1}, {"epoch": 1, "loss": float("nan")}]
    write_content(run_folder / "model" / "metrics.json", {"epochs": epochs})
    assert "loss by epoch" in str(read(write_page(run_folder)).tags)


def test_a_probability_says_what_it_rests_on(run_folder):
    text = text_of(write_page(run_folder))
    assert "It rests on the classifier clinical+features" in text
    assert "whose AUC on patients it had not seen was 0.81 (0.71 to 0.91)" in text
    shutil.move(run_folder / "egfr", run_folder.parent / "elsewhere")
    assert "What the probability is worth is not known here" in text_of(write_page(run_folder))
    options = ReportOptions(egfr=run_folder.parent / "elsewhere")
    again = text_of(report(run_folder, run_folder.parent / "page.html", options))
    assert "As the EGFR model was judged when it was trained, not on this run." in again


def test_the_page_names_the_model_that_made_the_masks(run_folder):
    digest = model_hash(starter_model())
    for case in CASES[:2]:
        record = {"verb": "segment", "model_hash": digest, "options": {"prior": "box"}, "radiogen": "0.1.0"}
        write_content(run_folder / "segmented" / case / "lesion.run.json", record)
    text = text_of(write_page(run_folder))
    assert f"segment: raseg-starter ({digest}) · prior box · radiogen 0.1.0" in text
    assert f"segment 2 raseg-starter ({digest}) prior box" in text


def test_patients_of_a_validation_stand_in_the_flow_where_they_add_up(run_folder):
    content = {"patients": 1, "left_out": {"without a known status": 1, NO_CASE: 7}, "candidates": {}}
    write_content(run_folder / "egfr" / "validation.json", content)
    (run_folder / "predictions.csv").unlink()
    text = text_of(write_page(run_folder))
    assert "2 patients stand behind these 1 left 1 × without a known status 1 patients were judged" in text
    write_content(run_folder / "egfr" / "validation.json", {**content, "patients": 9})
    assert "were judged out of fold" not in text_of(write_page(run_folder))
