"""The templates of pages, with the filters that write numbers, tables and JSON."""

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader, Template
from markupsafe import Markup

from radiogen.report.figures import figure, show, show_cell, show_column, show_p, show_signed
from radiogen.report.reading import Row


def template(name: str) -> Template:
    """A page of this folder; what it is filled with is escaped."""
    environment = Environment(
        loader=PackageLoader("radiogen.report", "."),
        autoescape=True,
        undefined=ChainableUndefined,  # JSON of other versions may lack a value
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=figure,
        show=show,
        signed=show_signed,
        column=show_column,
        cell=show_cell,
        pretty=_pretty,
        numbers=_hold_numbers,
        empty=_empty_columns,
        p_value=show_p,
        json=json.dumps,
        json_in_script=json_in_script,
    )
    return environment.get_template(name)


def json_in_script(content: Any) -> Markup:
    r"""JSON that no string in it can break out of a script element, whatever it holds.

    >>> print(json_in_script("</script>\u2028"))
    "\u003c/script\u003e\u2028"
    """
    text = json.dumps(content, ensure_ascii=True)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _pretty(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)


def _empty_columns(rows: Sequence[Row]) -> list[str]:
    """Columns in which no row has anything."""
    return [name for name in rows[0] if not any(row.get(name) for row in rows)]


def _hold_numbers(rows: Sequence[Row], name: str) -> bool:
    """Whether a column of a table is one of numbers."""
    return any(figure(row.get(name)) is not None for row in rows)
