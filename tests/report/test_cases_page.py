"""A page of many cases with their pictures, and a page of one of them."""

import json
import re
import shutil

import pytest
from browser import open_page
from report.made_run import write_content, write_rows
from report.page_reader import read, text_of

from radiogen.errors import CaseError
from radiogen.io.cases import find_cases, read_manifest, write_manifest
from radiogen.io.nifti import read_volume, write_volume
from radiogen.report.page import ReportOptions, report
from radiogen.report.qc import examine_all
from radiogen.report.stills import shrink_pictures
from radiogen.volume import array_of, volume_like

LEAST_LESION = {"lesion": 1, "volume_ml": 4.5, "longest_diameter_mm": 23.4}


@pytest.fixture(scope="module")
def cohort(made_cases, tmp_path_factory):
    """A run over four made cases: one of split train, one that failed, one without a lesion, one whole."""
    run = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(made_cases, run / "cases")
    rows = read_manifest(run / "cases")
    for row, split in zip(rows, ("train", "test", "test", "test"), strict=True):
        row["split"] = split
    write_manifest(run / "cases", rows)
    failure = {
        "case_id": rows[1]["case_id"],
        "step": "segment",
        "reason": "x.nii.gz: holds no box",
        "way_out": "draw",
    }
    write_rows(run / "segmented" / "failures.csv", [failure])
    write_rows(
        run / "cases" / "failures.csv", [{**failure, "case_id": "gone", "step": "ingest", "reason": "gaps"}]
    )
    for case in find_cases(run / "cases")[2:]:
        folder = run / "segmented" / case.case_id
        lesion = case.lesion()
        empty = case is not find_cases(run / "cases")[3] and case.case_id == rows[2]["case_id"]
        labels = array_of(lesion) * (0 if empty else 1)
        folder.mkdir(parents=True)
        write_volume(volume_like(labels, lesion), folder / "lesion.nii.gz")
        write_content(
            folder / "lesion.run.json", {"verb": "segment", "model_hash": "0123", "options": {"prior": "box"}}
        )
        found = [] if empty else [{"case_id": case.case_id, **LEAST_LESION}]
        (folder / "lesions.csv").write_text("case_id,lesion,volume_ml,longest_diameter_mm\n")
        if found:
            write_rows(folder / "lesions.csv", found)
    return run


def ids(run):
    return [row["case_id"] for row in read_manifest(run / "cases")]


@pytest.fixture(scope="module")
def page(cohort, tmp_path_factory):
    return report(cohort, tmp_path_factory.mktemp("page") / "page.html")


def test_every_case_has_its_picture_the_most_suspicious_first(cohort, page):
    tags = read(page).tags
    shown = [attrs["id"] for tag, attrs in tags if tag == "figure" and attrs.get("id")]
    assert sorted(shown) == sorted(f"case-{case}" for case in ids(cohort))
    assert shown[0] == f"case-{ids(cohort)[2]}", "the one in which no lesion was found"
    weights = [int(level) for level in re.findall(r'class="case l(\d)"', page.read_text(encoding="utf-8"))]
    assert weights == sorted(weights, reverse=True)
    assert text_of(page).count("no lesion was found") >= 1


def test_the_flow_says_who_left_and_why_and_adds_up(cohort, page):
    text = text_of(page)
    assert "5 scans were given" in text and "1 left 1 × gaps 4 became cases" in text
    assert "2 left 1 × holds no box 1 × split “train” was not selected 2 were segmented" in text
    assert "1 left 1 × no lesion was found 1 have a lesion" in text


def test_distributions_are_drawn_where_three_have_a_number(page, cohort, tmp_path):
    assert "distributions over the cohort" in str(read(page).tags)
    one = report(cohort / "cases" / ids(cohort)[0], tmp_path / "one.html")
    assert "distributions over the cohort" not in str(read(one).tags)


def test_a_page_of_many_carries_no_script_and_starts_without_complaint(browser, page):
    assert "script" not in {tag for tag, _ in read(page).tags}
    watched = open_page(browser, page.as_uri())
    assert watched.complaints == []
    assert {url for url in watched.requests if not url.startswith("data:")} == {page.as_uri()}
    watched.page.close()


def test_one_case_of_a_run_has_a_page_with_a_viewer(cohort, tmp_path):
    case = ids(cohort)[3]
    page = report(cohort, tmp_path / "one.html", ReportOptions(case=case))
    text = text_of(page)
    assert f"{case} · run" in text and "Viewer" in text and ids(cohort)[2] not in text
    about = re.search(r'id="viewer-about">(.*?)</script>', page.read_text(encoding="utf-8")).group(1)
    assert [mask["name"] for mask in json.loads(about)["masks"]] == ["lungs", "reference", "lesion"]
    with pytest.raises(CaseError, match="is not in this run"):
        report(cohort, tmp_path / "none.html", ReportOptions(case="nobody"))
    assert not (tmp_path / "none.html").exists()


def test_cases_that_lie_elsewhere_are_taken_from_there(cohort, tmp_path):
    segmented = shutil.copytree(cohort / "segmented", tmp_path / "masks")
    assert "The CTs are not at hand" in text_of(report(segmented, tmp_path / "page.html"))
    with_ct = report(segmented, tmp_path / "page.html", ReportOptions(cases=cohort / "cases"))
    assert "the most suspicious first" in text_of(with_ct)


def test_a_cohort_run_remembers_where_its_cases_are(cohort, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(cohort / "segmented", run / "segmented")
    (run / ".cohort").mkdir()
    write_content(run / ".cohort" / "settings.json", {"source": str(cohort / "cases"), "egfr": None})
    page = report(run, tmp_path / "page.html")
    text = text_of(page)
    assert "the most suspicious first" in text and "2 left 1 × holds no box" in text
    assert str(cohort) not in page.read_text(encoding="utf-8")
    write_content(run / ".cohort" / "settings.json", {"source": str(tmp_path / "gone")})
    assert "The CTs are not at hand" in text_of(report(run, tmp_path / "page.html"))


def test_a_mask_of_another_grid_is_said_and_stops_nothing(cohort, tmp_path):
    run = shutil.copytree(cohort, tmp_path / "run")
    path = run / "segmented" / ids(cohort)[3] / "lesion.nii.gz"
    write_volume(read_volume(path)[:-2, :, :], path)
    text = text_of(report(run, tmp_path / "page.html"))
    assert "cannot be read: lesion.nii.gz: does not lie on the grid of ct.nii.gz" in text


def test_the_page_is_the_same_with_any_number_of_jobs(cohort, page, tmp_path):
    assert report(cohort, tmp_path / "page.html", ReportOptions(jobs=2)).read_bytes() == page.read_bytes()


def test_many_pictures_become_lighter_together(cohort):
    examined = examine_all(find_cases(cohort / "cases"))
    weight = sum(len(one.picture) for one in examined)
    smaller = shrink_pictures(examined, weight // 2)
    assert sum(len(one.picture) for one in smaller) <= weight // 2
    assert shrink_pictures(examined, weight) == examined
