"""Audit the tables before anything is fitted: patients, gaps, and features that go with size or hospital."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from radiogen.egfr.cohort import EgfrCohort, read_cohort
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.validation_report import without_nan
from radiogen.errors import TableError
from radiogen.provenance import RunRecord, write_json

LISTED_GAPS = 8  # columns that are printed
ALL_GAPS = "number of missing values"
CERTAIN_AUC = 0.95  # of one column alone; no sign of a tumour is so sure
STRANGE_AUC, STRANGE_GAP = 0.8, 0.15
GIVEAWAY_P = 0.01


@dataclass(frozen=True)
class EgfrAudit:
    """Path and content of an audit."""

    out: Path
    findings: dict[str, Any]  # content of audit.json


def audit_egfr(
    features: Path | None,
    out: Path,
    clinical: Path | None = None,
    settings: EgfrSettings = EgfrSettings(),  # noqa: B008 - frozen
) -> EgfrAudit:
    """Write audit.json: classes, prevalence by hospital and histology, gaps, and correlations of blocks.

    For each block of features (the part of a column's name before the first underscore) it gives how
    strongly the features go with the volume (Spearman) and with the hospital (share of the variance of the
    ranks between hospitals, eta squared): the median and the strongest. A block that goes with the hospital
    can carry its prevalence into the model.

    Args:
        features: Feature table, or None.
        out: JSON file to write.
        clinical: Clinical table, or None where the feature table holds the status.
        settings: How the tables are read.

    Raises:
        TableError: A table does not fit.
    """
    inputs = [path for path in (features, clinical, settings.clinical_mapping) if path]
    record = RunRecord("audit-egfr", settings.options(), inputs=inputs)
    cohort = read_cohort(features, clinical, settings)
    findings: dict[str, Any] = without_nan({"marker": settings.marker, **_examine_cohort(cohort)})
    write_json(out, findings)
    record.finish(out)
    return EgfrAudit(out, findings)


def _examine_cohort(cohort: EgfrCohort) -> dict[str, Any]:
    """Return the content of audit.json."""
    labels = pd.Series(cohort.labels, index=cohort.features.index)
    positive = cohort.label_names[1]
    missing = _share_missing(cohort.features)
    is_constant = cohort.features.nunique() < 2
    return {
        "schema_version": 1,
        "patients": len(labels),
        "classes": cohort.class_counts,
        "left_out": cohort.left_out,
        f"{positive}_by_site": _prevalence(labels, cohort.sites),
        f"{positive}_by_histology": _prevalence(labels, cohort.histology),
        "missing_clinical": _share_missing(cohort.clinical),
        "missing_features": {name: share for name, share in missing.items() if share > 0},
        "constant_features": [str(name) for name in cohort.features.columns[is_constant]],
        "blocks": _examine_blocks(cohort, cohort.volume_column),
        "giveaways": [asdict(one) for one in find_giveaways(cohort)],
        "notes": list(cohort.notes),
    }


def _prevalence(labels: pd.Series, words: tuple[str, ...]) -> dict[str, dict[str, float]]:
    grouped = labels.groupby([word or "unknown" for word in words])
    return {
        str(word): {"patients": int(each.size), "positives": int(each.sum()), "share": float(each.mean())}
        for word, each in grouped
    }


def _share_missing(table: pd.DataFrame) -> dict[str, float]:
    return {str(name): float(share) for name, share in table.isna().mean().items()}


def _examine_blocks(cohort: EgfrCohort, volume_column: str) -> dict[str, Any]:
    """Return for each block of features how strongly it goes with the volume and with the hospital."""
    # ranks, since volumes and many features are skewed
    ranks = cohort.features.rank()
    names = [name for name in ranks.columns if name != volume_column and ranks[name].nunique() > 1]
    blocks: dict[str, list[str]] = {}
    for name in names:
        blocks.setdefault(str(name).partition("_")[0], []).append(name)
    examined = {}
    for block, columns in blocks.items():
        entry: dict[str, Any] = {"features": len(columns)}
        if volume_column in ranks.columns:
            entry["with_volume"] = _strength(ranks[columns].corrwith(ranks[volume_column]).abs())
        if len(set(cohort.sites)) > 1:
            entry["with_site"] = _strength(_between_sites(ranks[columns], cohort.sites))
        examined[block] = entry
    return examined


def _between_sites(ranks: pd.DataFrame, sites: tuple[str, ...]) -> pd.Series:
    """Return eta squared of each column: the share of its variance that lies between the hospitals."""
    means = ranks.groupby(np.array(sites)).transform("mean").where(ranks.notna())
    share: pd.Series = means.var(ddof=0) / ranks.var(ddof=0)
    return share


def _strength(values: pd.Series) -> dict[str, Any]:
    strongest = values.idxmax() if values.notna().any() else None
    return {
        "median": float(values.median()),
        "largest": float(values.max()),
        "strongest": None if strongest is None else str(strongest),
    }


@dataclass(frozen=True)
class Giveaway:
    """A column that separates the classes as no feature should: it holds the status, or what follows it."""

    column: str
    auc: float  # alone, in the better direction
    why: str


def find_giveaways(cohort: EgfrCohort) -> list[Giveaway]:
    """Return the columns, and gaps of columns, that separate the classes beyond what a feature can.

    A column alone with an AUC over 0.95, or over 0.8 and more than 0.15 above 95 of 100 of the columns; a
    pattern of missing values with an AUC over 0.8. Chance must not explain it: p below 0.01 (Mann-Whitney,
    corrected for the number of columns).
    """
    numbers = pd.concat([cohort.clinical, cohort.features], axis=1)
    gaps = numbers.isna().astype(float)
    gaps[ALL_GAPS] = gaps.sum(axis=1)
    columns, patterns = _separations(numbers, cohort.labels), _separations(gaps, cohort.labels)
    typical = float(columns["auc"].quantile(0.95, interpolation="lower")) if len(columns) >= 10 else 1.0
    found = []
    for name, (area, p) in columns.iterrows():
        if p < GIVEAWAY_P and area > CERTAIN_AUC:
            found.append(Giveaway(str(name), area, "alone"))
        elif p < GIVEAWAY_P and area > max(STRANGE_AUC, typical + STRANGE_GAP):
            found.append(Giveaway(str(name), area, f"alone, 95 of 100 columns at most {typical:.2f}"))
    for name, (area, p) in patterns.iterrows():
        if p < GIVEAWAY_P and area > STRANGE_AUC:
            found.append(Giveaway(str(name), area, "by where it is missing"))
    return found


def _separations(numbers: pd.DataFrame, labels: NDArray[np.int64]) -> pd.DataFrame:
    """Return the AUC of each column in its better direction, and a p-value corrected for their number."""
    varying = numbers.loc[:, (numbers.nunique() > 1) & (numbers[labels == 1].count() > 0)]
    varying = varying.loc[:, varying[labels == 0].count() > 0]
    if not varying.shape[1]:
        return pd.DataFrame(columns=["auc", "p"], dtype=float)
    positive, negative = varying[labels == 1], varying[labels == 0]
    test = mannwhitneyu(positive, negative, axis=0, nan_policy="omit", method="asymptotic")
    areas = test.statistic / (positive.count() * negative.count()).to_numpy()
    better = np.maximum(areas, 1 - areas)
    return pd.DataFrame({"auc": better, "p": test.pvalue * varying.shape[1]}, index=varying.columns)


def refuse_giveaways(path: Path | None, cohort: EgfrCohort, settings: EgfrSettings) -> list[str]:
    """Return notes on giveaways that the settings allow by name.

    Raises:
        TableError: One is not allowed, or a column is allowed that is not there.
    """
    found = {one.column: one for one in find_giveaways(cohort)}
    there = {*cohort.features.columns, *cohort.clinical.columns, ALL_GAPS}
    unknown = [name for name in settings.allow_columns if name not in there]
    if unknown:
        raise TableError(path, f"has no feature {unknown[0]!r} to allow", "spell it as the audit does")
    refused = [one for name, one in found.items() if name not in settings.allow_columns]
    if refused:
        some = ", ".join(f"{one.column!r} (AUC {one.auc:.3f} {one.why})" for one in refused[:3])
        count = f"{len(refused)} columns separate" if len(refused) > 1 else "a column separates"
        raise TableError(
            path,
            f"{count} {' from '.join(reversed(cohort.label_names))} better than a feature can: {some}",
            "leave out what is known only with the status or after it; "
            f"for a true feature add --allow-column '{refused[0].column}'",
        )
    return [f"allowed by name: {one.column}, AUC {one.auc:.3f} {one.why}" for one in found.values()]


def audit_lines(findings: dict[str, Any]) -> list[str]:
    """Return the audit as tab-separated lines, for a reader."""
    lines = [f"marker\t{findings['marker']}", f"patients\t{findings['patients']}"]
    lines += [f"  {name}\t{count}" for name, count in findings["classes"].items()]
    lines += [f"left out\t{count} {reason}" for reason, count in findings["left_out"].items()]
    for key, groups in findings.items():
        if "_by_" in key:
            lines.append(key.replace("_", " "))
            lines += [
                f"  {word}\t{each['positives']} of {each['patients']} ({each['share']:.0%})"
                for word, each in groups.items()
            ]
    gaps = {**findings["missing_clinical"], **findings["missing_features"]}
    largest_gaps = sorted(gaps.items(), key=lambda pair: -pair[1])[:LISTED_GAPS]
    lines += [f"missing\t{name} {share:.0%}" for name, share in largest_gaps if share > 0]
    if findings["constant_features"]:
        lines.append(f"constant features\t{len(findings['constant_features'])}")
    for block, entry in findings["blocks"].items():
        for key in ("with_volume", "with_site"):
            strength = entry.get(key)
            if strength and strength["strongest"]:
                figures = f"median {strength['median']:.2f}, most {strength['largest']:.2f}"
                lines.append(f"block {block} {key.replace('_', ' ')}\t{figures} ({strength['strongest']})")
    for one in findings["giveaways"]:
        lines.append(f"separates the classes\t{one['column']}: AUC {one['auc']:.3f} {one['why']}")
    return [*lines, *(f"note\t{note}" for note in findings["notes"])]
