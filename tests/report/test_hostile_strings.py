"""Strings of DICOM objects that want to run in a page are text in it, or are not in it at all."""

import json

import pydicom
import pytest
from browser import open_page, wait_for_viewer
from report.page_reader import read
from tiny_cases import TINY

from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.options import IngestOptions
from radiogen.phantoms.cohort import make_phantoms
from radiogen.provenance import write_json
from radiogen.report.page import report
from radiogen.report.qc import qc

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
SEPARATED = "\u2028\u2029'\"--><!--"


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """A made patient whose objects carry hostile strings, ingested; and hostile words in its case.json."""
    home = tmp_path_factory.mktemp("hostile")
    made = make_phantoms(home / "scans", 1, size=TINY, broken=False)
    for path in made.dicom.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.PatientName = "Doe^</script><script>window.hacked()</script>"
        dataset.SeriesDescription = HOSTILE[:64]
        dataset.Manufacturer = "<img src=x onerror=window.hacked=1>"
        for roi in dataset.get("StructureSetROISequence", ()):
            roi.ROIName = "GTV<img src=x onerror=window.hacked=1>"
        dataset.save_as(path)
    out = home / "cases"
    ingest(made.dicom, out, IngestOptions())
    folder = next(each for each in out.iterdir() if each.is_dir())
    about = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    about["decisions"] += [HOSTILE, SEPARATED]
    about["scanner"]["kernel"] = HOSTILE
    write_json(folder / "case.json", about)
    return out


@pytest.mark.parametrize("write", [report, qc])
def test_they_do_nothing_in_a_browser(browser, cases, tmp_path, write):
    page = write(cases, tmp_path / "page.html")
    watched = open_page(browser, page.as_uri())
    if write is report:
        wait_for_viewer(watched)
    assert watched.page.evaluate("window.hacked") is None
    assert watched.complaints == []
    assert watched.page.locator("img[src=x]").count() == 0
    assert {url for url in watched.requests if not url.startswith("data:")} == {page.as_uri()}
    watched.page.close()


def test_they_are_text_and_the_name_is_nowhere(cases, tmp_path):
    page = report(cases, tmp_path / "page.html")
    reader, text = read(page), page.read_text(encoding="utf-8")
    assert HOSTILE in "".join(reader.words)  # of the scanner and the decisions, as written
    assert not [attrs for _, attrs in reader.tags if "onerror" in attrs or attrs.get("src") == "x"]
    assert "Doe^" not in text
