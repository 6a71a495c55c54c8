"""Bags: several lesions (or patches) of a patient in one row, each of them cleaned and reduced alike."""

from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

Floats = NDArray[np.float64]
MOST = 16  # instances of a patient; of more the largest stay
PLACE = "@"  # `shape_volume_ml@1` is the volume of the largest lesion


def spread_out(
    rows: pd.DataFrame, ids: pd.Series, volume: pd.Series | None, most: int = MOST
) -> pd.DataFrame:
    """Rows of several lesions a patient as one row with the columns `name@1`, `name@2`, ..., largest first.

    Args:
        rows: Float columns, one row an instance.
        ids: Patient of each row.
        volume: What they are ordered by; None keeps the order of the rows.
        most: Instances that stay.
    """
    size = volume if volume is not None else pd.Series(0.0, index=rows.index)
    order = pd.DataFrame({"patient": ids, "size": -size, "row": np.arange(len(rows))})
    order = order.sort_values(["patient", "size", "row"])
    order["place"] = order.groupby("patient").cumcount() + 1
    order = order[order["place"] <= most]
    parts = []
    for place, here in order.groupby("place"):
        part = rows.loc[here.index].set_axis(pd.Index(here["patient"], name="patient_id"))
        parts.append(part.add_suffix(f"{PLACE}{place}"))
    return pd.concat(parts, axis=1).sort_index()


def places_of(columns: tuple[str, ...]) -> int:
    """How many instances the columns of `spread_out` hold; 1 for others."""
    return max((int(name.rpartition(PLACE)[2]) for name in columns if PLACE in name), default=1)


class EachInstance(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learns a transformer from all instances of all samples and applies it to each of them.

    Args:
        transformer: What is applied; a target is repeated for each instance of a sample.
        instances: Instances in a row; one whose numbers are all missing is not there and stays missing.
    """

    def __init__(self, transformer: Any = None, instances: int = 1) -> None:
        self.transformer = transformer
        self.instances = instances

    def fit(self, X: Any, y: Any = None) -> Self:
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        rows, there = self._split(X)
        labels = None if y is None else np.repeat(np.asarray(y), self.instances)[there]
        self.transformer_ = clone(self.transformer).fit(rows[there], labels)
        return self

    def transform(self, X: Any) -> Floats:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        rows, there = self._split(X)
        if not there.any():
            there[0] = True  # something must be transformed to know the width
        seen = np.asarray(self.transformer_.transform(rows[there]), dtype=np.float64)
        found = np.full((len(rows), seen.shape[1]), np.nan)
        found[there] = seen
        result: Floats = found.reshape(len(X), -1)
        return result

    def _split(self, X: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        if X.shape[1] % self.instances:
            raise ValueError(f"{X.shape[1]} columns are not {self.instances} instances")
        rows = X.reshape(len(X) * self.instances, -1)
        return rows, np.asarray(~np.isnan(rows).all(axis=1))
