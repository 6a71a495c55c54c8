"""A cohort is brought whole, from wherever a download stopped, or it is said what is missing."""

import shutil
import subprocess
import sys
import time

import pytest
from archive import BUCKET, serve, write_rows
from tiny_cases import TINY

from radiogen.cohorts import download as downloads
from radiogen.cohorts.download import download, plan_download
from radiogen.cohorts.index import SeriesSelection
from radiogen.cohorts.requests import find_request
from radiogen.cohorts.series_on_disk import check_tree
from radiogen.errors import OutputError
from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.options import IngestOptions
from radiogen.phantoms.cohort import make_phantoms


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    made = make_phantoms(folder / "made", 3, seed=0, size=TINY, broken=False)
    archive, server = serve(made.dicom, folder)
    yield archive
    server.stop()


def rows_of(archive, **wanted):
    return find_request(str(archive.card), SeriesSelection(**wanted), archive.index).rows


def bring(archive, out, rows=None):
    rows = rows_of(archive) if rows is None else rows
    plan = plan_download(rows, out)
    return plan, download(plan, out, archive.endpoint)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_brought_is_whole_and_ingests_by_its_card(archive, tmp_path):
    plan, failed = bring(archive, tmp_path / "dicom")
    assert not failed and len(plan.missing) >= 6 and not plan.present
    found = check_tree(tmp_path / "dicom", plan.missing)
    assert all(one.state == "complete" for one in found.series) and not found.others and not found.copies
    made = ingest(tmp_path / "dicom", tmp_path / "cases", IngestOptions(cohort=str(archive.card)))
    assert [case.case_id for case in made.cases] == ["PHANTOM-001", "PHANTOM-002", "PHANTOM-003"]
    assert all((tmp_path / "cases" / case.case_id / "lesion.nii.gz").is_file() for case in made.cases)
    manifest = (tmp_path / "cases" / "manifest.csv").read_text()
    assert ",made," in manifest and str(tmp_path) not in manifest


