"""What mkdocs does beside rendering: it adds the pages that are made from the program, and the decisions."""

import re
from pathlib import Path

from commands_page import commands_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from settings_page import settings_page

ROOT = Path(__file__).resolve().parents[2]
LINK_OUT = re.compile(r"\]\(docs/")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every page of docs/decisions into the navigation, under its own title."""
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    decisions = [{_title(page): f"decisions/{page.name}"} for page in pages]
    explanation = next(part["Explanation"] for part in config.nav if "Explanation" in part)
    explanation.append({"Decisions": decisions})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made anew at every build, so that they cannot grow old."""
    card = (ROOT / "models" / "raseg-starter" / "MODEL_CARD.md").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    made = {
        "commands": commands_page(),
        "settings": settings_page(),
        "starter-model": card,
        "changes": LINK_OUT.sub("](../", changes),
    }
    for name, text in made.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def _title(page: Path) -> str:
    """Return the heading of a page."""
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
