"""A card begun from a folder is one that ingest takes, and says what it found without naming a patient."""

import shutil

import pytest
from dicom_phantom import write_ct
from tiny_cases import TINY

from radiogen.cohorts.cards import examine_folder, start_card
from radiogen.errors import ConfigError, OutputError, RadiogenError
from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.options import IngestOptions
from radiogen.phantoms.cohort import make_phantoms
from radiogen.resources import cohort_card


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    make_phantoms(folder / "scans", 3, seed=0, size=TINY, broken=False)
    return folder


def test_a_folder_becomes_a_card_with_its_table_its_structures_and_its_look_alike(made):
    facts = examine_folder(made / "scans")
    assert (facts.scans, facts.refused) == (3, 0) and sum(facts.kinds.values()) == 3
    assert facts.known == "phantoms"
    card = start_card(made / "scans", made / "mine.yaml")
    text = (made / "mine.yaml").read_text()
    assert "GTV" in text and "# structures:" in text and "PHANTOM-0" not in text
    assert card == cohort_card(str(made / "mine.yaml"))
    assert card.source_folder.samefile(made / "scans") and card.clinical_table.name == "clinical.csv"


def test_ingest_takes_the_card_with_its_rule_and_its_clinical_table(made, tmp_path):
    (made / "own.yaml").write_text(
        "title: Mine\nlicence: own\nclinical: {table: scans/clinical.csv}\n"
        "outline: {kinds: [rtstruct], roi: 'gtv.*'}\npatient_id_pattern: 'PHANTOM-\\d+'\n"
    )
    made_cases = ingest(made / "scans", tmp_path / "cases", IngestOptions(cohort=str(made / "own.yaml")))
    rows = (tmp_path / "cases" / "manifest.csv").read_text().splitlines()
    assert len(made_cases.cases) == 3 and all(",own," in row for row in rows[1:])
    assert any("mutant" in row for row in rows) and any("wildtype" in row for row in rows)
    for path in (tmp_path / "cases").rglob("*.json"):
        assert str(made) not in path.read_text()


def test_a_rule_that_was_edited_is_said_when_a_case_is_kept(made, tmp_path):
    card = tmp_path / "own.yaml"
    card.write_text("title: Mine\nlicence: own\noutline: {kinds: [rtstruct, seg], roi: 'GTV.*'}\n")
    options = IngestOptions(cohort=str(card))
    ingest(made / "scans", tmp_path / "cases", options)
    assert not any(case.decisions for case in ingest(made / "scans", tmp_path / "cases", options).cases)
    card.write_text(card.read_text().replace("GTV.*", "GTV.{0,5}"))
    kept = ingest(made / "scans", tmp_path / "cases", options)
    assert all("made with other options" in case.decisions[0] for case in kept.cases)


def test_the_4d_lung_folders_are_a_cohort_of_ones_own(shared_data, tmp_path):
    scans = shared_data / "lung_4d_113"
    card = start_card(scans, tmp_path / "breath.yaml")
    text = (tmp_path / "breath.yaml").read_text()
    assert "Tumor_c40" in text and "LN_c40" in text and "--cohort lung_4d knows its rules" in text
    assert "113_HM10395" not in text.replace(scans.name, "")
    assert card.outline.kinds == ("rtstruct",)


def test_patients_are_not_named_and_a_table_of_something_else_is_no_clinical_table(tmp_path):
    write_ct(tmp_path / "scans" / "a")
    (tmp_path / "scans" / "prices.csv").write_text("item,price\nbed,3\n")
    start_card(tmp_path / "scans", tmp_path / "own.yaml")
    text = (tmp_path / "own.yaml").read_text()
    assert "Doe" not in text and "A 1" not in text and "\nclinical:" not in text and "1 scans" in text


def test_what_cannot_become_a_card_is_refused(tmp_path):
    write_ct(tmp_path / "scans")
    with pytest.raises(ConfigError, match="end it in"):
        start_card(tmp_path / "scans", tmp_path / "card.txt")
    (tmp_path / "there.yaml").write_text("title: mine\n")
    with pytest.raises(OutputError, match="is there already"):
        start_card(tmp_path / "scans", tmp_path / "there.yaml")
    shutil.rmtree(tmp_path / "scans")
    (tmp_path / "scans").mkdir()
    with pytest.raises(RadiogenError, match="holds no CT"):
        start_card(tmp_path / "scans", tmp_path / "new.yaml")
    assert not (tmp_path / "new.yaml").exists()
