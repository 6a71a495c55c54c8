from dataclasses import dataclass

import pytest

from radiogen.config import check_settings
from radiogen.errors import ConfigError, OutlineError
from radiogen.ingestion.outline_choice import OutlineChoice, choose_named, choose_segments
from radiogen.resources import OutlineRule, cohort_card


@dataclass
class Segment:
    number: int
    label: str


def choose(names, asked=None, rule=None, by_keywords=True):
    return [
        names[i] for i in choose_named(names, asked, rule, "plan.dcm: ROI", "--roi PATTERN", by_keywords)[0]
    ]


def choose_segment(labels, asked=None, rule=None):
    segments = [Segment(n, label) for n, label in enumerate(labels, start=1)]
    choice = OutlineChoice(segment=asked, rule=OutlineRule(segment=rule))
    return [labels[i] for i in choose_segments(segments, choice, "seg.dcm: segment")[0]]


@pytest.mark.parametrize(
    ("names", "asked", "rule", "taken"),
    [
        (["Lung", "GTV-1", "GTV-12"], "gtv-1", None, ["GTV-1"]),
        (["Lung", "GTV-1", "GTV-2"], "GTV.*", None, ["GTV-1", "GTV-2"]),
        (["Neoplasm (a)", "Neoplasm a"], "neoplasm (A)", None, ["Neoplasm (a)"]),
        (["Lung", "Heart"], None, "Heart|Tissue", ["Heart"]),
        (["Lung", "Heart"], "Lung", "Heart|Tissue", ["Lung"]),
        (["Carina", "LN_c40", "Tumor_c40"], None, None, ["Tumor_c40"]),
        (["GTVn", "GTVp"], None, None, ["GTVp"]),
        (["Neoplasm, Primary", "Lungs"], None, None, ["Neoplasm, Primary"]),
        (["Anything"], None, None, ["Anything"]),
    ],
)
def test_the_tumour_is_chosen_as_asked_by_rule_or_by_its_name(names, asked, rule, taken):
    assert choose(names, asked, rule) == taken


@pytest.mark.parametrize(
    ("names", "asked", "rule", "wrong"),
    [
        (
            ["GTV-1", "Lung"],
            "GTV",
            None,
            "none matches 'GTV', there are 'GTV-1', 'Lung' (correct --roi PATTERN)",
        ),
        (
            ["GTV-1", "Lung"],
            None,
            "PTV",
            "none matches 'PTV', the rule of the cohort, there are 'GTV-1', 'Lung'",
        ),
        (["Heart"], None, "GTV-1", "none matches 'GTV-1', the rule of the cohort, there are 'Heart'"),
        (["Heart", "Tissue"], None, None, "not clear from 'Heart', 'Tissue' (choose with --roi PATTERN)"),
        (["GTV-1", "GTV-2"], None, None, "not clear from 'GTV-1', 'GTV-2' (choose with --roi PATTERN)"),
    ],
)
def test_what_is_not_clear_is_refused_with_all_names(names, asked, rule, wrong):
    with pytest.raises(OutlineError) as error:
        choose(names, asked, rule)
    assert wrong in str(error.value)


def test_a_segment_is_not_taken_for_what_its_name_sounds_like():
    assert choose_segment(["Tumor"]) == ["Tumor"]
    with pytest.raises(
        OutlineError, match=r"not clear from 1 'Tumor', 2 'Heart' \(choose with --segment NAME, NUM"
    ):
        choose_segment(["Tumor", "Heart"])


@pytest.mark.parametrize(("asked", "taken"), [("2", "Tumor"), ("tumor", "Tumor"), ("He.*", "Heart")])
def test_segments_are_chosen_by_number_name_or_pattern(asked, taken):
    assert choose_segment(["Heart", "Tumor"], asked) == [taken]


def test_a_number_that_is_not_there_lists_numbers_and_names():
    with pytest.raises(OutlineError, match="none has the number 7, there are 1 'Heart', 2 'Tumor'"):
        choose_segment(["Heart", "Tumor"], "7")


def test_the_card_of_nsclc_radiogenomics_takes_what_its_files_call_heart():
    rule = cohort_card("nsclc_radiogenomics").outline.segment
    assert choose_segment(["Heart"], rule=rule) == ["Heart"]
    assert choose_segment(["Lung", "Tissue"], rule=rule) == ["Tissue"]


def test_a_broken_pattern_is_one_line():
    with pytest.raises(ConfigError):
        choose(["Heart", "Tissue"], asked="GTV(")
    with pytest.raises(ConfigError):
        check_settings(OutlineRule, {"roi": "GTV("}, source="card")


def test_the_known_bad_outlines_of_lidc_are_known():
    card = cohort_card("lidc_idri")
    (bad,) = card.bad_outlines
    numbers = (262, 291, 311, 313, 415, 423, 671, 697, 785, 796, 850, 938)
    assert bad.patients == tuple(f"LIDC-IDRI-{number:04d}" for number in numbers)
    assert "outside the CT" in card.known_of("LIDC-IDRI-0313", "seg")
    assert card.known_of("LIDC-IDRI-0313", "lidc-xml") == card.known_of("LIDC-IDRI-0001", "seg") == ""
