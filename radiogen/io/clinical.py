"""Read a clinical table, of NSCLC-Radiogenomics or any other, into one set of columns and words."""

from pathlib import Path

import numpy as np
import pandas as pd

from radiogen.config import check_settings, read_yaml
from radiogen.errors import TableError
from radiogen.io.tables import read_text_table
from radiogen.resources import ClinicalMapping

CLINICAL_COLUMNS = (
    "patient_id", "egfr", "site", "age", "sex", "smoking", "pack_years", "histology", "ethnicity",
)  # fmt: skip
NUMBERS = ("age", "pack_years")

# Headers in lower case with single blanks (published tables have trailing ones); the first that a table has
# counts.
HEADERS: dict[str, tuple[str, ...]] = {
    "patient_id": ("patient id", "patientid", "case id", "subject id", "subjectid"),
    "egfr": ("egfr", "egfr mutation status", "egfr status", "egfr mutation"),
    "site": ("site", "patient affiliation", "hospital", "center", "centre", "institution"),
    "age": ("age", "age at histological diagnosis", "age at diagnosis"),
    "sex": ("sex", "gender"),
    "smoking": ("smoking", "smoking status", "smoking history"),
    "pack_years": ("pack years", "packyears", "smoking pack years"),
    "histology": ("histology", "histological type"),
    "ethnicity": ("ethnicity", "race"),
}

# Spellings of a missing value in NSCLC-Radiogenomics and in exports of spreadsheets.
UNKNOWN = {
    "", "na", "n/a", "nan", "none", "null", "?", "-", "unknown", "missing", "not collected", "not recorded",
    "not recorded in database", "not assessed", "not available", "not done", "not tested",
}  # fmt: skip

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "egfr": {
        "mutant": ("mutant", "mutated", "mutation", "mut", "positive", "yes", "1", "1.0"),
        "wildtype": ("wildtype", "wild type", "wild-type", "wt", "negative", "no", "0", "0.0"),
    },
    "sex": {"male": ("male", "m", "man"), "female": ("female", "f", "woman"), "": ("o", "other", "u")},
    "smoking": {
        "never": ("never", "nonsmoker", "non-smoker", "non smoker", "never smoker", "never-smoker"),
        "former": ("former", "ex", "ex-smoker", "ex smoker", "former smoker", "past"),
        "current": ("current", "current smoker", "active", "active smoker"),
    },
}


def read_clinical(path: Path, mapping: Path | ClinicalMapping | None = None) -> pd.DataFrame:
    """Read a clinical table, one row a patient.

    Known are the headers of NSCLC-Radiogenomics, of a radiogen manifest, and the plain column names; a YAML
    mapping (`columns: {egfr: EGFR_result}`, `values: {egfr: {L858R: mutant}}`) adds others. Rows of one
    patient are joined, a filled cell before an empty one.

    Args:
        path: CSV or Parquet table.
        mapping: A `ClinicalMapping`, or a YAML file in its form.

    Returns:
        `CLINICAL_COLUMNS`; ids and words are strings ("" where unknown), age in years and pack-years are
        floats (NaN where unknown; 0 pack-years for a never-smoker without a number). Rows by first mention.

    Raises:
        TableError: No id column, an empty id, an unknown word, or two values for one patient.
        ConfigError: The mapping is not usable.
    """
    raw = read_text_table(path)
    rules = read_mapping(mapping)
    sources = _find_sources(path, raw, rules)
    table = pd.DataFrame(
        {
            name: _translate(path, name, raw[sources[name]], rules) if name in sources else [""] * len(raw)
            for name in CLINICAL_COLUMNS
        },
        dtype=str,
    )
    if (table["patient_id"] == "").any():
        # The header is line 1 of the file, so the first row of the table is line 2.
        row = int(np.flatnonzero(table["patient_id"] == "")[0]) + 2
        raise TableError(path, f"row {row} has no patient id", "fill it in or remove the row")
    joined = _join_rows(path, table)
    for name in NUMBERS:
        joined[name] = pd.to_numeric(joined[name].replace("", np.nan)).astype(float)
    # Published tables leave the pack-years of never-smokers empty or "N/A".
    never = (joined["smoking"] == "never") & joined["pack_years"].isna()
    joined.loc[never, "pack_years"] = 0.0
    return joined


def read_mapping(mapping: Path | ClinicalMapping | None) -> ClinicalMapping:
    """Read a mapping from its YAML file, or check one that is there already."""
    if mapping is None:
        return ClinicalMapping()
    source = str(mapping) if isinstance(mapping, Path) else "the clinical columns of the cohort"
    if isinstance(mapping, Path):
        mapping = check_settings(ClinicalMapping, read_yaml(mapping), source)
    for name in (*mapping.columns, *mapping.values):
        if name not in CLINICAL_COLUMNS:
            raise TableError(source, f"maps {name!r}", f"the columns are {', '.join(CLINICAL_COLUMNS)}")
    return mapping


def _find_sources(path: Path, raw: pd.DataFrame, mapping: ClinicalMapping) -> dict[str, str]:
    # Reversed, so that of two headers that read alike the first column wins.
    by_header = {_plain(header): header for header in reversed(list(raw.columns))}
    sources = {}
    for name, known in HEADERS.items():
        if name in mapping.columns:
            wanted = _plain(mapping.columns[name])
            if wanted not in by_header:
                raise TableError(path, f"has no column {mapping.columns[name]!r}", "correct the mapping")
            sources[name] = by_header[wanted]
            continue
        found = [by_header[header] for header in known if header in by_header]
        if found:
            sources[name] = found[0]
    if "patient_id" not in sources:
        raise TableError(
            path, "has no column of patient ids", "name it patient_id, or give a mapping with columns"
        )
    return sources


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").lower().split())


def _translate(path: Path, name: str, cells: pd.Series, mapping: ClinicalMapping) -> list[str]:
    translations = {_plain(word): ours for word, ours in mapping.values.get(name, {}).items()}
    return [_translate_cell(path, name, translations.get(_plain(cell), cell)) for cell in cells]


def _translate_cell(path: Path, name: str, cell: str) -> str:
    if name == "patient_id":
        return cell
    plain = " ".join(cell.lower().split())
    if plain in UNKNOWN:
        return ""
    if name in NUMBERS:
        return _checked_number(path, name, cell)
    if name not in WORDS:
        return cell if name == "site" else plain
    for word, spellings in WORDS[name].items():
        if plain in spellings:
            return word
    known = ", ".join(word for word in WORDS[name] if word)
    raise TableError(path, f"{name} {cell!r} is not known", f"write {known}, or give a mapping with values")


def _checked_number(path: Path, name: str, cell: str) -> str:
    try:
        number = float(cell)
    except ValueError:
        number = np.nan
    # NaN fails this comparison as well, and so does a year of birth in the column of ages.
    if not 0 <= number < 1000:
        raise TableError(path, f"{name} {cell!r} is not a number of years", "correct it, or leave it empty")
    return str(number)


def _join_rows(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Join the rows of one patient; two different values are an error, never a choice."""
    ids = table["patient_id"]
    for patient, rows in table[ids.duplicated(keep=False)].groupby("patient_id", sort=False):
        for name in CLINICAL_COLUMNS:
            values = sorted(set(rows[name]) - {""})
            if len(values) > 1:
                wrong = f"patient {patient} has the {name} {values[0]} and {values[1]}"
                raise TableError(path, wrong, "correct the rows so that they agree")
            table.loc[rows.index, name] = values[0] if values else ""
    return table.drop_duplicates("patient_id").reset_index(drop=True)
