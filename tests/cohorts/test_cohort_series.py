"""The cards say which series make a cohort: the published counts come out of the index's own rows."""

import csv
import re
from pathlib import Path

import pytest

from radiogen.cohorts.cards import card_lines
from radiogen.cohorts.index import (
    SeriesSelection,
    cohort_series,
    patients_of,
    read_series_rows,
    select_series,
)
from radiogen.cohorts.requests import find_request
from radiogen.errors import ConfigError
from radiogen.io.clinical import read_clinical
from radiogen.resources import cohort_card, cohort_names

IN_THE_INDEX = ("nsclc_radiogenomics", "lidc_idri", "nsclc_radiomics")
LABELS = "NSCLCR01Radiogenomic_DATA_LABELS_2018-05-22_1500-shifted.csv"


def series_of(shared_data, name):
    card = cohort_card(name)
    rows = read_series_rows(shared_data / "idc_manifests" / f"{name}.parquet", card.source.idc)
    return card, rows, cohort_series(rows, card)


@pytest.mark.parametrize("name", IN_THE_INDEX)
def test_what_a_card_says_of_size_comes_out_of_the_index(shared_data, name):
    card, _, series = series_of(shared_data, name)
    gigabytes = sum(row.bytes for row in (*series.ct, *series.outlines)) / 1e9
    assert card.counts.model_dump() == {
        "patients": len(series.patients),
        "with_outline": len(patients_of(series.outlines)),
        "ct": len(series.ct),
        "outlines": len(series.outlines),
        "automatic": len(series.automatic),
        "gigabytes": round(gigabytes, 1),
    }
    assert {row.licence for row in series.to_fetch} == {card.licence}


@pytest.mark.parametrize(
    ("name", "patients", "ct", "outlines", "automatic"),
    [
        ("nsclc_radiogenomics", 211, 727, {"SEG": 144}, 371),
        ("lidc_idri", 1010, 1018, {"SEG": 6859}, 90),
        ("nsclc_radiomics", 422, 422, {"RTSTRUCT": 422, "SEG": 421}, 1242),
    ],
)
def test_the_counts_of_the_design_come_out(shared_data, name, patients, ct, outlines, automatic):
    _, _, series = series_of(shared_data, name)
    found = {one: sum(row.modality == one for row in series.outlines) for one in outlines}
    assert (len(series.patients), len(series.ct), found) == (patients, ct, outlines)
    assert len(series.automatic) == automatic
    assert not {row.analysis for row in series.outlines} & {row.analysis for row in series.automatic}


def test_only_r01_has_outlines_and_automatic_ones_are_not_fetched(shared_data):
    card, _, series = series_of(shared_data, "nsclc_radiogenomics")
    chosen = select_series(series, SeriesSelection(only_with_outline=True), card.name)
    assert len(patients_of(chosen)) == 144 and {row.patient[:3] for row in chosen} == {"R01"}
    assert not {row.uid for row in series.automatic} & {row.uid for row in chosen}
    assert len(chosen) == 293 and sum(row.bytes for row in chosen) < 22e9


def test_the_csv_and_the_parquet_index_hold_the_same(shared_data):
    folder = shared_data / "idc_manifests"
    assert read_series_rows(folder / "nsclc_radiogenomics.csv") == read_series_rows(
        folder / "nsclc_radiogenomics.parquet"
    )


