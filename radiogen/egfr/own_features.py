"""Tell the columns of a foreign feature table apart: ids, lesions, status, outcomes, diagnostics, features.

PyRadiomics' own CSV is known as such; embeddings and other tables need an id and number columns only.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from radiogen.egfr.settings import EgfrSettings
from radiogen.errors import TableError
from radiogen.io.clinical import HEADERS
from radiogen.resources import cohort_card, cohort_names, compile_pattern

ID = "patient_id"
ID_HEADERS = (*HEADERS[ID], "id", "patient", "subject", "pid")
PLACES = ("image", "mask")  # columns of PyRadiomics' input that hold a path
LESION = ("lesion", "label")  # the label of the mask numbers the lesion
PYRADIOMICS = re.compile(r"_(firstorder|shape|shape2D|glcm|glrlm|glszm|gldm|ngtdm)_\w+")
# The volume of a lesion, by which the largest is found: radiogen's, then PyRadiomics' from 3.0 and before.
VOLUMES = (
    "shape_volume_ml",
    "original_shape_MeshVolume",
    "original_shape_VoxelVolume",
    "original_shape_Volume",
)

# What a header says that a column is; none of it is a feature. A header is compared in lower case, with
# blanks for `_`, `-` and dots.
_WHOLE = {
    "an index": r"unnamed: \d+|index|level \d+|row( (number|names|id))?|nr|no|#",
    "an id, a path or a label": r"(.* )?(id|ids|uid|pid|mrn)|(patient|subject|case)(id)?|name"
    r"|label( channel)?|image|mask|path|file( ?name)?|(image|mask) path|accession.*|reader",
    "a diagnostic of PyRadiomics": r"(diagnostics|general info) .*",
}
_OUTCOME = re.compile(
    r"mutat|mutant|wild ?type|genotype|transloc|rearrang|follow ?up|surviv|death|deceas|censor|recurr|relaps"
    r"|\b(status|outcome|target|class|label|event|vital|response|alive|dead\w*|died|surv\w*|os|pfs|dfs|rfs"
    r"|progress\w*|egfr|kras|alk|ros1|braf|ret|met|her2|erbb2|tp53|stk11|pd ?l1)\b"
)


def plain_header(header: str) -> str:
    """Return a header in lower case, with single blanks for `_`, `-` and dots.

    >>> plain_header("Survival.Time_(days) ")
    'survival time (days)'
    """
    return " ".join(re.sub(r"[_.-]", " ", header.lower()).split())


def not_a_feature(header: str) -> str:
    """Return what a header says that its column is, if that is no feature; empty for a feature.

    >>> not_a_feature("EGFR mutation status"), not_a_feature("Unnamed: 0"), not_a_feature("original_glcm_Id")
    ('a status or an outcome', 'an index', '')
    """
    if PYRADIOMICS.search(header):
        return ""
    plain = plain_header(header)
    for kind, pattern in _WHOLE.items():
        if re.fullmatch(pattern, plain):
            return kind
    return "a status or an outcome" if _OUTCOME.search(plain) else ""


def is_pyradiomics(columns: Iterable[str]) -> bool:
    """Whether a table was written by PyRadiomics."""
    return any(PYRADIOMICS.search(name) or name.startswith("diagnostics_") for name in columns)


def find_volume(columns: Iterable[str], settings: EgfrSettings) -> str:
    """Return the column that holds the volume of a lesion: that of the settings, else the first one known."""
    there = set(columns)
    return settings.volume_column or next((name for name in VOLUMES if name in there), VOLUMES[0])


def find_lesion(columns: Iterable[str]) -> str | None:
    """Return the column that numbers the lesions of a patient, if there is one."""
    by_name = {plain_header(name): name for name in columns}
    return next((by_name[name] for name in LESION if name in by_name), None)


def find_ids(path: Path, table: pd.DataFrame, settings: EgfrSettings) -> tuple[pd.Series, str]:
    """Return the patient of each row, and the column that told it.

    The id stands in `id_column`, else in a column with a header of patient ids, else it is the part of the
    path in Image or Mask that fits `id_pattern` (by default that of the public cohorts): its first group,
    or the whole.

    Raises:
        TableError: There is no such column, or a path does not fit.
    """
    # radiogen's case_id is no patient: a patient may have several cases
    by_name = {plain_header(name): name for name in reversed(table.columns) if name not in ("", "case_id")}
    column = settings.id_column
    if column is None and ID in table.columns:
        column = ID
    if column is None and settings.id_pattern is None:
        column = next((by_name[name] for name in ID_HEADERS if name in by_name), None)
    place = next((by_name[name] for name in PLACES if name in by_name), None)
    if column is None and place is None:
        wrong = f"has no column {ID!r} and no path in Image or Mask"
        raise TableError(
            path, wrong, "name the column of patient ids: --id-column NAME (in Python id_column)"
        )
    source = column or str(place)
    if source not in table.columns:
        raise TableError(
            path, f"has no column {source!r}", "name the column of patient ids: --id-column NAME"
        )
    if column is not None and settings.id_pattern is None:
        return table[source], source
    patterns = [cohort_card(name).patient_id_pattern for name in cohort_names()]
    shipped = "|".join(rf"(?<![A-Za-z0-9])(?:{one})(?![A-Za-z0-9])" for one in patterns if r"\d{" in one)
    pattern = compile_pattern(settings.id_pattern or shipped, "--id-pattern")
    found = [pattern.search(cell) for cell in table[source]]
    for cell, hit in zip(table[source], found, strict=True):
        if hit is None and cell:
            example = r"--id-pattern '[^/]+(?=/[^/]+$)' takes the name of the folder"
            raise TableError(path, f"{source} {cell!r} does not tell the patient", example)
    ids = [hit.group(1 if settings.id_pattern and hit.re.groups else 0) if hit else "" for hit in found]
    return pd.Series(ids, index=table.index, dtype=str), source


def first_names(names: list[str]) -> str:
    """Return the first five names as text.

    >>> first_names(list("abcdefg"))
    'a, b, c, d, e, ...'
    """
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
