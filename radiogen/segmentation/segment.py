"""Segment the lesions of cases or scans, and write masks, tables and pictures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from radiogen.segmentation.effort import Effort
from radiogen.segmentation.lesions import write_lesions_csv
from radiogen.segmentation.inference import Inference
from radiogen.model.folder import AnyModel, ModelConfig, check_prior
from radiogen.read_ahead import read_ahead
from radiogen.segmentation.segment_case import LESIONS, CaseWork, LoadedCase, Segmented
from radiogen.segmentation.segment_case import SegmentOptions as SegmentOptions
from radiogen.segmentation.formats import FormatWriter
from radiogen.errors import ConfigError, OutputError, RadiogenError
from radiogen.io.cases import Case, cases_of_split, find_cases, is_case_source
from radiogen.model.priors import AUTO_PRIORS, Look, parse_box
from radiogen.provenance import leave_no_trace, write_failures
from radiogen.runtime import Tick, free_memory_mb, no_tick

CASES, FAILURES = "cases", "failures.csv"
UNPACKED = 8  # a case in memory / its packed CT


@dataclass
class SegmentReport:
    """What came of a source."""

    done: list[Segmented] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # case_id, reason, way out


def segment(
    source: Path,
    out: Path,
    model: AnyModel,
    options: SegmentOptions,
    tick: Tick = no_tick,
    tell: Callable[[Effort], None] | None = None,
) -> SegmentReport:
    """Segment a case folder, a folder of cases, or scans that are ingested into `out/cases` first.

    Args:
        source: Cases, a DICOM folder, or a NIfTI, NRRD or MHA file.
        out: Gets `<case_id>/lesion.nii.gz`, `lesions.csv`, `lesion.png` and a run record a case, with
            `save_probabilities` also `lesion_probability.nii.gz`, and the other formats that are asked for.
        model: A loaded model, or several as one.
        options: Prior, box, and what to do with what is there.
        tick: Told of progress.
        tell: Told how long a case will take and how much memory, when its first windows were measured.

    Raises:
        RadiogenError: The only case failed, or the model was not trained with this prior.
    """
    options = options.model_copy(update={"prior": chosen_prior(options, model.config)})
    check_prior(model.config, options.look, model.folder)
    _check_options(options)
    if out.is_file():
        raise OutputError(out, "is a file", "choose a folder")
    report = SegmentReport()
    inference = Inference(model, options.how, tell, tick)
    with leave_no_trace(out / CASES):
        _segment_cases(source, out, inference, options, report, tick)
    write_lesions_csv([row for done in report.done for row in done.rows], out / LESIONS)
    write_failures(out / FAILURES, "segment", report.failures)
    return report


def chosen_prior(options: SegmentOptions, config: ModelConfig) -> Look:
    """The prior that was asked for; else that of the box, else the best one without."""
    if options.prior:
        return options.prior
    if options.box or options.outline:
        return "box"
    return "auto" if all(prior in config.priors for prior in AUTO_PRIORS) else "lungs"


def _segment_cases(
    source: Path,
    out: Path,
    inference: Inference,
    options: SegmentOptions,
    report: SegmentReport,
    tick: Tick,
) -> None:
    cases = _cases_of(source, out, options, report, tick)
    if options.box and len(cases) > 1:
        raise ConfigError(
            "--box", f"is given for {len(cases)} cases", "segment one case at a time, or --box-from"
        )
    dicom = options.dicom or (None if is_case_source(source) else source)
    formats = FormatWriter(options.formats, dicom, options.keep_patient, inference.model.hash, out)
    work = CaseWork(out, inference, options, formats)
    for number, (case, load) in enumerate(read_ahead(cases, work.load, _is_small), start=1):
        try:
            loaded = load()
            done = work.segment(loaded) if isinstance(loaded, LoadedCase) else loaded
            report.done.append(done)
        except RadiogenError as error:
            if len(cases) == 1 and not report.failures:
                raise
            report.failures.append((case.case_id, error.reason, error.way_out))
        tick("segment", number, len(cases))


def _is_small(case: Case) -> bool:
    """Whether a case can be read while another one is in memory."""
    packed = case.ct_path.stat().st_size if case.ct_path.is_file() else 0
    return UNPACKED * packed / 2**20 < free_memory_mb() / 4


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
    from radiogen.ingestion.ingest import KEPT, ingest  # with pydicom and pandas: half a second
    from radiogen.ingestion.options import IngestOptions

    made = ingest(source, out / CASES, IngestOptions(roi=options.roi), tick)
    if any(KEPT in case.decisions for case in made.cases):  # an earlier run asked for another ROI
        made = ingest(source, out / CASES, IngestOptions(roi=options.roi, existing="overwrite"), tick)
    report.failures += [(failure.case_id, failure.reason, failure.way_out) for failure in made.failures]
    wanted = {case.case_id for case in made.cases}
    return [case for case in find_cases(out / CASES) if case.case_id in wanted] if wanted else []
