"""The documentation builds without a network or a dead link, and what it shows is what the program does."""

import doctest
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer
from radiogen.cli.main import app
from shown_commands import options_of, shown_commands, understand

import radiogen
from radiogen.cohorts.settings import CohortSettings
from radiogen.config import load_settings
from radiogen.segmentation.volume import SegmentationSettings
from radiogen.training.settings import load_preset

ROOT = Path(__file__).parents[1]
DOCS, SITE = ROOT / "docs", ROOT / "docs" / "site"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if path.parent != DOCS / "decisions"
}
TYPED = [(name, words) for name, text in PAGES.items() for words in shown_commands(text)]
NO_OPTION_OF_OURS = {"--array", "--nworkers", "--nthreads", "--memory-limit", "--resources", "--standalone"}


class Page(HTMLParser):
    """What a page fetches, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched, self.anchors, self.text = [], set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag in ("script", "img", "iframe", "source"):
            self.fetched.append(found.get("src") or "")
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.fetched.append(found.get("href") or "")
        if "id" in found:
            self.anchors.add(found["id"])

    def handle_data(self, data):
        self.text += f"{data} "  # cells of a table do not touch


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, as `make docs` builds it: a dead link or anchor or a lost page is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "-f",
        SITE / "mkdocs.yml",
        "-d",
        out,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def read(site, name):
    return Page((site / f"{name}.html").read_text(encoding="utf-8"))


def leaves(group, path=()):
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def test_the_site_fetches_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for path in pages:
        page = Page(path.read_text(encoding="utf-8"))
        assert [place for place in page.fetched if re.match(r"(?:https?:)?//", place)] == [], path.name


def test_every_page_is_in_the_navigation(site):
    # mkdocs would only warn; with --strict the fixture has failed then. Here the same, spelled out.
    start = (site / "index.html").read_text(encoding="utf-8")
    navigation = start[start.index("md-nav--primary") :]
    for path in [*PAGES, *(f"decisions/{page.name}" for page in (DOCS / "decisions").glob("*.md"))]:
        assert f'href="{path.removesuffix(".md")}.html"' in navigation, f"{path} is in no navigation"


def test_every_command_and_option_is_on_the_page_of_commands(site):
    page = read(site, "reference/commands")
    words = set(re.findall(r"--?[a-z][\w-]*", page.text))
    for path, command in leaves(typer.main.get_command(app)):
        assert f"radiogen {' '.join(path)}" in page.text
        assert "-".join(("radiogen", *path)).replace(" ", "-") in page.anchors
        options = {name for option in command.params for name in option.opts if name.startswith("-")}
        assert options <= words, path


def test_every_setting_has_its_default_and_a_meaning(site, monkeypatch):
    monkeypatch.syspath_prepend(SITE)
    import settings_page
    from settings_page import PARTS, RunSettings, settings_of

    page = read(site, "reference/settings")
    rows = [row for model in (RunSettings, *(part.model for part in PARTS)) for row in settings_of(model)]
    assert len(rows) > 200 and not doctest.testmod(settings_page).failed
    for row in rows:
        assert row.key in page.text
        assert row.meaning, f"{row.key} has no meaning: give its field a description, a comment or a line"


def test_the_face_of_the_library_is_on_the_page_of_python(site):
    page = read(site, "reference/python")
    assert {f"radiogen.{name}" for name in radiogen.__all__} <= page.anchors
    assert "radiogen.config.load_settings" in page.anchors and "OutlineError" in page.text


@pytest.mark.parametrize(("name", "words"), TYPED, ids=[f"{name}: {' '.join(w)}"[:90] for name, w in TYPED])
def test_a_command_that_is_shown_is_understood(name, words):
    path, given = understand(words)
    if path in ("radiogen train", "radiogen prune"):
        load_preset(given["preset"], None, given["overrides"] or ())
    if path == "radiogen segment":
        load_settings(SegmentationSettings, overrides=given["overrides"] or ())


def test_commands_are_found_in_every_kind_of_block():
    text = (
        'x\n\n    radiogen doctor  # why\n    srun "$(which radiogen)" train cases \\\n'
        "        -o m || true\n\n"
        "y `radiogen demo`\n\n```console\n$ radiogen qc cases -o qc.html\nradiogen said this\n```\n"
        "```text\nradiogen nothing\n```\n"
    )
    found = shown_commands(text)
    assert found == [["doctor"], ["train", "cases", "-o", "m"], ["qc", "cases", "-o", "qc.html"]]
    assert len(TYPED) > 90


def test_a_stale_command_is_seen():
    for stale in (
        ["qc", "cases", "--page", "x"],
        ["train", "cases"],
        ["cohort", "go"],
        ["train", "c", "-o", "m", "--preset", "huge"],
    ):
        with pytest.raises(Exception, match=r"No such|Missing|not one of"):
            understand(stale)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_with_commands_says_what_they_need(name):
    if name != "tutorial.md" and shown_commands(PAGES[name]):
        assert re.search(r"^\*Needs: ", PAGES[name], flags=re.MULTILINE), (
            f"{name} shows commands; say *Needs: ...*"
        )


@pytest.mark.parametrize("name", PAGES)
def test_what_a_text_says_of_commands_and_options_is_so(name):
    every = {option for path, _ in leaves(typer.main.get_command(app)) for option in options_of(list(path))}
    for said in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL)):
        if re.match(r"radiogen [a-z]", said) and "|" not in said:
            words = shlex.split(said)[1:]
            options = {word for word in words if re.match(r"--?[a-z]", word)}
            if words[0] in ("model", "cohort", "benchmark") and len(words) == 1:
                continue
            assert options <= options_of(words), said
        elif re.match(r"--[a-z]", said):
            option = re.match(r"--[a-z-]+", said).group()
            assert option in every | NO_OPTION_OF_OURS, f"{name}: {said}"


def test_the_settings_that_the_texts_name_exist():
    run = load_preset("paper")
    cohort = CohortSettings(source=Path("x"), steps=("ingest",))
    segmentation = SegmentationSettings()
    for name, text in PAGES.items():
        for key in re.findall(
            r"`((?:network|preprocessing|training|auto|features)\.[a-z_.]+)(?!\.?[a-z])", text
        ):
            if key.rpartition(".")[2] in ("csv", "json"):  # a file
                continue
            owner = {"auto": segmentation, "features": cohort}.get(key.partition(".")[0], run)
            for part in key.split("."):
                assert hasattr(owner, part), f"{name}: {key}"
                owner = getattr(owner, part)
