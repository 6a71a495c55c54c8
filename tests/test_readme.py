"""Every command of the README runs, in its order, as a stranger would type it."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from shown_commands import call_lesion_early, shown_commands, type_command
from tiny_cases import TINY

from radiogen.io.nifti import read_mask
from radiogen.phantoms.cohort import make_phantoms
from radiogen.segmentation.segment import MASK
from radiogen.training.train import train
from radiogen.volume import array_of

DOCS = Path(__file__).parents[1] / "docs"
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = shown_commands(README)
INLINE = [shlex.split(text) for text in re.findall(r"`radiogen ([a-z-]+ [^`|]*--[^`|]*)`", README)]
COARSE = ("preprocessing.spacing_mm=[8, 8, 8]", "preprocessing.size=[32, 32, 32]", "training.epochs=2")
SETS = [word for pair in COARSE for word in ("--set", pair)]
QUICK = {  # what makes a command quick; nothing of the line itself is changed
    "prune": ["--samples", "4", *SETS],
    "train": SETS,
    "train-egfr": ["--folds", "3", "--repeats", "1", "--permutations", "0"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder as the README assumes it: scans of a cohort, its clinical table, one new scan."""
    home = tmp_path_factory.mktemp("home")
    made = make_phantoms(home / "phantoms", 30, seed=0, size=TINY, broken=False)
    shutil.move(made.dicom, home / "scans")
    shutil.move(made.clinical, home / "clinical.csv")
    new = make_phantoms(home / "more", 1, seed=5, size=TINY, broken=False)
    shutil.move(next(new.dicom.iterdir()), home / "scan")
    return home


def train_and_call_early(cases, out, *rest):
    trained = train(cases, out, *rest)
    call_lesion_early(out / "config.json")
    return trained


def quickly(words, home, monkeypatch):
    return type_command([*words, *QUICK.get(words[0], [])], home, monkeypatch)


def test_the_readme_shows_the_three_commands_that_must_exist():
    shown = {words[0] for words in COMMANDS}
    assert {"segment", "classify-egfr", "prune"} <= shown
    assert len(COMMANDS) >= 10 and len(INLINE) == 2


def test_the_commands_of_the_readme_run_in_their_order(home, monkeypatch, capsys):
    # One test, since each command needs what those before it made.
    for words in COMMANDS:
        assert quickly(words, home, monkeypatch) == 0, f"{words}\n{capsys.readouterr().err}"
        if words[:2] == ["train", "cases"]:
            call_lesion_early(home / "model" / "config.json")
    words = next(words for words in INLINE if words[0] == "classify-egfr")
    assert quickly([*words, "--prior", "box"], home, monkeypatch) == 0, capsys.readouterr().err
    assert (home / "patient" / "report.html").is_file()
    assert (home / "patient" / "predictions.csv").read_text().count("\n") == 2


@pytest.mark.parametrize("page", ["formats"])
def test_the_commands_of_a_page_run_in_their_order(page, tmp_path, tiny_model, monkeypatch, capsys):
    made = make_phantoms(tmp_path / "made", 2, seed=0, size=TINY, broken=False)
    shutil.move(made.dicom, tmp_path / "scans")
    shutil.copytree(
        sorted(path for path in (tmp_path / "scans").iterdir() if path.is_dir())[0], tmp_path / "scan"
    )
    shutil.copytree(tiny_model.folder, tmp_path / "model")
    call_lesion_early(tmp_path / "model" / "config.json")
    commands = shown_commands((DOCS / f"{page}.md").read_text(encoding="utf-8"))
    assert len(commands) >= 9
    for words in commands:
        cases = [path.parent.name for path in (tmp_path / "seen").glob("*/lesion.nii.gz")]
        typed = [word.replace("CASE", cases[0] if cases else "CASE") for word in words]
        assert type_command(typed, tmp_path, monkeypatch) == 0, f"{typed}\n{capsys.readouterr().err}"
    assert {"model.onnx", "model.pt", "bundle", "lesion.rtstruct.dcm"} <= {
        path.name for path in tmp_path.iterdir()
    }
    converted, first = (
        read_mask(path) for path in (tmp_path / "lesion.nii.gz", tmp_path / "seen" / cases[0] / MASK)
    )
    assert (array_of(converted) == array_of(first)).all()
    assert len(list((tmp_path / "segmented").glob("*/lesion.seg.dcm"))) == 2


def test_the_demo_goes_the_whole_road(tmp_path, monkeypatch, capsys):
    words = next(words for words in INLINE if words[0] == "demo")
    assert words[-4:] == ["--patients", "40", "--seed", "0"]
    short = [*words, "--patients", "8"]
    monkeypatch.setattr("radiogen.cohorts.demo.PATCHES", 8)
    monkeypatch.setattr("radiogen.cohorts.demo.EPOCHS", 2)
    monkeypatch.setattr("radiogen.cohorts.demo.train", train_and_call_early)
    assert type_command(short, tmp_path, monkeypatch) == 0, capsys.readouterr().err
    assert "Not for clinical use" in (tmp_path / "demo" / "report.html").read_text()
    assert type_command(short, tmp_path, monkeypatch) == 1
    assert "--existing overwrite" in capsys.readouterr().err
    masks = sorted((tmp_path / "demo" / "segmented").glob("*/lesion.nii.gz"))
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in masks]
    assert type_command([*short, "--existing", "skip"], tmp_path, monkeypatch) == 0, capsys.readouterr().err
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in masks] == before and masks
    assert type_command([*short, "--existing", "skip", "--patients", "9"], tmp_path, monkeypatch) == 1
    assert "another cohort" in capsys.readouterr().err
