"""Whatever does the work, and however often it is killed, a cohort ends with the same bytes."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cohorts.cohort_workers import FATAL, dies_on_one, dies_once_on_each, finds_the_disk_full
from cohorts.conftest import BROKEN, results

from radiogen.cohorts.holding import held
from radiogen.cohorts.run import Spread, remembered, run_cohort
from radiogen.cohorts.status import cohort_status
from radiogen.errors import OutputError, RadiogenError
from radiogen.provenance import write_json

ROOT = Path(__file__).parents[2]


def start(settings, run, *more):
    """A head in a process of its own, with two workers."""
    config = run.parent / "settings.json"
    write_json(config, json.loads(settings.model_dump_json()))
    said = (
        "import sys; from pathlib import Path; from radiogen.cohorts.run import run_cohort, Spread;"
        "from radiogen.cohorts.settings import CohortSettings;"
        "from radiogen.cli import main; import signal; signal.signal(signal.SIGTERM, main._interrupt);"
        "run_cohort(CohortSettings.model_validate_json(Path(sys.argv[1]).read_text()),"
        " Path(sys.argv[2]), Spread(jobs=2))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", said, config, run], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True
    )


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


def wait_until(true, seconds=60):
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
    run_cohort(settings.model_copy(update={"source": cases}), tmp_path / "run", Spread(jobs=2))
    assert results(tmp_path / "run") == results(plain_run)


def test_the_parts_of_a_job_array_make_one_run(plain_run, settings, tmp_path):
    first = run_cohort(settings, tmp_path / "run", Spread(part=(1, 2)))
    assert first.missing == 2 and not (tmp_path / "run" / "cohort.csv").exists()
    last = run_cohort(settings, tmp_path / "run", Spread(part=(2, 2)))
    assert last.missing == 0
    assert results(tmp_path / "run") == results(plain_run)


def test_a_worker_killed_in_every_case_changes_no_byte(plain_run, settings, tmp_path):
    run_cohort(settings, tmp_path / "run", Spread(jobs=2), work=dies_once_on_each)
    assert results(tmp_path / "run") == results(plain_run)


def test_a_case_on_which_every_worker_dies_takes_no_other_along(settings, tmp_path):
    report = run_cohort(settings, tmp_path / "run", Spread(jobs=2), work=dies_on_one)
    reasons = {row["case_id"]: row["reason"] for row in report.failures}
    assert report.done == 3 and reasons.keys() == {FATAL, BROKEN}
    assert "died 3 times" in reasons[FATAL]
    assert run_cohort(settings, tmp_path / "run").done == 0  # a plain run leaves failures alone
    mended = run_cohort(remembered(tmp_path / "run"), tmp_path / "run", retry=True)
    assert mended.done == 1 and [row["case_id"] for row in mended.failures] == [BROKEN]


def test_a_full_disk_ends_the_run_and_fails_no_case(plain_run, settings, tmp_path):
    with pytest.raises(OutputError, match="No space left"):
        run_cohort(settings, tmp_path / "run", work=finds_the_disk_full)
    counts = cohort_status(tmp_path / "run").counts
    assert (counts["done"], counts["failed"]) == (1, 0)
    run_cohort(settings, tmp_path / "run")
    assert results(tmp_path / "run") == results(plain_run)


def test_a_head_killed_at_random_moments_goes_on_and_its_workers_end(plain_run, settings, tmp_path):
    chance = random.Random(1)
    for _ in range(2):
        kill_head(start(settings, tmp_path / "run"), tmp_path / "run", chance.uniform(0, 0.4))
    run_cohort(settings, tmp_path / "run")
    assert results(tmp_path / "run") == results(plain_run)


def test_two_heads_and_a_sigterm(plain_run, settings, tmp_path):
    head = start(settings, tmp_path / "run")
    wait_until(lambda: any((tmp_path / "run").glob(".cohort/tries/*")))
    with pytest.raises(OutputError, match=f"is held by process {head.pid}"):
        run_cohort(settings, tmp_path / "run")
    assert cohort_status(tmp_path / "run").is_running
    os.kill(head.pid, signal.SIGTERM)
    head.communicate(timeout=10)
    wait_until(lambda: not processes_of(head.pid), 10)
    assert not cohort_status(tmp_path / "run").is_running
    with held(tmp_path / "run" / ".cohort" / "lock"):
        pass


def test_a_dask_cluster_changes_no_byte(plain_run, settings, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        run_cohort(settings, tmp_path / "run", Spread(scheduler=cluster.scheduler_address))
    assert results(tmp_path / "run") == results(plain_run)


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


def test_a_real_tree_goes_the_road_with_its_names_as_they_are(shared_data, settings, tmp_path):
    real = settings.model_copy(update={"source": shared_data / "lung_4d_113", "steps": ("ingest", "report")})
    real = real.model_copy(update={"ingest": real.ingest.model_copy(update={"cohort": "lung_4d"})})
    report = run_cohort(real, tmp_path / "run")
    assert report.done == 1 and not report.failures
    assert (tmp_path / "run" / "cases" / "113_HM10395" / "lesion.nii.gz").is_file()
    assert run_cohort(real, tmp_path / "run").kept == 1
