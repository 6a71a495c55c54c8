"""Format numbers and column names for the page, and fill its templates."""

import json
import math
from collections.abc import Sequence
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader, Template, Undefined
from markupsafe import Markup

from radiogen.report.reading import Row

MISSING = "–"
UNITS = {"mm": "mm", "ml": "ml", "hu": "HU", "s": "s", "mb": "MB"}
NAMES = {
    "dice": "Dice",
    "hd95": "HD95",
    "asd": "ASD",
    "assd": "ASSD",
    "egfr": "EGFR",
    "auc": "AUC",
    "auprc": "AUPRC",
    "brier": "Brier",
    "f1": "F1",
}


def number_of(value: Any) -> float | None:
    """Return the number in a table cell or JSON value; None where there is none.

    >>> number_of("0.5"), number_of(""), number_of("nan"), number_of(None)
    (0.5, None, None, None)
    """
    # float(True) is 1, and an absent JSON value reaches a filter as jinja2's Undefined.
    if isinstance(value, bool | Undefined):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def show(value: Any, digits: int = 3) -> str:
    """Format a number with a fixed number of digits, or a dash.

    >>> show("0.71249"), show(None)
    ('0.712', '–')
    """
    number = number_of(value)
    return MISSING if number is None else f"{number:.{digits}f}"


def show_signed(value: Any, digits: int = 3) -> str:
    """Format a difference with its sign, or a dash.

    >>> show_signed(0.0312)
    '+0.031'
    """
    number = number_of(value)
    return MISSING if number is None else f"{number:+.{digits}f}"


def show_p(value: Any) -> str:
    """Format a p-value; never as zero.

    >>> show_p(0.042), show_p(0.00001)
    ('= 0.042', '< 0.001')
    """
    number = number_of(value)
    return MISSING if number is None else "< 0.001" if number < 0.001 else f"= {number:.3f}"


def show_cell(value: Any, column: str) -> str:
    """Format a cell of a table: whole numbers and text as they are, others with the digits of their unit.

    >>> show_cell("12.3456", "hd95_mm"), show_cell("3", "lesion"), show_cell("R01-001", "case_id")
    ('12.3', '3', 'R01-001')
    """
    text = "" if value is None else str(value)
    number = number_of(text)
    if text.strip().lower() in ("", "nan", "none"):
        return MISSING
    if text.strip().lower() == "inf":
        return "∞"
    # Whole numbers are counts and labels, and an id such as 007 is no number at all.
    if number is None or text.lstrip("+-").isdigit() or column.endswith("_id"):
        return text
    return f"{number:.{1 if column.endswith('_mm') else 2 if column.endswith('_ml') else 3}f}"


def show_column(name: str) -> str:
    """Format a column name in words, the unit behind a comma.

    >>> show_column("longest_diameter_mm"), show_column("surface_dice")
    ('longest diameter, mm', 'surface Dice')
    """
    words = name.split("_")
    unit = UNITS.get(words[-1]) if len(words) > 1 else None
    if unit:
        words = words[:-1]
    text = " ".join(NAMES.get(word, word) for word in words)
    return f"{text}, {unit}" if unit else text


def template(name: str) -> Template:
    """Load a template of this folder; whatever it is filled with is escaped."""
    environment = Environment(
        loader=PackageLoader("radiogen.report", "."),
        autoescape=True,
        # JSON of other versions may lack a value; it then is empty instead of an error.
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=number_of,
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
    r"""Write JSON from which no string can break out of a script element.

    >>> print(json_in_script("</script>\u2028"))
    "\u003c/script\u003e\u2028"
    """
    text = json.dumps(content, ensure_ascii=True)
    # "</script>" inside a string would end the element; escaped, it is the same string to the JSON parser.
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _pretty(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)


def _empty_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns in which no row has a value."""
    return [name for name in rows[0] if not any(row.get(name) for row in rows)]


def _hold_numbers(rows: Sequence[Row], name: str) -> bool:
    """Whether a column of a table is one of numbers."""
    return any(number_of(row.get(name)) is not None for row in rows)
