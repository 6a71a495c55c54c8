"""Write one case folder: CT, lesions, lungs and what was decided, whole or not at all."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from radiogen.errors import CaseError, OutlineError, OutputError
from radiogen.ingestion.certificate import certify
from radiogen.ingestion.ct import CtScan, read_ct
from radiogen.ingestion.lungs import find_lungs
from radiogen.ingestion.outline_choice import OutlineChoice
from radiogen.ingestion.outlines import LesionLabels, read_lesions
from radiogen.ingestion.sources import CaseSource
from radiogen.io.cases import read_case_json
from radiogen.io.contours import CtReference
from radiogen.io.dicom.series import Series, SeriesRules
from radiogen.io.nifti import write_volume
from radiogen.provenance import RunRecord, file_sha256, write_json
from radiogen.volume import array_of, pixels_sha256, voxel_ml

SCHEMA_VERSION = 1
RECORD = "case.run.json"


@dataclass(frozen=True)
class CasePlan:
    """The source, the ids and the options of one case."""

    case_id: str
    patient_id: str
    cohort: str
    egfr: str
    source: CaseSource
    choice: OutlineChoice
    lungs: str
    needs_outline: bool  # outlines were given, and a crop without one is refused
    rules: SeriesRules
    keep_dates: bool
    options: Mapping[str, Any]  # for the run record


def is_done(plan: CasePlan, cases: Path) -> bool:
    """Return whether the case is there, made from the same series.

    Raises:
        CaseError: A case of this name was made from another series.
    """
    folder = cases / plan.case_id
    if not (folder / RECORD).is_file():
        return False
    made_from = read_case_json(folder).get("source", {}).get("id")
    if made_from != plan.source.id:
        raise CaseError(folder, "was made from another scan", "take --existing overwrite, or another folder")
    return True


def has_same_options(plan: CasePlan, cases: Path) -> bool:
    """Return whether the run record of a finished case names the same options."""
    try:
        record = json.loads((cases / plan.case_id / RECORD).read_text(encoding="utf-8"))
    except ValueError:
        return False
    return bool(record.get("options") == dict(plan.options))


def write_case(plan: CasePlan, cases: Path) -> tuple[str, ...]:
    """Read, check and write one case.

    Returns:
        What was decided, in sentences.

    Raises:
        RadiogenError: The source does not form a case, or the place cannot be written to.
    """
    source = plan.source
    if source.problem is not None or source.ct is None:
        raise source.problem or CaseError(source.where, "holds no CT", "give a CT")
    record = RunRecord("ingest", plan.options)
    ct = read_ct(source.ct, plan.rules, plan.keep_dates)
    lesions = None
    if source.outline is not None:
        outline = source.outline
        frame_uids = source.ct.frame_of_reference_uids if isinstance(source.ct, Series) else frozenset()
        reference = CtReference(frame_uids, ct.slice_positions)
        lesions = read_lesions(outline.path, outline.kind, ct.volume, plan.choice, reference)
    lungs = find_lungs(ct.volume, plan.lungs)
    if lungs.is_crop and lesions is None and plan.needs_outline:
        hint = "add its mask to those of --outline, or leave the crop out"
        raise OutlineError(source.where, "is a crop without a mask", hint)
    decisions = [*ct.decisions, *source.decisions, *(lesions.decisions if lesions else ()), *lungs.decisions]
    volumes = {"ct.nii.gz": ct.volume}
    if array_of(lungs.mask).any():
        volumes["lungs.nii.gz"] = lungs.mask
    if lesions is not None:
        decisions += _lesions_beside(lesions.labels, lungs.mask)
        if array_of(lesions.labels).any():
            volumes["lesion.nii.gz"] = lesions.labels
    record.decisions = decisions
    about = _about(plan, ct, lesions, decisions)
    if lungs.is_crop:
        about["crop"] = True
    _write(plan, cases, volumes, about, record, ct.slice_positions.values())
    return tuple(decisions)


def _lesions_beside(lesions: sitk.Image, lung_mask: sitk.Image) -> list[str]:
    """Name the lesions of which no voxel lies in the lung mask."""
    labels, lungs = array_of(lesions), array_of(lung_mask) > 0
    counts = np.bincount(labels.ravel(), minlength=2)[1:]
    within = np.bincount(labels[lungs], minlength=len(counts) + 1)[1:]
    beside = [str(n) for n, (a, b) in enumerate(zip(within, counts, strict=True), start=1) if b and a == 0]
    return [f"lesion {', '.join(beside)} lies outside the lung mask"] if beside else []


def _about(
    plan: CasePlan, ct: CtScan, lesions: LesionLabels | None, decisions: Sequence[str]
) -> dict[str, Any]:
    outline = plan.source.outline
    files = [*ct.files, *([outline.path] if outline else [])]
    volume = ct.volume
    about: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "case_id": plan.case_id,
        "patient_id": plan.patient_id,
        "cohort": plan.cohort,
        "egfr": plan.egfr,
        "source": {"kind": ct.kind, "id": plan.source.id, "files": len(files), "sha256": _combined(files)},
        "pixels_sha256": pixels_sha256(volume),
        "scanner": dict(ct.scanner),
        "geometry": {
            "size": volume.GetSize(),
            "spacing_mm": volume.GetSpacing(),
            "origin_mm": volume.GetOrigin(),
            "direction": volume.GetDirection(),
        },
        "outline": None,
        "decisions": list(decisions),
    }
    if outline is not None and lesions is not None:
        counts = np.bincount(array_of(lesions.labels).ravel())[1:]
        about["outline"] = {
            "kind": outline.kind,
            "lesions_ml": [round(int(n) * voxel_ml(volume), 4) for n in counts],
            **lesions.details,
        }
    return about


def _combined(files: Sequence[Path]) -> str:
    """Return one SHA-256 for many files, whatever their names and order."""
    # Sorted hashes, without names: a copied or renamed series has the same sum.
    return hashlib.sha256("\n".join(sorted(file_sha256(path) for path in files)).encode()).hexdigest()


def _write(
    plan: CasePlan,
    cases: Path,
    volumes: Mapping[str, sitk.Image],
    about: dict[str, Any],
    record: RunRecord,
    slice_positions: Iterable[Sequence[float]],
) -> None:
    target = cases / plan.case_id
    # Hidden names: a search of the folder skips them, so a half-written case is never read.
    draft, old = cases / f".writing-{plan.case_id}", cases / f".old-{plan.case_id}"
    if target.exists() and not (target / "case.json").is_file() and any(target.iterdir()):
        raise OutputError(target, "is there and is no case folder", "choose another folder for the cases")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, volume in volumes.items():
            write_volume(volume, draft / name)
        written = [draft / name for name in volumes]
        # Before the folder gets its name: a case that another reader finds elsewhere is not kept.
        about["geometry"]["certificate"] = certify(written, volumes["ct.nii.gz"], slice_positions)
        write_json(draft / "case.json", about)
        outputs = sorted(path for path in draft.iterdir() if path.is_file())
        record.finish(draft / "case.json", outputs)
        # Two renames: after a kill in between there is no case of this name, and the next run writes it
        # again.
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        draft.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            target, f"cannot be written: {error.strerror or error}", "free some space"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
