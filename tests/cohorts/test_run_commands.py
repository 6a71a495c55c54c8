"""The commands that look at a run and take it up again, as they are typed."""

import json
import shutil
import subprocess
import sys

from cohorts.conftest import BROKEN
from radiogen.cli.main import app
from tiny_cases import tiny_case
from typer.testing import CliRunner

from radiogen.cohorts.run import run_cohort


def typed(*words: object):
    return CliRunner().invoke(app, ["cohort", *map(str, words)])


def test_status_tells_people_and_programs_how_far_a_run_is(plain_run):
    told = json.loads(typed("status", plain_run, "--json").stdout)
    assert told["counts"] == {"done": 4, "failed": 1, "working": 0, "waiting": 0}
    assert not told["is_running"] and [row["case_id"] for row in told["failures"]] == [BROKEN]
    lines = typed("status", plain_run).stdout.splitlines()
    assert lines[0] == "done 4\tfailed 1\tworking 0\twaiting 0" and lines[1] == "not running"
    assert any(line.startswith(f"{BROKEN}\tsegment\t") for line in lines)


def test_status_is_a_glance_and_loads_no_network(plain_run):
    program = (
        "import sys\nfrom radiogen.cli.main import run\ntry:\n    run()\nfinally:\n"
        "    print(*sorted({'torch', 'monai', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", program, "cohort", "status", str(plain_run)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[0].startswith("done 4") and told[-1] == ""


def test_a_result_that_is_gone_is_no_longer_counted_as_done(plain_run, tmp_path):
    mask = next((plain_run / "segmented").glob("*/lesion.nii.gz"))
    mask.rename(tmp_path / mask.name)
    told = json.loads(typed("status", plain_run, "--json").stdout)
    (tmp_path / mask.name).rename(mask)
    assert (told["counts"]["done"], told["counts"]["waiting"]) == (3, 1)
    assert json.loads(typed("status", plain_run, "--json").stdout)["counts"]["done"] == 4


def test_retry_takes_up_what_failed_and_nothing_else(settings, tmp_path):
    shutil.copytree(settings.source, tmp_path / "cases")
    run_cohort(settings.model_copy(update={"source": tmp_path / "cases"}), tmp_path / "run")
    again = typed("retry", tmp_path / "run")
    assert again.exit_code == 3 and "0 cases done now\t4 settled before" in again.stdout
    whole = tiny_case(tmp_path / "whole", number=int(BROKEN[-1]))
    shutil.copyfile(whole.lungs_path, tmp_path / "cases" / BROKEN / "lungs.nii.gz")
    mended = typed("retry", tmp_path / "run")
    assert mended.exit_code == 0 and "1 cases done now\t4 settled before" in mended.stdout
