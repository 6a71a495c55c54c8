"""Audit the tables before anything is fitted: patients, gaps, and features that go with size or hospital."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from radiogen.egfr.cohort import EgfrCohort, read_cohort
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.validation_report import without_nan
from radiogen.provenance import RunRecord, write_json

LISTED_GAPS = 8  # columns that are printed


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
    findings: dict[str, Any] = without_nan(_examine_cohort(cohort))
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


def audit_lines(findings: dict[str, Any]) -> list[str]:
    """Return the audit as tab-separated lines, for a reader."""
    lines = [f"patients\t{findings['patients']}"]
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
    return [*lines, *(f"note\t{note}" for note in findings["notes"])]
