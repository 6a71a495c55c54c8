import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from report.page_reader import read, text_of

from radiogen.drawing.pictures import draw_mosaic
from radiogen.errors import CaseError
from radiogen.ingestion.case_facts import BINS, CaseFacts, LesionFacts, LungFacts, measure_case, read_masks
from radiogen.ingestion.qc import judge
from radiogen.io.cases import find_cases, read_manifest
from radiogen.io.nifti import read_volume, write_volume
from radiogen.provenance import write_json
from radiogen.report.qc import qc
from radiogen.volume import array_of, volume_like

LUNGS = LungFacts(right_ml=2500, left_ml=2200, median_hu=-840, cut=(0.0, 0.0))
LESION = LesionFacts(1, 12.0, 30.0, 20.0, in_lungs=0.6, from_lungs_mm=0.0, at_end=False)
SOUND = CaseFacts(
    slices=300, spacing_mm=(0.7, 0.7, 1.25), extent_mm=375, tilt_degrees=0, lowest_hu=-1024, highest_hu=3071,
    air=0.5, soft_tissue=0.3, at_lowest=0.2, at_highest=0.0, histogram=(1,) * (len(BINS) - 1),
    lungs=LUNGS, lesions=(LESION,),
)  # fmt: skip
ODD = {
    "lung cut off at the top": (dict(lungs=replace(LUNGS, cut=(0.0, 0.4))), "cut off at the top, at 40 %", 5),
    "lung cut off at the bottom": (
        dict(lungs=replace(LUNGS, cut=(0.1, 0.0))),
        "cut off at the bottom, at 10 %",
        2,
    ),
    "no lungs": (dict(lungs=None), "no lungs found", 8),
    "one lung": (dict(lungs=replace(LUNGS, left_ml=0)), "no left lung found; the other has 2500 mL", 6),
    "unlike lungs": (dict(lungs=replace(LUNGS, left_ml=700)), "right 2500 mL, left 700 mL", 4),
    "small lungs": (dict(lungs=replace(LUNGS, right_ml=600, left_ml=500)), "small lungs: 1100 mL", 3),
    "dense lungs": (dict(lungs=replace(LUNGS, median_hu=-300)), "median -300 HU", 4),
    "no air": (dict(air=0.01), "hardly any air: 1 %", 7),
    "no soft tissue": (dict(soft_tissue=0.002), "hardly any soft tissue: 0.2 %", 7),
    "clipped at the top": (dict(highest_hu=400, at_highest=0.02), "2 % of the voxels are 400 HU", 4),
    "clipped at the bottom": (dict(lowest_hu=-600, at_lowest=0.3), "30 % of the voxels are -600 HU", 5),
    "thick slices": (dict(spacing_mm=(0.7, 0.7, 5.0)), "thick slices: 5.0 mm apart", 2),
    "a short scan": (dict(slices=20, extent_mm=25), "20 slices over 25 mm", 3),
    "lesion outside": (
        dict(lesions=(replace(LESION, in_lungs=0.0, from_lungs_mm=42.0),)),
        "outside the lungs, 42 mm away",
        7,
    ),
    "lesion in air": (dict(lesions=(replace(LESION, median_hu=-1000),)), "lies in air: median -1000 HU", 5),
    "lesion at the end": (dict(lesions=(replace(LESION, at_end=True),)), "first or last slice", 3),
    "tiny lesion": (dict(lesions=(replace(LESION, volume_ml=0.01),)), "tiny: 0.010 mL", 2),
    "no lesion": (dict(lesions=()), "no outline is known", 1),
}


def test_a_sound_case_is_not_suspicious():
    assert judge(SOUND, ["RTSTRUCT: GTV-1 taken, the only one"], 1.25).oddities == ()
    assert judge(SOUND).level == 0


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_said_in_words_and_numbers(name):
    changes, words, weight = ODD[name]
    found = judge(replace(SOUND, **changes)).oddities
    assert [(oddity.weight, words in oddity.text) for oddity in found] == [(weight, True)]


@pytest.mark.parametrize(
    "said",
    [
        "uneven spacing: 1 of 40 planes interpolated, 2.500 mm apart",
        "gantry tilt: slices moved sideways by up to 12.0 mm to an upright volume",
        "instance numbers start at 41: slices may be missing at an end",
        "qform and sform place the corners up to 12.0 mm apart; the sform was taken",
    ],
)
def test_what_ingest_decided_about_the_geometry_counts(said):
    judged = judge(SOUND, ["1 other", said])
    assert said in judged.oddities[0].text and judged.level == 1


def test_a_knowledge_of_weight_one_is_no_reason_to_look():
    assert judge(replace(SOUND, lesions=())).level == 0
    assert judge(replace(SOUND, lesions=(), lungs=None)).level == 2


@pytest.fixture
def case(made_cases, tmp_path):
    """A copy of one made case, in a folder that may be spoiled."""
    return find_cases(shutil.copytree(find_cases(made_cases)[0].folder, tmp_path / "one"))[0]


def facts_of(case):
    return measure_case(case.ct(), read_masks(case))


def rewrite(path, change):
    volume = read_volume(path)
    write_volume(volume_like(change(array_of(volume)), volume), path)


