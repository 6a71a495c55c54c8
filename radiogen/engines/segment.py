"""Segment the lesions of cases or scans, and write masks, tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import SimpleITK as sitk

from radiogen.config import Settings
from radiogen.engines.model_folder import Model, check_prior
from radiogen.engines.segmentation import Prompt, Segmentation, segment_volume
from radiogen.errors import CaseError, ConfigError, OutputError, RadiogenError
from radiogen.io.cases import Case, cases_of_split, find_cases, is_case_source
from radiogen.io.nifti import read_grid, read_mask, write_volume
from radiogen.io.picture import write_picture
from radiogen.measures.lesions import Lesion, measure_lesions, write_lesions_csv
from radiogen.preprocess.ingest import KEPT, ingest
from radiogen.preprocess.options import IngestOptions
from radiogen.preprocess.outline_choice import OutlineChoice
from radiogen.preprocess.outlines import read_lesions
from radiogen.preprocess.priors import PROMPT_OF, PriorName, box_round, parse_box
from radiogen.preprocess.sources import outline_of
from radiogen.provenance import RunRecord, file_sha256, is_done, leave_no_trace, record_path, write_failures
from radiogen.runtime import Tick, no_tick

CASES, FAILURES, LESIONS = "cases", "failures.csv", "lesions.csv"


class SegmentOptions(Settings):
    """Where the network is told to look, and what happens to cases that are done."""

    prior: PriorName = "lungs"
    box: str | None = None  # x0,y0,z0,x1,y1,z1, LPS millimetres
    outline: Path | None = None  # the prior is the box or the mask of this outline, not of the case's own
    roi: str | None = None  # which ROI of that outline
    split: str | None = None  # only the cases of this split
    smallest_ml: float = 0.03
    picture: bool = True
    existing: Literal["skip", "overwrite", "fail"] = "skip"


@dataclass(frozen=True)
class Segmented:
    """One case that was segmented: where its files lie, and its lesions."""

    case_id: str
    folder: Path
    lesions: tuple[Lesion, ...]
    decisions: tuple[str, ...]
    is_new: bool


@dataclass
class SegmentReport:
    """What came of a source."""

    done: list[Segmented] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # case_id, reason, way out


def segment(
    source: Path, out: Path, model: Model, options: SegmentOptions, tick: Tick = no_tick
) -> SegmentReport:
    """Segment a case folder, a folder of cases, or scans that are ingested into `out/cases` first.

    Args:
        source: Cases, a DICOM folder, or a NIfTI, NRRD or MHA file.
        out: Gets `<case_id>/lesion.nii.gz`, `lesions.csv`, `lesion.png` and a run record a case.
        model: A loaded model.
        options: Prior, box, and what to do with what is there.
        tick: Told of progress.

    Raises:
        RadiogenError: The only case failed, or the model was not trained with this prior.
    """
    check_prior(model.config, options.prior, model.folder)
    _check_options(options)
    if out.is_file():
        raise OutputError(out, "is a file", "choose a folder")
    report = SegmentReport()
    with leave_no_trace(out / CASES):
        _segment_cases(source, out, model, options, report, tick)
    write_lesions_csv({done.case_id: done.lesions for done in report.done}, out / LESIONS)
    write_failures(out / FAILURES, "segment", report.failures)
    return report


def _segment_cases(
    source: Path, out: Path, model: Model, options: SegmentOptions, report: SegmentReport, tick: Tick
) -> None:
    cases = _cases_of(source, out, options, report, tick)
    if options.box and len(cases) > 1:
        raise ConfigError(
            "--box", f"is given for {len(cases)} cases", "segment one case at a time, or --box-from"
        )
    for number, case in enumerate(cases, start=1):
        try:
            report.done.append(_segment_case(case, out / case.case_id, model, options))
        except RadiogenError as error:
            if len(cases) == 1 and not report.failures:
                raise
            report.failures.append((case.case_id, error.reason, error.way_out))
        tick("segment", number, len(cases))


def _check_options(options: SegmentOptions) -> None:
    if options.prior != "box" and options.box:
        raise ConfigError("--box", f"is given with --prior {options.prior}", "take --prior box")
    if options.box:
        parse_box(options.box)
    if options.outline and options.prior not in ("box", "mask"):
        raise ConfigError("--box-from", f"is given with --prior {options.prior}", "take --prior box or mask")


def _cases_of(
    source: Path, out: Path, options: SegmentOptions, report: SegmentReport, tick: Tick
) -> list[Case]:
    if is_case_source(source):
        return cases_of_split(source, options.split)
    if options.split:
        raise ConfigError(f"--split {options.split}", "is given for scans", "ingest and split them first")
    made = ingest(source, out / CASES, IngestOptions(roi=options.roi), tick)
    if any(KEPT in case.decisions for case in made.cases):  # an earlier run asked for another ROI
        made = ingest(source, out / CASES, IngestOptions(roi=options.roi, existing="overwrite"), tick)
    report.failures += [(failure.case_id, failure.reason, failure.way_out) for failure in made.failures]
    wanted = {case.case_id for case in made.cases}
    return [case for case in find_cases(out / CASES) if case.case_id in wanted] if wanted else []


def _segment_case(case: Case, folder: Path, model: Model, options: SegmentOptions) -> Segmented:
    result = folder / "lesion.nii.gz"
    outline = options.outline
    described = {
        **options.model_dump(mode="json", exclude={"existing", "split", "outline"}),
        "prompt": _prompt_source(options),
        "outline_sha256": file_sha256(outline) if outline and outline.is_file() else None,
    }
    inputs = [path for path in (case.ct_path, case.lungs_path, case.lesion_path) if path.is_file()]
    if record_path(result).is_file() and options.existing == "fail":
        raise OutputError(folder, "is segmented already", "take --existing skip or overwrite")
    if options.existing == "skip" and is_done(result, described, inputs, model.hash):
        lesions = tuple(measure_lesions(read_mask(result)))
        return Segmented(case.case_id, folder, lesions, (), is_new=False)
    record = RunRecord("segment", described, inputs=inputs, model_hash=model.hash)
    record.device = str(next(model.network.parameters()).device)
    ct, lungs = case.ct(), case.lungs()
    prompt = _prompt(case, options)
    found = segment_volume(model, ct, lungs, prompt, options.smallest_ml)
    lesions = tuple(measure_lesions(found.lesion))
    _write(case, folder, found, lesions, ct, options)
    record.decisions += found.decisions
    record.finish(result, [result, folder / LESIONS])
    return Segmented(case.case_id, folder, lesions, found.decisions, is_new=True)


def _write(
    case: Case,
    folder: Path,
    found: Segmentation,
    lesions: Sequence[Lesion],
    ct: sitk.Image,
    options: SegmentOptions,
) -> None:
    record_path(folder / "lesion.nii.gz").unlink(missing_ok=True)
    write_lesions_csv({case.case_id: lesions}, folder / LESIONS)
    if options.picture:
        masks = {"lesion": found.lesion}
        if case.has_lesion:
            masks["outline"] = case.lesion()
        title = f"{case.case_id}, prior {options.prior}, prompt {_prompt_source(options)}"
        write_picture(ct, masks, folder / "lesion.png", title)
    write_volume(found.lesion, folder / "lesion.nii.gz")


def _prompt_source(options: SegmentOptions) -> str:
    return "human" if options.box else PROMPT_OF[options.prior]


def _prompt(case: Case, options: SegmentOptions) -> Prompt:
    if options.prior == "mask":
        return Prompt("mask", mask=_outline(case, options))
    if options.prior != "box":
        return Prompt(options.prior)
    if options.box:
        return Prompt("box", boxes=(parse_box(options.box),))
    outline = _outline(case, options)
    labels = [lesion.label for lesion in measure_lesions(outline)]
    return Prompt("box", boxes=tuple(box_round(outline, label) for label in labels))


def _outline(case: Case, options: SegmentOptions) -> sitk.Image:
    """The outline that was named, or else the one the case was ingested with."""
    if options.outline:
        choice = OutlineChoice(roi=options.roi)
        kind = outline_of(options.outline).kind
        return read_lesions(options.outline, kind, read_grid(case.ct_path), choice).labels
    if not case.has_lesion:
        way_out = "give --box or --box-from, or take --prior lungs"
        raise CaseError(case.case_id, "has no outline to make a prior from", way_out)
    return case.lesion()
