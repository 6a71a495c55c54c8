import re

import pytest

from radiogen.config import data_folder
from radiogen.errors import ConfigError
from radiogen.resources import cohort_card, cohort_names, compile_pattern


@pytest.mark.parametrize(
    "name", ["nsclc_radiogenomics", "lidc_idri", "nsclc_radiomics", "msd_lung", "phantoms"]
)
def test_every_cohort_of_the_design_has_a_card_with_licence_and_pattern(name):
    card = cohort_card(name)
    assert card.title and card.licence
    assert re.compile(card.patient_id_pattern)


def test_the_non_commercial_cohort_says_so():
    assert [name for name in cohort_names() if cohort_card(name).non_commercial] == ["nsclc_radiomics"]


@pytest.mark.parametrize(
    ("name", "pseudonym", "other"),
    [
        ("nsclc_radiogenomics", "R01-001", "R01-1"),
        ("nsclc_radiogenomics", "AMC-049", "XAMC-049"),
        ("lidc_idri", "LIDC-IDRI-0001", "LIDC-IDRI-1"),
        ("msd_lung", "lung_096", "lung_096_2"),
        ("phantoms", "PHANTOM-0003", "PHANTOM-A"),
    ],
)
def test_only_the_whole_published_pseudonym_is_recognised(name, pseudonym, other):
    assert cohort_card(name).names_pseudonym(pseudonym)
    assert not cohort_card(name).names_pseudonym(other)


def test_an_unknown_cohort_is_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="nsclc_radiogenomics"):
        cohort_card("lung_nodules")


def test_a_folder_that_is_not_shipped_is_named():
    with pytest.raises(ConfigError, match="no_such_folder"):
        data_folder("no_such_folder")


def test_a_broken_pattern_is_one_line():
    with pytest.raises(ConfigError, match="not a regular expression"):
        compile_pattern("GTV(", "--roi")