def test_a_lesion_that_is_moved_is_found_outside_the_lungs_at_its_distance(case):
    lungs = array_of(case.lungs()) > 0

    def far_corner(labels):
        moved = np.zeros_like(labels)
        moved[0, 0, 0] = 1
        return moved

    rewrite(case.lesion_path, far_corner)
    lesion = facts_of(case).lesions[0]
    spacing = np.array(case.ct().GetSpacing()[::-1])
    nearest = np.linalg.norm(np.argwhere(lungs) * spacing, axis=1).min()
    assert lesion.in_lungs == 0 and lesion.at_end
    assert lesion.from_lungs_mm == pytest.approx(nearest, abs=2 * spacing.max())


def test_facts_do_not_depend_on_how_the_voxels_are_stored(case):
    before = facts_of(case)
    for path in (case.ct_path, case.lungs_path, case.lesion_path):
        turned = sitk.PermuteAxes(read_volume(path), (1, 2, 0))
        write_volume(sitk.Flip(turned, (True, False, True)), path)
    after = facts_of(case)
    assert after.lungs == before.lungs and after.histogram == before.histogram
    assert after.spacing_mm == pytest.approx(before.spacing_mm)
    assert [lesion.volume_ml for lesion in after.lesions] == pytest.approx(
        [lesion.volume_ml for lesion in before.lesions]
    )


def test_cut_lungs_are_measured_at_the_end_that_is_cut(case):
    volumes = {path: read_volume(path) for path in (case.ct_path, case.lungs_path, case.lesion_path)}
    areas = (array_of(volumes[case.lungs_path]) > 0).sum(axis=(1, 2))
    start = int(areas.argmax())
    for path, volume in volumes.items():
        write_volume(volume[:, :, start:], path)
    lungs = facts_of(case).lungs
    assert lungs.cut == (1.0, 0.0)


def test_counts_of_hu_add_up(case):
    facts = facts_of(case)
    hu = array_of(case.ct())
    assert sum(facts.histogram) == hu.size and (facts.lowest_hu, facts.highest_hu) == (hu.min(), hu.max())
    assert facts.air == pytest.approx(((hu >= -1024) & (hu <= -850)).mean())


def test_a_mosaic_shows_lungs_and_lesion_and_is_small(case):
    import io

    from PIL import Image

    jpeg = draw_mosaic(case.ct(), read_masks(case))
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)), int)
    assert len(jpeg) < 150_000 and pixels.shape[1] == 1100
    red, green, blue = np.moveaxis(pixels, -1, 0)
    assert (red - blue > 100).sum() > 50, "the lesion's orange"
    assert (green - red > 50).sum() > 50, "the lungs' green"


@pytest.fixture
def spoiled(made_cases, tmp_path):
    """Four cases: the first without lungs, the second damaged, the third with a failure beside it."""
    root = shutil.copytree(made_cases, tmp_path / "cases")
    cases = find_cases(root)
    cases[0].lungs_path.unlink()
    cases[1].ct_path.write_bytes(cases[1].ct_path.read_bytes()[:2000])
    (root / "failures.csv").write_text("case_id,step,reason,way_out\nbad1,ingest,slices missing,give them\n")
    return root


def test_the_page_holds_every_case_the_most_suspicious_first(spoiled, tmp_path):
    page = qc(spoiled, tmp_path / "qc.html")
    read_back, text = read(page), text_of(page)
    ids = [row["case_id"] for row in read_manifest(spoiled)]
    shown = [attrs["id"] for tag, attrs in read_back.tags if tag == "article"]
    assert sorted(shown) == sorted(ids) and shown[0] == ids[1] and shown[1] == ids[0]
    assert "Not for clinical use" in text and "no lungs found" in text and "slices missing" in text
    assert "cannot be read: ct.nii.gz: is truncated" in text and "▲ look first" in text
    pictures = [attrs["src"] for tag, attrs in read_back.tags if tag == "img"]
    assert len(pictures) == 3 and all(src.startswith("data:image/jpeg;base64,") for src in pictures)
    links = [attrs["href"] for tag, attrs in read_back.tags if tag == "a"]
    assert links == [f"#{case_id}" for case_id in shown]
    assert str(spoiled.parent) not in page.read_text() and (tmp_path / "qc.run.json").is_file()


def test_the_same_cases_give_the_same_page_with_any_number_of_jobs(made_cases, tmp_path):
    ticks = []
    one = qc(made_cases, tmp_path / "one.html", progress=lambda *told: ticks.append(told))
    two = qc(made_cases, tmp_path / "two.html", jobs=2)
    assert one.read_bytes() == two.read_bytes()
    assert ticks[0] == ("qc", 0, 4) and ticks[-1] == ("qc", 4, 4)


def test_what_ingest_decided_and_the_scanner_are_on_the_page(case, tmp_path):
    about = case.about()
    about["decisions"] = ["instance numbers start at 41: slices may be missing at an end"]
    about["scanner"] = {
        "vendor": "<b>OutlineAuthor</b>",
        "kernel": "B60f",
        "contrast": True,
        "slice_thickness_mm": 0.1,
    }
    write_json(case.folder / "case.json", about)
    text = text_of(qc(case.folder, tmp_path))
    assert "instance numbers start at 41" in text and "gaps between slices: 0.1 mm thick" in text
    assert "<b>OutlineAuthor</b>, kernel B60f, contrast medium" in text


def test_a_folder_without_cases_is_refused(tmp_path):
    with pytest.raises(CaseError, match="no manifest"):
        qc(tmp_path, tmp_path / "qc.html")
    assert not (tmp_path / "qc.html").exists()
