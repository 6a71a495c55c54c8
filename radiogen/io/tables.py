"""Read a CSV or Parquet table as text, exactly as it stands, and refuse rows that do not fit the header."""

import csv
from pathlib import Path

import pandas as pd

from radiogen.errors import TableError
from radiogen.optional import require

SEPARATORS = (",", ";", "\t")


def read_text_table(path: Path) -> pd.DataFrame:
    """Return the rows of a table, every cell a stripped string and an empty cell "".

    The separator of a text table is the one of comma, semicolon and tab that its header has most of.

    Raises:
        TableError: The file is missing, not text, empty, has a row of another length or a doubled header.
        MissingPackageError: A Parquet file, and pyarrow is not installed.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    try:
        # utf-8-sig drops the byte order mark that Excel writes, which would become part of the first header.
        with path.open(newline="", encoding="utf-8-sig") as file:
            header_line = file.readline()
            file.seek(0)
            rows = [
                [cell.strip() for cell in row] for row in csv.reader(file, delimiter=_separator(header_line))
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(path, f"cannot be read: {error}", "give a CSV file in UTF-8") from error
    if not rows or not any(rows[0]):
        raise TableError(path, "is empty", "give a CSV file with a header line")
    header = rows[0]
    _check_header(path, header)
    for number, row in enumerate(rows[1:], start=2):
        if row and len(row) != len(header):
            wrong = f"row {number} has {len(row)} cells, the header {len(header)}"
            raise TableError(path, wrong, "quote cells that hold the separator, or copy the file again")
    return pd.DataFrame([row for row in rows[1:] if row], columns=header, dtype=str)


def _read_parquet(path: Path) -> pd.DataFrame:
    require("pyarrow", extra="parquet")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise TableError(path, "cannot be read as Parquet", "write it again, or give a CSV file") from error
    _check_header(path, [str(name) for name in table.columns])
    texts = {str(name): ["" if pd.isna(v) else str(v).strip() for v in table[name]] for name in table.columns}
    return pd.DataFrame(texts, dtype=str)


def _separator(header_line: str) -> str:
    return max(SEPARATORS, key=header_line.count)


def _check_header(path: Path, header: list[str]) -> None:
    # Columns without a header are common in exports and harmless: nothing can ask for them.
    named = [name for name in header if name]
    for name in named:
        if named.count(name) > 1:
            raise TableError(path, f"has the column {name!r} twice", "rename or remove one of them")
