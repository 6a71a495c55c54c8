"""Read the status of a marker, EGFR or another, and check that two tables speak of the same patients."""

import math
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from radiogen.egfr.own_features import first_names, plain_header
from radiogen.egfr.settings import MARKER, EgfrSettings
from radiogen.errors import TableError
from radiogen.io.clinical import UNKNOWN, WORDS, read_clinical, read_mapping
from radiogen.io.patients import patients_in_common
from radiogen.io.tables import read_text_table
from radiogen.resources import ClinicalMapping

_STATUS = (
    r"( (mutation|translocation|fusion|rearrangement|amplification))?( (status|result))?"  # behind a marker
)


def find_status(path: Path, columns: Iterable[str], settings: EgfrSettings) -> str | None:
    """Return the column with the status of the marker: that of the settings, else the one its header names.

    Raises:
        TableError: Several headers name it.
    """
    if settings.target_column is not None:
        return next(
            (name for name in columns if plain_header(name) == plain_header(settings.target_column)), None
        )
    marker = re.escape(plain_header(settings.marker))
    found = [name for name in columns if re.fullmatch(rf"{marker}{_STATUS}", plain_header(name))]
    if len(found) > 1:
        listed = " and ".join(map(repr, found))
        raise TableError(
            path, f"has the columns {listed} for {settings.marker}", "take one of them: --target-column"
        )
    return found[0] if found else None


def read_records(path: Path, settings: EgfrSettings, has_labels: bool = False) -> pd.DataFrame:
    """Read a clinical table by patient id; its column `egfr` holds the status of the marker.

    Args:
        path: Clinical table.
        settings: The marker, its column, and the mapping of the others.
        has_labels: Whether the feature table holds the status, so that the clinical one need not.

    Raises:
        TableError: The table does not fit, has no column of the marker, or has more than two classes in it.
    """
    rules = read_mapping(settings.clinical_mapping)
    mapped = rules.columns.get("egfr", "")
    if settings.marker == MARKER and settings.target_column is None:
        if mapped and settings.target is None and MARKER.lower() not in plain_header(mapped):
            hint = f"name the marker: --target; if the column is {MARKER} status, --target {MARKER}"
            raise TableError(settings.clinical_mapping, f"reads {mapped!r} as {MARKER} status", hint)
        return read_clinical(path, rules).set_index("patient_id")
    raw = read_text_table(path)
    header = find_status(path, raw.columns, settings)
    if header is None:
        if not has_labels:
            hint = "name it with --target-column, as the table spells it"
            raise TableError(path, f"has no column of {settings.target_column or settings.marker}", hint)
        return read_clinical(path, rules).set_index("patient_id").assign(egfr="")
    words = raw[header]
    numbers, names = _number_classes(path, words.mask(_is_unknown(words)), settings)
    pairs = zip(words, numbers, strict=True)
    values = {
        word: "" if math.isnan(number) else ("wildtype", "mutant")[int(number)] for word, number in pairs
    }
    own = ClinicalMapping(
        columns={**rules.columns, "egfr": header},
        values={**rules.values, "egfr": {**rules.values.get("egfr", {}), **values}},
    )
    records = read_clinical(path, own).set_index("patient_id")
    return records.assign(egfr=records["egfr"].replace({"wildtype": names[0], "mutant": names[1]}))


def _is_unknown(words: pd.Series) -> pd.Series:
    plain = [" ".join(str(word).lower().split()) for word in words]
    return words.isna() | pd.Series([word in UNKNOWN for word in plain], index=words.index, dtype=bool)


def _number_classes(
    path: Path | None, words: pd.Series, settings: EgfrSettings
) -> tuple[pd.Series, tuple[str, str]]:
    """Return the status per row (1.0 positive, 0.0 the other, NaN unknown), and the words for 0 and 1.

    The usual spellings of mutant and wildtype become these two words; any other pair stays as it is.
    """
    usual = {spelling: word for word, spellings in WORDS["egfr"].items() for spelling in spellings}
    positive = settings.positive.lower()
    translated = words.map(lambda word: usual.get(str(word).lower()), na_action="ignore")
    is_foreign = positive not in usual.values() and positive in {str(word).lower() for word in words.dropna()}
    if not is_foreign and (translated.notna() | words.isna()).all():
        words, positive = translated, usual.get(positive, positive)
    classes = sorted(set(words.dropna()))
    positives = [word for word in classes if word.lower() == positive]
    negatives = [word for word in classes if word not in positives]
    if len(negatives) > 1:
        wrong = f"has the statuses {', '.join(classes)} of {settings.marker}"
        hint = f"two are needed, and the positive one must be named: --positive (it is {settings.positive})"
        raise TableError(path, wrong, hint)
    numbers = words.map({**dict.fromkeys(positives, 1.0), **dict.fromkeys(negatives, 0.0)}).astype(float)
    negative = {"mutant": "wildtype", "wildtype": "mutant"}.get(positive, "")
    return numbers, ([*negatives, negative][0], [*positives, positive][0])


def join_status(
    path: Path | None, labels: dict[str, str], clinical: pd.Series, settings: EgfrSettings
) -> tuple[pd.Series, tuple[str, str]]:
    """Join the statuses of a feature table and of a clinical one.

    Returns:
        The status per patient (1.0, 0.0 or NaN), and the words for 0 and 1.

    Raises:
        TableError: The tables disagree, or do not hold two classes.
    """
    own = pd.Series(labels, dtype=object).reindex(clinical.index)
    own_status, own_names = _number_classes(path, own.mask(_is_unknown(own)), settings)
    other_status, other_names = _number_classes(path, clinical.mask(_is_unknown(clinical)), settings)
    # two sources that agree confirm each other; where they differ nobody can say which is right
    clash = own.index[own_status.notna() & other_status.notna() & (own_status != other_status)]
    if len(clash):
        both = f"{own[clash[0]]}, elsewhere {clinical[clash[0]]}"
        raise TableError(path, f"patient {clash[0]} is {both}", "correct one of the tables")
    status = own_status.fillna(other_status)
    if status.isna().all():
        hint = "give a clinical table, or name the label_column"
        raise TableError(path, f"holds no status of {settings.marker}", hint)
    if status.nunique() < 2:
        only = (own_names if own_status.notna().any() else other_names)[int(status.max())]
        hint = f"two are needed, and the positive one must be named (positive is {settings.positive})"
        raise TableError(path, f"has the statuses {only}", hint)
    return status, own_names if own_status.nunique() == 2 else other_names


def compare_ids(features: Path | None, ids: pd.Index, clinical: Path, others: pd.Index) -> list[str]:
    """Return a note on the patients of a feature table whom the clinical table lacks.

    Raises:
        TableError: It lacks all of them.
    """
    lost = [str(patient) for patient in ids if patient not in others]
    if not lost:
        return []
    alike = patients_in_common(lost, map(str, others))
    within = {one: other for one in lost for other in map(str, others) if len(other) > 2 and other in one}
    example = next(iter({**within, **alike}.items()), None)
    would = f"{len({**within, **alike})} would match if {example[0]} were {example[1]}" if example else ""
    if len(lost) < len(ids):
        some = f"{len(lost)} patients of the feature table are not in the clinical one ({first_names(lost)})"
        return [f"{some}; {would}" if would else some]
    wrong = (
        f"shares no id with {clinical.name}: {len(ids)} here ({', '.join(lost[:3])}), "
        f"{len(others)} there ({', '.join(map(str, others[:3]))})"
    )
    hint = "take the column of the same ids, --id-column, or a part of it, --id-pattern"
    raise TableError(features, wrong, f"{would}; {hint}" if would else hint)
