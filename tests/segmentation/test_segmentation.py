"""Segmenting: lesions land where they are, prompts are honest, wrong prompts are refused."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from radiogen.errors import CaseError, ConfigError, ModelError, OutputError
from radiogen.io.cases import find_cases
from radiogen.io.nifti import read_mask, write_volume
from radiogen.model.folder import Model
from radiogen.model.priors import BoxMm, box_region, box_round
from radiogen.segmentation.segment import SegmentOptions, segment
from radiogen.segmentation.volume import Prompt, SegmentationSettings, segment_volume
from radiogen.volume import array_of, same_grid, volume_like


class SoftTissueInPrior(torch.nn.Module):
    """Says lesion where the prior is 1 and the lung window is bright: a network whose answer is known."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image, prior):
        return 40 * ((image[:, :1] > 0.35) & (prior > 0.5)).float() - 20


@pytest.fixture
def knowing_model(tiny_model):
    return Model(SoftTissueInPrior(), tiny_model.config, tiny_model.hash, tiny_model.folder)


@pytest.fixture
def case(made_cases):
    return find_cases(made_cases)[1]


def test_a_box_gives_the_lesion_where_it_is(knowing_model, case):
    reference = case.lesion()
    boxes = (box_round(reference, 1),)
    found = segment_volume(knowing_model, case.ct(), case.lungs(), Prompt("box", boxes))
    assert same_grid(found.lesion, reference)
    ours, theirs = array_of(found.lesion) == 1, array_of(reference) == 1
    assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.6


def test_a_turned_and_flipped_ct_gives_the_same_lesion_in_space(knowing_model, case):
    ct, lungs, reference = case.ct(), case.lungs(), case.lesion()
    prompt = Prompt("box", (box_round(reference, 1),))
    straight = segment_volume(knowing_model, ct, lungs, prompt).lesion
    turned_ct, turned_lungs = (
        sitk.Flip(sitk.PermuteAxes(v, (1, 0, 2)), (True, False, True)) for v in (ct, lungs)
    )
    turned = segment_volume(knowing_model, turned_ct, turned_lungs, prompt).lesion
    back = sitk.Resample(turned, ct, sitk.Transform(), sitk.sitkNearestNeighbor)
    same = (array_of(back) == array_of(straight)).mean()
    assert same > 0.9995 and array_of(straight).any()


def test_every_box_is_one_lesion(knowing_model, case):
    reference = case.lesion()
    box = box_round(reference, 1)
    middle = (box.low[0] + box.high[0]) / 2
    halves = (
        BoxMm(box.low, (middle, *box.high[1:])),
        BoxMm((middle, *box.low[1:]), box.high),
    )
    found = segment_volume(knowing_model, case.ct(), case.lungs(), Prompt("box", halves))
    assert sorted(np.unique(array_of(found.lesion))) == [0, 1, 2]


def test_a_box_outside_the_lungs_is_refused(knowing_model, case):
    corner = np.array(case.ct().GetOrigin())
    box = BoxMm(tuple(corner), tuple(corner + 20))
    with pytest.raises(ConfigError, match="outside the lungs"):
        segment_volume(knowing_model, case.ct(), case.lungs(), Prompt("box", (box,)))


def test_a_box_outside_the_lungs_does_not_take_the_others_of_the_case_with_it(knowing_model, case):
    corner = np.array(case.ct().GetOrigin())
    outside, inside = BoxMm(tuple(corner), tuple(corner + 20)), box_round(case.lesion(), 1)
    alone = segment_volume(knowing_model, case.ct(), case.lungs(), Prompt("box", (inside,)))
    both = segment_volume(knowing_model, case.ct(), case.lungs(), Prompt("box", (outside, inside)))
    assert any(line.startswith("box 1, ") and "left out" in line for line in both.decisions)
    np.testing.assert_array_equal(array_of(both.lesion), 2 * array_of(alone.lesion))
    with pytest.raises(ConfigError, match="outside the lungs, all of them"):
        segment_volume(knowing_model, case.ct(), case.lungs(), Prompt("box", (outside, outside)))


