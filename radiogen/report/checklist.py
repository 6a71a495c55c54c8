"""Fill in a reporting checklist from the files of a run; the other items are left to the authors.

The items are in words of our own with the numbers of the lists; those for the authors stay in the table, so
that the numbering is whole.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from radiogen import __version__
from radiogen.errors import ConfigError
from radiogen.provenance import RunRecord, record_path, write_text
from radiogen.report.evidence import RunFiles, find_evidence
from radiogen.report.page import ReportOptions, read_whole
from radiogen.report.reading import find_ct_cases

LISTS = ("claim", "tripod-ai", "clear")
MOST_CASES = 5000  # whose case.json are read


def write_checklist(name: str, run: Path, out: Path, options: ReportOptions) -> Path:
    """Write a checklist as Markdown: each item with its evidence, or a gap for the authors.

    Args:
        name: One of `LISTS`.
        run: Folder of a run, as for `radiogen.report.page.report`.
        out: Markdown file to write.
        options: Where cases and the EGFR model are.

    Returns:
        The file.

    Raises:
        ConfigError: There is no such checklist.
        CaseError: There is nothing to report, or a file of the run is damaged.
    """
    if name not in LISTS:
        raise ConfigError(f"--checklist {name}", "is not known", f"take {', '.join(LISTS)}")
    record = RunRecord("report", options={"checklist": name})
    contents = read_whole(run, record_path(out), options)
    cases = [case.about() for case in find_ct_cases(run, options.cases)[:MOST_CASES]]
    write_text(out, fill(read_list(name), RunFiles(contents, run, cases)))
    record.finish(out)
    return out


def read_list(name: str) -> dict[str, Any]:
    """Read a checklist: title, source, and by section the items: number -> text, names of evidence."""
    content: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8")
    )
    return content


def fill(checklist: Mapping[str, Any], files: RunFiles) -> str:
    """Return a checklist as Markdown."""
    lines, answered, total = [], 0, 0
    for section, items in checklist["sections"].items():
        lines += [
            "",
            f"## {section}",
            "",
            "| no. | item | answer | evidence (file: key) |",
            "| --- | --- | --- | --- |",
        ]
        for number, (item, *names) in items.items():
            # Entries share sentences; each stands once in an item.
            evidence = list(dict.fromkeys(each for name in names for each in find_evidence(name, files)))
            answered, total = answered + bool(evidence), total + 1
            answer = "<br>".join(_cell(each.sentence) for each in evidence) or "*for the authors*"
            where = "<br>".join(dict.fromkeys(f"`{_cell(each.where)}`" for each in evidence))
            lines.append(f"| {number} | {_cell(item)} | {answer} | {where} |")
    head = [
        f"# {checklist['title']}: {_cell(files.run.name)}",
        "",
        f"The files of this run say something to {answered} of {total} items: a start, not an answer;",
        "read each against the words of the list. The other items are for the authors.",
        "",
        f"The list: {checklist['source']}. Items are shortened here; the numbers are those of the list.",
        f"Written by radiogen {__version__}. Not for clinical use.",
    ]
    return "\n".join([*head, *lines]) + "\n"


def _cell(text: str) -> str:
    """Escape text so that it stays one cell of a Markdown table.

    >>> _cell("a | b\\n<b>")
    'a \\\\| b &lt;b&gt;'
    """
    flat = " ".join(str(text).split())
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
