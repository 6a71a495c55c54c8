"""The commands round cohorts and export, as they are typed."""

import json

import pytest
from archive import serve
from tiny_cases import TINY

from radiogen.phantoms.cohort import make_phantoms


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    made = make_phantoms(folder / "made", 2, seed=0, size=TINY, broken=False)
    archive, server = serve(made.dicom, folder)
    yield archive
    server.stop()


def test_list_and_show_say_the_same_to_people_and_to_programs(radiogen):
    told = radiogen("cohort", "list")
    assert told.code == 0 and "CC BY-NC 3.0" in told.out and "727" in told.out
    listed = json.loads(radiogen("cohort", "list", "--json").out)
    assert [card["name"] for card in listed] == [line.split()[0] for line in told.out.splitlines()[1:]]
    shown = radiogen("cohort", "show", "nsclc_radiogenomics")
    assert "never tumour" in shown.out and "371 automatic kept apart" in shown.out
    assert (
        json.loads(radiogen("cohort", "show", "nsclc_radiomics", "--json").out)["licence"] == "CC BY-NC 3.0"
    )


def test_a_cohort_that_nobody_knows_is_one_line(radiogen):
    assert radiogen("cohort", "show", "lung1").refuses("lung1", "nsclc_radiomics")
    assert radiogen("cohort", "show", "nowhere.yaml").refuses("nowhere.yaml")


def test_nothing_moves_before_somebody_agreed(radiogen, archive, tmp_path):
    words = ("cohort", "download", archive.card, "--index", archive.index, "--endpoint", archive.endpoint)
    looked = radiogen(*words, "-o", tmp_path / "dicom", "--dry-run")
    assert looked.code == 0 and not looked.touched
    assert "2 patients" in looked.out and "no commercial use" in looked.err
    asked = radiogen(*words, "-o", tmp_path / "dicom")
    assert asked.code == 2 and not asked.touched and "--yes" in asked.err
    assert radiogen(*words).code == 2
    brought = radiogen(*words, "-o", tmp_path / "dicom", "--yes", "--patients", "PHANTOM-002")
    assert brought.code == 0 and all("PHANTOM-002" in p for p in brought.touched if p.endswith(".dcm"))
    part = radiogen(*words, "--check", tmp_path / "dicom")
    assert part.code == 3 and "PHANTOM-001 CT" in part.out and "missing" in part.out
    rest = radiogen(*words, "-o", tmp_path / "dicom", "--yes")
    assert rest.code == 0 and "there already" in rest.err
    whole = radiogen(*words, "--check", tmp_path / "dicom")
    assert whole.code == 0 and not whole.touched
    again = radiogen(*words, "-o", tmp_path / "dicom")
    assert again.code == 0 and not again.touched and again.out.startswith("0 series")


def test_a_download_that_lacks_series_ends_with_code_3(radiogen, archive, tmp_path):
    words = ("cohort", "download", archive.card, "-o", tmp_path / "dicom", "--index", archive.index, "--yes")
    answer = radiogen(*words, "--limit", "1", "--endpoint", "http://127.0.0.1:9")
    assert answer.code == 3 and "the same command tries them again" in answer.err
    assert not [path for path in answer.touched if path.endswith(".dcm")]


def test_a_card_is_begun_and_taken_by_ingest(radiogen, scan, tmp_path):
    begun = radiogen("cohort", "init", scan, "-o", tmp_path / "mine.yaml")
    assert begun.code == 0 and begun.out.split("\t")[1] == "mine\n" and begun.touched == ("mine.yaml",)
    made = radiogen("ingest", scan, "-o", tmp_path / "cases", "--cohort", tmp_path / "mine.yaml")
    assert made.code == 0 and ",mine," in (tmp_path / "cases" / "manifest.csv").read_text()
    assert radiogen("cohort", "init", scan, "-o", tmp_path / "mine.yaml").refuses("is there already")
    whole = radiogen("cohort", "ingest", tmp_path / "mine.yaml", "-o", tmp_path / "more")
    assert (
        whole.code == 0
        and (tmp_path / "more" / "manifest.csv").read_bytes()
        == (tmp_path / "cases" / "manifest.csv").read_bytes()
    )
    assert radiogen("cohort", "ingest", "msd_lung", "-o", tmp_path / "new").code == 2


def test_cases_are_laid_out_for_others(radiogen, cases, tmp_path):
    made = radiogen("export", cases, "-o", tmp_path / "nnUNet_raw", "--to", "nnunet", "--folds", "2")
    assert made.code == 0 and "4 cases to train on" in made.err
    assert made.out.splitlines()[0].endswith("Dataset501_NnunetRaw/dataset.json")
    again = radiogen("export", cases, "-o", tmp_path / "nnUNet_raw", "--to", "nnunet", "--folds", "0")
    assert again.refuses("nnUNet_raw", "is there already")
    (cases / "manifest.csv").unlink()
    assert radiogen("export", cases, "-o", "new", "--to", "bids-like").refuses("manifest.csv")