def test_a_second_download_moves_nothing(archive, tmp_path, monkeypatch):
    bring(archive, tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(downloads.Bucket, "fetch", None)
    plan, failed = bring(archive, tmp_path)
    assert not plan.missing and not failed and plan.bytes == 0
    assert contents(tmp_path) == before


def test_a_killed_download_goes_on_with_the_files_that_are_whole(archive, tmp_path, monkeypatch):
    bring(archive, tmp_path / "whole")
    series = rows_of(archive)[0]
    fetch, fetched = downloads.Bucket.fetch, []

    def dies_after_four(self, file, target):
        if len(fetched) >= 4:
            raise KeyboardInterrupt
        fetched.append(file.name)
        fetch(self, file, target)

    monkeypatch.setattr(downloads.Bucket, "fetch", dies_after_four)
    monkeypatch.setattr(downloads, "CONNECTIONS", 1)
    with pytest.raises(KeyboardInterrupt):
        bring(archive, tmp_path / "killed")
    assert not (tmp_path / "killed" / series.folder).exists(), "a part must not look like the whole"
    again = []

    def noted(self, file, target):
        again.append(file.name)
        fetch(self, file, target)

    monkeypatch.setattr(downloads.Bucket, "fetch", noted)
    _, failed = bring(archive, tmp_path / "killed")
    assert not failed and not set(again) & set(fetched)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_series_that_another_tool_left_in_part_or_spoiled_is_mended(archive, tmp_path):
    bring(archive, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "mine")
    ct = next(row for row in rows_of(archive) if row.modality == "CT")
    first, second, *_ = sorted((tmp_path / "mine" / ct.folder).iterdir())
    first.unlink()
    spoiled = bytearray(second.read_bytes())
    spoiled[-1] ^= 1
    second.write_bytes(spoiled)
    plan, failed = bring(archive, tmp_path / "mine")
    assert plan.missing == (ct,) and not failed
    assert contents(tmp_path / "mine") == contents(tmp_path / "whole")


def test_a_file_that_is_not_of_the_series_is_left_alone_and_named(archive, tmp_path):
    ct = next(row for row in rows_of(archive) if row.modality == "CT")
    (tmp_path / ct.folder).mkdir(parents=True)
    (tmp_path / ct.folder / "notes.txt").write_text("mine")
    _, failed = bring(archive, tmp_path)
    assert [one.row for one in failed] == [ct] and "notes.txt" in str(failed[0].error)
    assert [path.read_text() for path in tmp_path.rglob("notes.txt")] == ["mine"]


def test_a_series_that_changed_in_the_archive_fails_alone(archive, tmp_path):
    rows = list(rows_of(archive))
    short = rows[0].__class__(**{**rows[0].__dict__, "files": rows[0].files + 1})
    _, failed = bring(archive, tmp_path, [short, *rows[1:]])
    assert [one.row for one in failed] == [short] and "newer index" in str(failed[0].error)
    assert all(one.state == "complete" for one in check_tree(tmp_path, rows[1:]).series)


def test_bytes_that_change_on_the_way_are_never_written(archive, tmp_path, monkeypatch):
    write = downloads.Bucket._write

    def spoiled(self, key, draft):
        size, _ = write(self, key, draft)
        return size, "0" * 32

    monkeypatch.setattr(downloads.Bucket, "_write", spoiled)
    _, failed = bring(archive, tmp_path)
    assert len(failed) == len(rows_of(archive)) and "another MD5" in str(failed[0].error)
    assert not contents(tmp_path)


def test_a_key_that_leaves_its_folder_is_refused(archive, tmp_path):
    series = next(row for row in rows_of(archive) if row.modality != "CT")
    evil = f"{series.uuid}/../../evil.dcm"
    archive.client().put_object(Bucket=BUCKET, Key=evil, Body=b"x", ACL="public-read")
    try:
        _, failed = bring(archive, tmp_path / "dicom", [series])
    finally:
        archive.client().delete_object(Bucket=BUCKET, Key=evil)
    assert "evil.dcm" in str(failed[0].error) and not list(tmp_path.rglob("*.dcm"))


def test_a_server_that_is_not_there_is_given_up_on(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "STOP_AFTER", 1)
    plan = plan_download(rows_of(archive), tmp_path)
    failed = download(plan, tmp_path, "http://127.0.0.1:9")
    assert len(failed) == len(plan.missing) and "\n" not in str(failed[0].error)
    assert "cannot be downloaded" in str(failed[0].error) and "not tried" in str(failed[1].error)


def test_kill_9_leaves_what_the_same_command_goes_on_with(archive, tmp_path):
    out = tmp_path / "dicom"
    words = ["cohort", "download", archive.card, "-o", out, "--index", archive.index, "--yes"]
    code = "import sys; from radiogen.cli.main import run; sys.exit(run())"
    slow = "import time; from radiogen.cohorts.download import Bucket as B; f = B.fetch; "
    slow += "B.fetch = lambda *a: (time.sleep(0.2), f(*a)); "
    command = [sys.executable, "-c", slow + code, *map(str, words), "--endpoint", archive.endpoint]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.rglob("*.dcm"))) < 12 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.kill()
    assert running.wait(10) == -9, "it had ended before it was killed"
    bring(archive, tmp_path / "whole")
    plan, failed = bring(archive, out)
    assert plan.missing and not failed
    assert contents(out) == contents(tmp_path / "whole")


def test_a_disk_without_room_is_refused_before_a_byte_moves(archive, tmp_path):
    row = rows_of(archive)[0]
    huge = row.__class__(**{**row.__dict__, "bytes": 10**18})
    with pytest.raises(OutputError, match="free"):
        bring(archive, tmp_path / "dicom", [huge])
    assert not (tmp_path / "dicom").exists()


def test_patients_limit_and_outline_choose(archive, tmp_path):
    assert {row.patient for row in rows_of(archive, patients=("PHANTOM-002",))} == {"PHANTOM-002"}
    assert {row.patient for row in rows_of(archive, limit=2)} == {"PHANTOM-001", "PHANTOM-002"}
    ids = [r for r in archive.rows if not (r["PatientID"] == "PHANTOM-001" and r["Modality"] != "CT")]
    index = write_rows(tmp_path / "index.csv", ids)
    found = find_request(str(archive.card), SeriesSelection(only_with_outline=True), index)
    assert {row.patient for row in found.rows} == {"PHANTOM-002", "PHANTOM-003"}
