"""Every command of the tutorial runs, in its order, and says what the tutorial shows that it says."""

import json
import re
from pathlib import Path

import pytest
from shown_commands import blocks, call_lesion_early, type_command, words_of

TUTORIAL = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text(encoding="utf-8")
FILES = (Path(__file__).parents[1] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
COARSE = ("preprocessing.spacing_mm=[8, 8, 8]", "preprocessing.size=[32, 32, 32]", "training.epochs=2")
QUICK = {  # what makes a command quick; nothing that is shown is changed
    "phantoms": ["--patients", "24", "--spacing", "5,5,7"],
    "train": [word for pair in COARSE for word in ("--set", pair)],
    "train-egfr": ["--folds", "3", "--repeats", "1", "--permutations", "2"],
}
KEYS = (
    *("cases/PHANTOM-001/case.json", "cases/split.json", "model/config.json", "model/model.run.json"),
    *("features.json", "egfr/config.json"),
)
COLUMNS = (
    *("cases/manifest.csv", "segmented/lesions.csv", "segmented/failures.csv", "evaluation.csv"),
    *("evaluation_lesions.csv", "features.csv", "predictions.csv"),
)


def steps():
    """The commands with what they are shown to say."""
    shown = [text for language, text in blocks(TUTORIAL) if language == "console"]
    for text in shown:
        command, _, said = text.partition("\n")
        yield words_of(command.removeprefix("$ radiogen")), said.splitlines()


def opening(line):
    """How a line begins, whatever its numbers are: `PHANTOM-004 lesion 1 24 ml` -> `PHANTOM-# lesion ml`."""
    words = re.sub(r"[-+]?\d+(?:\.\d+)*", "#", line).split()
    return " ".join([word for word in words if re.search("[A-Za-z]", word)][:3])


def assert_described(home):
    """Every file that was made, every key and column in it, stands on the page of files."""
    paths = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    made = {path.name for path in paths if path.parts[0] not in ("phantoms", ".features.parts")}
    for name in made - {"coarse.yaml", "qc.html", "case.html"}:
        known = {"model.run.json", "egfr.run.json"}
        described = "<name>.run.json" if name.endswith(".run.json") and name not in known else name
        assert f"`{described}`" in FILES, f"docs/reference/files.md does not name {name}"
    for name in KEYS:
        for key in json.loads((home / name).read_text()):
            assert f"`{key}`" in FILES, f"docs/reference/files.md does not name {key} of {name}"
    for name in COLUMNS:
        header = (home / name).read_text().partition("\n")[0]
        for column in header.split(",")[: 3 if name == "features.csv" else None]:
            assert f"`{column}`" in FILES, f"docs/reference/files.md does not name {column} of {name}"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An empty folder with the YAML that the tutorial says to save."""
    home = tmp_path_factory.mktemp("tutorial")
    name, text = re.search(r'```yaml title="([\w.]+)"\n(.*?)```', TUTORIAL, flags=re.DOTALL).groups()
    (home / name).write_text(text)
    return home


def test_the_tutorial_shows_what_is_said_and_every_file_is_described(home, monkeypatch, capsys):
    # One test, since each command needs what those before it made.
    verbs = []
    for words, shown in steps():
        code = type_command([*words, *QUICK.get(words[0], [])], home, monkeypatch)
        out, err = capsys.readouterr()
        assert code == (3 if any(" failed; reasons" in line for line in shown) else 0), f"{words}\n{err}"
        said = {opening(line) for line in (out + err).splitlines()}
        for line in shown:
            assert line == "..." or opening(line) in said, f"{words} does not say: {line}"
        if words[0] == "train":
            call_lesion_early(home / "model" / "config.json")
        verbs.append(words[0])
    road = ["phantoms", "ingest", "ingest", "qc", "split", "train", "segment", "evaluate"]
    assert verbs == [*road, "extract-features", "train-egfr", "classify-egfr", "report", "report"]
    assert_described(home)