def test_the_folders_of_the_retriever_are_those_of_the_card(shared_data):
    card, rows, _ = series_of(shared_data, "nsclc_radiogenomics")
    own = {row.uid: row for row in rows if not row.analysis}
    with (shared_data / "nsclc_radiogenomics_tables" / "nbia_metadata.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert len(listed) == 1351 == len(own)
    for line in listed:
        row = own[line["Series UID"]]
        root, top, patient, *_ = line["File Location"].split("/")
        assert (root, top, patient) == (".", card.source.tcia, row.patient)
        assert card.names_pseudonym(patient) and int(line["Number of Images"]) == row.files


@pytest.mark.parametrize(
    ("name", "asked", "unknown"),
    [
        ("NSCLC_Radiogenomics-6-1-21_Version_4.tcia", 1351, 480),
        ("nbia_metadata.csv", 1351, 480),
        ("idc_v18_sampler_manifest.csv", 1722, 851),
    ],
)
def test_the_lists_of_others_find_the_series_of_the_cohort(shared_data, name, asked, unknown):
    path = shared_data / "nsclc_radiogenomics_tables" / name
    index = shared_data / "idc_manifests" / "nsclc_radiogenomics.parquet"
    request = find_request(str(path), SeriesSelection(), index)
    assert [card.name for card in request.cards] == ["nsclc_radiogenomics"]
    assert (len(request.rows) + request.unknown, request.unknown) == (asked, unknown)


def test_a_list_of_the_commons_for_s5cmd_is_read_back(shared_data, tmp_path):
    _, _, series = series_of(shared_data, "nsclc_radiomics")
    lines = [f"cp --show-progress s3://{row.bucket}/{row.uuid}/* ./{row.patient}" for row in series.ct[:20]]
    (tmp_path / "list.s5cmd").write_text("# made today\n\n" + "\n".join(lines) + "\n")
    index = shared_data / "idc_manifests" / "nsclc_radiomics.parquet"
    request = find_request(str(tmp_path / "list.s5cmd"), SeriesSelection(), index)
    assert set(request.rows) == set(series.ct[:20]) and not request.unknown
    two = find_request(str(tmp_path / "list.s5cmd"), SeriesSelection(limit=2), index)
    assert len(patients_of(two.rows)) == 2


def test_the_card_reads_the_clinical_tables_of_its_cohort(shared_data):
    path = shared_data / "nsclc_radiogenomics_tables" / LABELS
    card = cohort_card("nsclc_radiogenomics")
    table = read_clinical(path, card.clinical.mapping)
    assert table.equals(read_clinical(path))
    counts = table["egfr"].value_counts()
    said = re.findall(r"(\d+) (wildtype|mutant)", card.clinical.egfr)
    assert {word: int(n) for n, word in said} == {"wildtype": 129, "mutant": 43}
    assert (counts["wildtype"], counts["mutant"]) == (129, 43)
    (split,) = card.splits
    sizes = {part: table["patient_id"].str.fullmatch(p).sum() for part, p in split.parts.items()}
    assert sizes == {"R01": 162, "AMC": 49}
    mapping = cohort_card("nsclc_radiomics").clinical.mapping
    survival = read_clinical(shared_data / "nsclc_radiomics_tables" / "nsclc-radiomics_clinical.csv", mapping)
    assert len(survival) == 422 and set(survival["sex"]) == {"male", "female"} and survival["age"].max() < 100


def test_both_outline_and_status_are_known_of_117(shared_data):
    _, _, series = series_of(shared_data, "nsclc_radiogenomics")
    table = read_clinical(shared_data / "nsclc_radiogenomics_tables" / LABELS)
    drawn = table[table["patient_id"].isin({row.patient for row in series.outlines})]
    assert drawn["egfr"].value_counts().to_dict() == {"wildtype": 94, "": 27, "mutant": 23}


@pytest.mark.parametrize("name", cohort_names())
def test_every_card_says_what_it_forbids_and_how_it_is_had(name):
    card = cohort_card(name)
    text = "\n".join(card_lines(card))
    assert f"licence: {card.licence} (" in text and "get it: " in text and card.notes
    assert card.clinical.egfr and card.outline.kinds
    assert not card.source.idc or {rule.part for rule in card.series} >= {"ct", "outline"}


def test_a_cohort_that_the_commons_lacks_says_where_it_is():
    with pytest.raises(ConfigError, match=r"Task06_Lung\.tar \(MD5"):
        find_request("msd_lung", SeriesSelection())


@pytest.mark.parametrize("name", ["nsclc_radiogenomics", "lidc_idri"])
def test_the_model_on_paper_counts_the_slices_of_the_index(shared_data, name):
    """docs/cluster.md: of each patient the CT with most slices."""
    _, _, series = series_of(shared_data, name)
    longest = {}
    for row in sorted(series.ct, key=lambda row: row.files):
        longest[row.patient] = row
    slices, read = sum(row.files for row in longest.values()), sum(row.bytes for row in longest.values())
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    assert f"{slices:,}; {read / 1e9:.1f} GB" in text
    assert (
        f"{len(longest)}; {slices / len(longest):.0f}, {max(row.files for row in longest.values())}" in text
    )
