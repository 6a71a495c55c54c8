"""The viewer of a case in a real browser: it starts, its switches work, nothing leaves the page."""

import json
import shutil

import numpy as np
import pytest
from browser import READY_MS, count_pixels, crosshair_mm, open_page, wait_for_viewer
from report.page_reader import text_of

from radiogen.io.cases import find_cases
from radiogen.io.nifti import read_volume, write_volume
from radiogen.measures.lesions import measure_lesions
from radiogen.report.page import report
from radiogen.volume import array_of, volume_like

ORANGE, GREEN = (230, 159, 0), (0, 158, 115)


@pytest.fixture(scope="module")
def case(made_cases, tmp_path_factory):
    """A made case with a second lesion, a cube in the other lung."""
    source = find_cases(made_cases)[0]
    folder = shutil.copytree(source.folder, tmp_path_factory.mktemp("seen") / source.case_id)
    lesion = read_volume(folder / "lesion.nii.gz")
    labels, lungs = array_of(lesion), array_of(read_volume(folder / "lungs.nii.gz"))
    side = 3 - lungs[labels > 0].max()
    z, y, x = np.median(np.argwhere(lungs == side), axis=0).astype(int)
    labels[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = 2
    write_volume(volume_like(labels, lesion), folder / "lesion.nii.gz")
    return find_cases(folder)[0]


@pytest.fixture(scope="module")
def page(case, tmp_path_factory):
    return report(case.folder, tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture(scope="module")
def opened(browser, page):
    watched = open_page(browser, page.as_uri())
    wait_for_viewer(watched)
    yield watched
    watched.page.close()


def test_the_page_starts_without_complaint_and_asks_no_network(opened, page):
    assert opened.page.evaluate("document.getElementById('viewer').className") == "viewer ready"
    assert opened.complaints == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {page.as_uri()}


def test_a_mask_can_be_taken_away_and_brought_back(opened):
    before = count_pixels(opened, ORANGE)
    lungs = count_pixels(opened, GREEN)
    opened.page.click("[data-mask=lesion]")
    assert before > 20 and count_pixels(opened, ORANGE) == 0
    assert count_pixels(opened, GREEN) == pytest.approx(lungs, rel=0.2) and lungs > 100
    opened.page.click("[data-mask=lesion]")
    assert count_pixels(opened, ORANGE) == before


def test_the_jump_moves_the_cross_to_the_lesion(opened, case):
    lesions = {lesion.label: lesion for lesion in measure_lesions(case.lesion())}
    for label in (2, 1):
        opened.page.click(f"[data-lesion]:has-text('Lesion {label} ')")
        assert crosshair_mm(opened) == pytest.approx(lesions[label].center_mm, abs=0.05)


def test_the_reading_is_that_of_the_ct_at_the_cross(opened, case):
    (two,) = (lesion for lesion in measure_lesions(case.lesion()) if lesion.label == 2)
    opened.page.click("[data-lesion]:has-text('Lesion 2 ')")
    ct = case.ct()
    hu = ct[ct.TransformPhysicalPointToIndex(two.center_mm)]
    said = opened.page.inner_text("#viewer-at")
    x, y, z = two.center_mm
    assert f"x {x:.1f}  y {y:.1f}  z {z:.1f} mm (LPS)" in said
    assert int(said.rpartition("·")[2].removesuffix("HU")) == pytest.approx(hu, abs=2)


def test_a_window_is_set_by_its_name(opened):
    shown = (
        "[window.radiogenViewer.planes.volumes[0].cal_min, window.radiogenViewer.planes.volumes[0].cal_max]"
    )
    opened.page.click("text=Soft tissue")
    assert opened.page.evaluate(shown) == [-160, 240]
    opened.page.click("text=Bone")
    assert opened.page.evaluate(shown) == [-450, 1050]
    opened.page.click("button:text-is('Lung')")
    assert opened.page.evaluate(shown) == [-1350, 150]


def test_the_page_says_which_voxels_it_shows(page):
    text = text_of(page)
    assert "The viewer shows the voxels of the CT" in text and "was made on the original" in text


def test_on_paper_the_picture_stands_in_for_the_viewer(opened):
    opened.page.emulate_media(media="print")
    assert not opened.page.is_visible("#viewer") and opened.page.is_visible("#cases img")
    assert len(opened.page.pdf()) > 20_000
    opened.page.emulate_media(media="screen")


WITHOUT_WEBGL = """
const get = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind.startsWith("webgl") ? null : get.call(this, kind, ...rest);
};
"""


def test_without_webgl_the_page_says_so_and_shows_the_pictures(browser, page):
    context = browser.new_context(viewport={"width": 560, "height": 480})
    context.add_init_script(WITHOUT_WEBGL)
    context.set_default_timeout(READY_MS)
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.wait_for_selector("#viewer.still", state="attached")
    assert "no WebGL2" in tab.inner_text("#viewer-why")
    assert not tab.is_visible("#viewer-planes") and tab.is_visible("#cases img")
    context.close()


def test_without_scripts_the_page_says_what_the_viewer_needs(browser, page):
    watched = open_page(browser, page.as_uri(), java_script_enabled=False)
    assert "needs JavaScript and WebGL2" in watched.page.inner_text("#viewer-why")
    assert watched.page.is_visible("#cases img")
    watched.page.close()


def test_the_scripts_of_the_page_are_the_two_that_its_policy_names(browser, case, tmp_path):
    page = report(case.folder, tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("</main>", "<script>window.hacked = 1</script></main>"), encoding="utf-8")
    watched = open_page(browser, page.as_uri())
    wait_for_viewer(watched)
    assert watched.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in said for said in watched.complaints)
    watched.page.close()


def test_the_same_case_gives_the_same_page(case, page, tmp_path):
    assert report(case.folder, tmp_path / "page.html").read_bytes() == page.read_bytes()
    assert json.loads((tmp_path / "page.run.json").read_text())["verb"] == "report"