def without_lungs_within(case, box, margin_mm):
    """The lungs of a case as a threshold sees them where the lobe round a box has collapsed."""
    lungs = array_of(case.lungs()).copy()
    near = box_region(box, case.ct(), margin_mm)
    lungs[near.array_slices()] = 0
    assert lungs.any()
    return volume_like(lungs, case.ct())


def test_a_box_in_a_collapsed_lobe_is_looked_at_and_it_is_said_that_no_lung_was_found_there(
    knowing_model, case
):
    box = box_round(case.lesion(), 1)
    prompt, collapsed = Prompt("box", (box,)), without_lungs_within(case, box, 25)
    found = segment_volume(knowing_model, case.ct(), collapsed, prompt)
    assert any("box 1: no lung was found within 10 mm" in line for line in found.decisions)
    assert array_of(found.lesion).any()
    with pytest.raises(ConfigError, match="outside the lungs"):
        segment_volume(knowing_model, case.ct(), without_lungs_within(case, box, 60), prompt)


def test_what_is_small_is_left_out_and_said(knowing_model, case):
    prompt = Prompt("lungs")
    settings = SegmentationSettings(smallest_ml=5.0)
    found = segment_volume(knowing_model, case.ct(), case.lungs(), prompt, settings)
    assert any("ml in parts below 5 ml left out" in said for said in found.decisions)


def test_segment_writes_mask_table_picture_and_record(tiny_model, made_cases, tmp_path):
    report = segment(made_cases, tmp_path, tiny_model, SegmentOptions(prior="box"))
    assert len(report.done) == 4 and not report.failures
    for done in report.done:
        names = sorted(path.name for path in done.folder.iterdir())
        assert names == ["lesion.ctbl", "lesion.nii.gz", "lesion.png", "lesion.run.json", "lesions.csv"]
        record = json.loads((done.folder / "lesion.run.json").read_text())
        assert record["options"]["prompt"] == "oracle" and record["model_hash"] == tiny_model.hash
    again = segment(made_cases, tmp_path, tiny_model, SegmentOptions(prior="box"))
    assert [done.is_new for done in again.done] == [False] * 4
    other = segment(made_cases, tmp_path, tiny_model, SegmentOptions(prior="none", picture=False))
    assert [done.is_new for done in other.done] == [True] * 4
    with pytest.raises(OutputError, match="segmented already"):
        segment(find_cases(made_cases)[0].folder, tmp_path, tiny_model, SegmentOptions(existing="fail"))


def test_the_outline_of_a_file_is_the_prompt(knowing_model, case, tmp_path):
    shifted = case.lesion()
    path = tmp_path / "drawn.nii.gz"
    sitk.WriteImage(shifted, str(path))
    options = SegmentOptions(prior="mask", outline=path)
    with pytest.raises(ModelError, match="prior 'mask'"):
        segment(case.folder, tmp_path / "out", knowing_model, options)
    report = segment(case.folder, tmp_path / "out", knowing_model, SegmentOptions(prior="box", outline=path))
    assert read_mask(report.done[0].folder / "lesion.nii.gz").GetSize() == shifted.GetSize()


def test_wrong_prompts_are_refused_before_any_work(tiny_model, made_cases, tmp_path):
    for options, said in (
        (SegmentOptions(prior="lungs", box="0,0,0,1,1,1"), "take --prior box"),
        (SegmentOptions(prior="box", box="1,2,3"), "six numbers"),
        (SegmentOptions(prior="box", box="0,0,0,9,9,9"), "one case at a time"),
        (SegmentOptions(split="nobody"), "the splits are"),
    ):
        with pytest.raises((ConfigError, CaseError), match=said):
            segment(made_cases, tmp_path / "out", tiny_model, options)
    assert not (tmp_path / "out").exists()


def test_another_outline_is_segmented_anew(tiny_model, case, tmp_path):
    outline = array_of(case.lesion())
    moved = volume_like(np.roll(outline, 3, axis=2), case.ct())
    for number, mask in enumerate((case.lesion(), moved, moved)):
        write_volume(mask, tmp_path / "mask.nii.gz")
        options = SegmentOptions(prior="box", outline=tmp_path / "mask.nii.gz")
        (done,) = segment(case.folder, tmp_path / "out", tiny_model, options).done
        assert done.is_new == (number < 2)
