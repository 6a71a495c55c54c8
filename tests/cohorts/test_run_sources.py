"""What a run is given: archives, real trees, several networks, or no network at all."""

import json
import shutil
from pathlib import Path

import pytest
from cohorts.conftest import results
from cohorts.test_run_commands import typed
from tiny_cases import tiny_cases

from radiogen.cohorts.cards import start_card
from radiogen.cohorts.ledger import cohort_status
from radiogen.cohorts.run import run_cohort
from radiogen.cohorts.workers import WorkerOptions
from radiogen.errors import ConfigError, SeriesError
from radiogen.io.tensors import load_tensors, save_tensors
from radiogen.model.folder import load_model, load_models, write_ensemble
from radiogen.phantoms.chest import ChestSize
from radiogen.phantoms.cohort import make_phantoms
from radiogen.runtime import pick_device


@pytest.fixture
def scans(settings, tmp_path):
    """Three small made patients, and the settings that ingest them."""
    made = make_phantoms(tmp_path / "made", 3, 0, ChestSize((40, 32, 12), (8.4, 9.0, 16.0)), broken=False)
    ingest = settings.ingest.model_copy(update={"cohort": "phantoms"})
    update = {"source": made.dicom, "steps": ("ingest", "report"), "model": (), "ingest": ingest}
    return settings.model_copy(update=update)


def test_a_zip_of_scans_gives_the_cases_of_its_folder(scans, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "scans"), "zip", scans.source)
    zipped = scans.model_copy(update={"source": tmp_path / "scans.zip"})
    assert archive == str(zipped.source)
    run_cohort(scans, tmp_path / "plain")
    assert run_cohort(zipped, tmp_path / "run", WorkerOptions(jobs=2)).done == 3
    assert results(tmp_path / "run") == results(tmp_path / "plain")
    assert not list((tmp_path / "run" / "cases").glob(".unpacked*"))
    assert cohort_status(tmp_path / "run").counts["done"] == 3
    assert run_cohort(zipped, tmp_path / "run").kept == 3
    with pytest.raises(ConfigError, match="unpack it first"):
        run_cohort(zipped, tmp_path / "parts", WorkerOptions(part=(1, 2)))


def test_a_cohort_goes_by_the_name_of_its_card_from_anywhere(scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start_card(scans.source, Path("mine.yaml"))
    ran = typed("run", "mine.yaml", "-o", "run", "--steps", "ingest,report")
    assert ran.exit_code == 0 and ran.stdout == f"{tmp_path / 'run'}\t3 cases done now\t0 settled before\n"
    monkeypatch.chdir("/")
    assert "0 cases done now\t3 settled before" in typed("retry", tmp_path / "run").stdout
    assert "--source" in typed("run", "lidc_idri", "-o", tmp_path / "no").stderr
    twice = typed("run", tmp_path / "mine.yaml", "--cohort", "phantoms", "-o", tmp_path / "no")
    assert twice.exit_code == 2 and "name the cohort once" in twice.stderr
    assert not (tmp_path / "no").exists()


def test_cohort_ingest_says_what_ingest_says(scans, tmp_path):
    said = typed("ingest", "phantoms", "--source", scans.source, "-o", tmp_path / "cases")
    assert said.exit_code == 0 and said.stdout.startswith("PHANTOM-001\t")
    assert "PHANTOM-001: lungs by threshold" in said.stderr
    assert said.stdout.count("\n") == 3


def test_a_file_that_holds_no_scans_leaves_nothing(scans, tmp_path):
    (tmp_path / "scans.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(SeriesError):
        run_cohort(scans.model_copy(update={"source": tmp_path / "scans.zip"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_ensemble_segments_and_its_first_network_gives_the_features(settings, tmp_path):
    folder = tmp_path / "folds"
    for name in ("first", "second"):
        shutil.copytree(settings.model[0], folder / name)
    weights = load_tensors(folder / "second" / "model.safetensors")
    changed = {name: value * 1.01 if value.is_floating_point() else value for name, value in weights.items()}
    save_tensors(folder / "second" / "model.safetensors", changed)
    write_ensemble(folder, ("first", "second"))
    run = tmp_path / "run"
    run_cohort(settings.model_copy(update={"model": (folder,)}), run)
    cpu = pick_device("cpu")
    both, first = load_models([folder], cpu).hash, load_model(folder / "first", cpu).hash
    segmented = json.loads((run / "segmented" / "phantom-001" / "lesion.run.json").read_text())
    features = json.loads((run / "features.run.json").read_text())
    assert (segmented["model_hash"], features["model_hash"]) == (both, first) and both != first


def test_without_a_model_the_shipped_one_is_used_and_said(tmp_path):
    tiny_cases(tmp_path / "cases", 1)
    ran = typed("run", tmp_path / "cases", "-o", tmp_path / "run", "--prior", "box", "--device", "cpu")
    assert ran.exit_code == 0, ran.output
    assert "no --model given: the shipped model raseg-starter is used" in ran.stderr
    assert (tmp_path / "run" / "segmented" / "phantom-001" / "lesion.nii.gz").is_file()
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_real_tree_goes_the_road_by_a_card_of_ones_own(shared_data, scans, tmp_path):
    """4D-Lung: folders with blanks, as the downloader of TCIA makes them."""
    card = tmp_path / "mine.yaml"
    start_card(shared_data / "lung_4d_113", card)
    text = card.read_text().replace('# roi: "GTV.*"', 'roi: "Tumor.*"')
    card.write_text(text + 'patient_id_pattern: "1\\\\d\\\\d_HM\\\\d+"\n')
    ingest = scans.ingest.model_copy(update={"cohort": str(card)})
    real = scans.model_copy(update={"source": shared_data / "lung_4d_113", "ingest": ingest})
    assert run_cohort(real, tmp_path / "run").done == 1
    assert (tmp_path / "run" / "cases" / "113_HM10395" / "lesion.nii.gz").is_file()
    assert run_cohort(real, tmp_path / "run").kept == 1


def test_lidc_goes_the_road_with_the_xml_of_its_readers(shared_data, scans, tmp_path):
    """Of two of the three patients only some slices are there: the readers drew outside them."""
    ingest = scans.ingest.model_copy(update={"cohort": "lidc_idri"})
    real = scans.model_copy(update={"source": shared_data / "lidc_idri_partial", "ingest": ingest})
    report = run_cohort(real, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "cases" / "LIDC-IDRI-0001" / "case.json").read_text())
    assert about["outline"]["kind"] == "lidc-xml"
    assert [row["case_id"] for row in report.failures] == ["LIDC-IDRI-0002", "LIDC-IDRI-0003"]
    assert all("lies outside the CT" in row["reason"] for row in report.failures)
