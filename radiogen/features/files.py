"""Write a feature table as CSV or Parquet, and say where its companions lie."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radiogen.errors import OutputError
from radiogen.optional import require
from radiogen.provenance import whole_file, write_csv

PARQUET = ".parquet"


def check_ending(out: Path) -> None:
    """See that a table can be written under this name.

    Raises:
        OutputError: It ends neither in .csv nor in .parquet.
        MissingPackageError: It ends in .parquet, and pyarrow is not installed.
    """
    if out.suffix not in (".csv", PARQUET):
        raise OutputError(out, "ends neither in .csv nor in .parquet", "choose one of them")
    if out.suffix == PARQUET:
        require("pyarrow", extra="parquet")


def perturbed_path(table: Path) -> Path:
    """Where the rows of the perturbed masks lie.

    >>> perturbed_path(Path("features.csv")).name
    'features.perturbed.csv'
    """
    return table.with_name(f"{table.stem}.perturbed{table.suffix}")


def write_features(out: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows whole: floats with seven digits, a number that is not there as an empty cell."""
    cells = [{name: _written(row.get(name)) for name in columns} for row in rows]
    if out.suffix != PARQUET:
        write_csv(out, columns, cells)
        return
    table = pd.DataFrame(cells, columns=list(columns))
    for name in columns:
        known = [row.get(name) for row in rows]
        if all(value is None or isinstance(value, float) for value in known):
            table[name] = pd.to_numeric(table[name]).astype(np.float64)
    with whole_file(out) as draft:
        table.to_parquet(draft, engine="pyarrow", index=False)


def _written(value: Any) -> Any:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.7g}" if isinstance(value, float) else value
