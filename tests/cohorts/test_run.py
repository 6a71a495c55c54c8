"""Whatever does the work, and however often it is killed, a cohort ends with the same bytes."""

import csv
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cohorts.cohort_workers import FATAL, dies_on_one, dies_once_on_each, finds_the_disk_full
from cohorts.conftest import BROKEN, results

from radiogen.cohorts.ledger import cohort_status
from radiogen.cohorts.run import run_cohort, settings_of_run
from radiogen.cohorts.workers import WorkerOptions
from radiogen.errors import OutputError, RadiogenError
from radiogen.provenance import write_json

ROOT = Path(__file__).parents[2]


def start(settings, run):
    """The command in a process of its own, with two workers."""
    config = run.parent / "settings.json"
    write_json(config, json.loads(settings.model_dump_json()))
    said = ["-m", "radiogen.cli.main", "cohort", "run", settings.source, "-o", run, "--config", config]
    said = [sys.executable, *map(str, said), "--jobs", "2"]
    return subprocess.Popen(said, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)


def processes_of(group: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _parent, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_until(true, seconds=240):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def kill_head(head, run, after):
    """SIGKILL a head some seconds after its workers began; they must end by themselves."""
    wait_until(lambda: any(run.glob(".cohort/tries/*")) or head.poll() is not None)
    time.sleep(after)
    os.kill(head.pid, signal.SIGKILL)
    head.communicate()
    wait_until(lambda: not processes_of(head.pid), 10)


def test_a_run_leaves_one_table_of_results_and_one_of_failures(plain_run):
    with (plain_run / "cohort.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (plain_run / "failures.csv").open() as file:
        (failure,) = csv.DictReader(file)
    assert {row["case_id"] for row in rows} == {f"phantom-00{n}" for n in (1, 2, 3, 5)}
    assert not any(", score " in row["decisions"] for row in rows)  # of all lesions of a case, in each row
    assert failure["case_id"] == BROKEN and failure["step"] == "segment" and failure["way_out"]
    assert (plain_run / "patients.csv").read_text().count("\n") == 5
    assert (plain_run / "report.html").is_file()


def test_a_second_run_touches_nothing(plain_run, settings):
    before = {path: path.stat().st_mtime_ns for path in plain_run.rglob("*") if path.is_file()}
    again = run_cohort(settings, plain_run)
    after = {path: path.stat().st_mtime_ns for path in plain_run.rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert (again.done, again.kept, len(again.failures)) == (0, 5, 1)
    assert changed <= {"lock"}


def test_another_option_measures_again_what_it_decides(plain_run, settings, tmp_path):
    shutil.copytree(plain_run, tmp_path / "run")
    other = settings.model_copy(update={"features": settings.features.model_copy(update={"outside": False})})
    masks = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("segmented/*/lesion.nii.gz")}
    assert run_cohort(other, tmp_path / "run").done == 4
    assert all(path.stat().st_mtime_ns == when for path, when in masks.items())
    assert "outside_" not in (tmp_path / "run" / "features.csv").read_text().splitlines()[0]


def test_answers_of_other_steps_do_not_stay(plain_run, settings, tmp_path):
    shutil.copytree(plain_run, tmp_path / "run")
    old = "patient_id,probability\n" + "".join(f"PHANTOM-00{n},0.987\n" for n in range(1, 6))
    (tmp_path / "run" / "predictions.csv").write_text(old)
    run_cohort(settings.model_copy(update={"steps": ("segment", "report")}), tmp_path / "run")
    assert not (tmp_path / "run" / "predictions.csv").exists()
    assert not (tmp_path / "run" / "features.csv").exists()
    for name in ("cohort.csv", "patients.csv", "report.html"):
        assert "0.987" not in (tmp_path / "run" / name).read_text()


def test_two_workers_and_another_order_of_the_manifest_change_no_byte(plain_run, settings, tmp_path):
    cases = tmp_path / "cases"
    shutil.copytree(settings.source, cases)
    header, *lines = (cases / "manifest.csv").read_text().splitlines()
    random.Random(0).shuffle(lines)
    (cases / "manifest.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")
    run_cohort(settings.model_copy(update={"source": cases}), tmp_path / "run", WorkerOptions(jobs=2))
    assert results(tmp_path / "run") == results(plain_run)


def test_the_parts_of_a_job_array_make_one_run(plain_run, settings, tmp_path):
    first = run_cohort(settings, tmp_path / "run", WorkerOptions(part=(1, 2)))
    assert first.missing == 2 and not (tmp_path / "run" / "cohort.csv").exists()
    last = run_cohort(settings, tmp_path / "run", WorkerOptions(part=(2, 2)))
    assert last.missing == 0
    assert results(tmp_path / "run") == results(plain_run)


def test_a_worker_killed_in_every_case_changes_no_byte(plain_run, settings, tmp_path):
    run_cohort(settings, tmp_path / "run", WorkerOptions(jobs=2), work=dies_once_on_each)
    assert results(tmp_path / "run") == results(plain_run)


def test_a_case_on_which_every_worker_dies_takes_no_other_along(settings, tmp_path):
    report = run_cohort(settings, tmp_path / "run", WorkerOptions(jobs=2), work=dies_on_one)
    reasons = {row["case_id"]: row["reason"] for row in report.failures}
    assert report.done == 3 and reasons.keys() == {FATAL, BROKEN}
    assert "died 3 times" in reasons[FATAL]
    assert run_cohort(settings, tmp_path / "run").done == 0  # a plain run leaves failures alone
    mended = run_cohort(settings_of_run(tmp_path / "run"), tmp_path / "run", retry=True)
    assert mended.done == 1 and [row["case_id"] for row in mended.failures] == [BROKEN]


def test_a_full_disk_ends_the_run_and_fails_no_case(plain_run, settings, tmp_path):
    with pytest.raises(OutputError, match="No space left"):
        run_cohort(settings, tmp_path / "run", work=finds_the_disk_full)
    counts = cohort_status(tmp_path / "run").counts
    assert (counts["done"], counts["failed"]) == (1, 0)
    run_cohort(settings, tmp_path / "run")
    assert results(tmp_path / "run") == results(plain_run)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB, with how to give it more."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip("only root mounts a small file system")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_is_truly_full(plain_run, settings, small_disk):
    place, grow = small_disk
    with pytest.raises(OutputError, match="No space left"):
        run_cohort(settings, place / "run")
    found = cohort_status(place / "run")
    assert {row["case_id"] for row in found.failures} <= {BROKEN} and found.counts["done"] < 4
    grow()
    run_cohort(settings, place / "run")
    assert results(place / "run") == results(plain_run)


def test_a_head_killed_at_random_moments_goes_on_and_its_workers_end(plain_run, settings, tmp_path):
    rng = random.Random(1)
    for _ in range(2):
        kill_head(start(settings, tmp_path / "run"), tmp_path / "run", rng.uniform(0, 0.4))
    run_cohort(settings, tmp_path / "run")
    assert results(tmp_path / "run") == results(plain_run)


def test_a_killed_worker_a_second_head_and_a_sigterm(plain_run, settings, tmp_path):
    run = tmp_path / "run"
    head = start(settings, run)
    wait_until(lambda: any(run.glob(".cohort/tries/*")))
    time.sleep(random.Random(2).uniform(0, 0.3))
    worker = next((mark.name.split(".")[-1].split("-")[0] for mark in run.glob(".cohort/tries/*")), None)
    if worker:
        os.kill(int(worker), signal.SIGKILL)
    with pytest.raises(OutputError, match=f"is held by process {head.pid} on {socket.gethostname()}"):
        run_cohort(settings, run)
    assert cohort_status(run).is_running
    os.kill(head.pid, signal.SIGTERM)
    said = head.communicate(timeout=10)[1]
    assert head.returncode == 130 and said == "radiogen: interrupted; the same command goes on where it was\n"
    wait_until(lambda: not processes_of(head.pid), 10)
    assert not cohort_status(run).is_running
    run_cohort(settings, run)
    assert results(run) == results(plain_run)


def test_the_name_of_a_machine_stays_in_its_lock(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("radiogen.locks.socket.gethostname", lambda: "node-of-the-hospital")
    run_cohort(settings, tmp_path / "run")
    holders = [path for path in (tmp_path / "run").rglob("*")
               if path.is_file() and b"node-of-the-hospital" in path.read_bytes()]  # fmt: skip
    assert holders == [tmp_path / "run" / ".cohort" / "lock"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda text: text.replace("patient_id", "name"), "has no column patient_id"),
        (lambda text: text.replace("phantom-002,", "phantom-001,"), "comes twice"),
        (lambda text: text.replace("phantom-002,", "../phantom-002,"), "is not usable"),
        (lambda text: text.replace("phantom-002/ct", "../phantom-002/ct"), "lies outside"),
    ],
)
def test_a_damaged_manifest_is_refused_and_nothing_is_written(wrong, said, settings, tmp_path):
    cases = tmp_path / "cases"
    shutil.copytree(settings.source, cases)
    (cases / "manifest.csv").write_text(wrong((cases / "manifest.csv").read_text()))
    with pytest.raises(RadiogenError, match=said):
        run_cohort(settings.model_copy(update={"source": cases}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
