"""Leave out features that change with the outline, judged by the training patients of a fold alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from radiogen.egfr.settings import EgfrSettings
from radiogen.errors import TableError
from radiogen.features.files import perturbed_path
from radiogen.features.perturb import icc
from radiogen.io.tables import read_text_table

Floats = NDArray[np.float64]
KEYS = ["patient_id", "case_id", "lesion"]


class KeptColumns(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """Keeps the columns it is told to; None keeps all."""

    def __init__(self, kept: Sequence[int] | None = None) -> None:
        self.kept = kept

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn hands it in
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        self.mask_ = np.full(X.shape[1], self.kept is None)
        self.mask_[list(self.kept or ())] = True
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        mask: NDArray[np.bool_] = self.mask_
        return mask


def choose_stable(measured: Floats, least: float) -> list[int]:
    """The features whose ICC over perturbed masks is at least `least`, or the most stable one where none is.

    Args:
        measured: (patients, repeats, features).
        least: Smallest ICC that stays; a feature without an ICC goes.
    """
    found = np.nan_to_num(icc(measured), nan=-1.0)
    kept = np.flatnonzero(found >= least)
    return [int(each) for each in (kept if len(kept) else [found.argmax()])]


def read_perturbed(table: Path, features: pd.DataFrame, settings: EgfrSettings) -> Floats:
    """The features of each patient under perturbed masks, (patients, repeats, features).

    Of several lesions the one that is largest in the outlines stands for the patient.

    Raises:
        TableError: There is no table of perturbed masks beside, or it does not fit the features.
    """
    path = perturbed_path(table)
    hint = "extract with --perturb, or leave --stable out"
    if not path.is_file():
        raise TableError(path, "is missing, and stability was asked for", hint)
    raw = read_text_table(path)
    absent = [name for name in (*KEYS, "repeat", *features.columns) if name not in raw.columns]
    if absent:
        raise TableError(path, f"lacks the column {absent[0]!r}", hint)
    raw["repeat"] = raw["repeat"].astype(int)
    outlines = raw[raw["repeat"] == 0]
    if settings.volume_column in raw.columns:
        volume = pd.to_numeric(outlines[settings.volume_column])
        outlines = outlines.assign(size=-volume).sort_values([*KEYS[:1], "size", *KEYS[1:]])
    chosen = outlines.drop_duplicates("patient_id")[KEYS]
    rows = raw.merge(chosen, on=KEYS).sort_values(["patient_id", "repeat"])
    repeats = rows["repeat"].nunique()
    rows = rows[rows["patient_id"].isin(features.index)]
    if repeats < 2 or len(rows) != repeats * len(features):
        raise TableError(path, "does not hold every patient equally often", hint)
    numbers = rows[list(features.columns)].apply(pd.to_numeric, errors="coerce")
    measured: Floats = numbers.to_numpy(dtype=float).reshape(len(features), repeats, features.shape[1])
    return measured
