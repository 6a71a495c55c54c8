"""Read a page back: its tags, its words, and whether it is well nested."""

from html.parser import HTMLParser
from pathlib import Path

from radiogen.report.page import report

VOID = {"meta", "img", "br", "input"}


class Reader(HTMLParser):
    """Collects tags and words, and notes tags that close out of turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.wrong: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    assert not reader.wrong and not reader.open, "the page is not well nested"
    return reader


def text_of(page: Path) -> str:
    return " ".join(" ".join(read(page).words).split())


def write_page(run: Path) -> Path:
    return report(run, run.parent / "page.html")
