"""Segment the lesions of cases or scans, and write masks, tables and pictures."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import SimpleITK as sitk
from pydantic import field_validator

from radiogen.config import Settings
from radiogen.drawing.pictures import write_picture
from radiogen.errors import CaseError, ConfigError, OutputError, RadiogenError
from radiogen.io.cases import Case, cases_of_split, find_cases, is_case_source
from radiogen.io.nifti import read_grid, read_mask, write_volume
from radiogen.measures.lesions import Lesion, measure_lesions
from radiogen.model.folder import AnyModel, ModelConfig, check_prior
from radiogen.model.priors import AUTO_PRIORS, PROMPT_OF, Look, box_round, parse_box
from radiogen.provenance import (
    RunRecord,
    file_sha256,
    is_done,
    record_path,
    remove_if_refused,
    write_failures,
)
from radiogen.read_ahead import read_ahead
from radiogen.runtime import Progress, free_memory_mb, no_progress
from radiogen.segmentation.effort import Effort
from radiogen.segmentation.formats import Format, FormatWriter, parse_formats
from radiogen.segmentation.inference import Inference
from radiogen.segmentation.lesions import finding_rows, write_lesions_csv
from radiogen.segmentation.scanner_grid import PARTS
from radiogen.segmentation.volume import Prompt, Segmentation, SegmentationSettings, segment_volume

LESIONS, MASK, PICTURE, PROBABILITY = (
    "lesions.csv",
    "lesion.nii.gz",
    "lesion.png",
    "lesion_probability.nii.gz",
)


class SegmentOptions(Settings):
    """Where the network is told to look, and what happens to cases that are done."""

    prior: Look | None = None  # None: box where one is given, else auto if the model can, else lungs
    box: str | None = None  # x0,y0,z0,x1,y1,z1, LPS millimetres
    outline: Path | None = None  # the prior is the box or the mask of this outline, not of the case's own
    roi: str | None = None  # which ROI of that outline
    split: str | None = None  # only the cases of this split
    how: SegmentationSettings = SegmentationSettings()
    save_probabilities: bool = False
    picture: bool = True
    formats: tuple[Format, ...] = ("nifti",)  # beside which others the mask is written in
    dicom: Path | None = None  # what the cases were ingested from, for formats that refer to it
    keep_patient: bool = False  # DICOM bears the patient's identity instead of the case id
    existing: Literal["skip", "overwrite", "fail"] = "skip"

    @field_validator("formats", mode="before")
    @classmethod
    def _known(cls, given: str | Sequence[str]) -> tuple[Format, ...]:
        return parse_formats(given if isinstance(given, str) else ",".join(given))

    @property
    def look(self) -> Look:
        """The prior, once it is chosen."""
        return self.prior or "lungs"


@dataclass(frozen=True)
class Segmented:
    """One case that was segmented: where its files lie, and its lesions."""

    case_id: str
    folder: Path
    lesions: tuple[Lesion, ...]
    rows: tuple[dict[str, Any], ...]  # of lesions.csv, one a lesion
    decisions: tuple[str, ...]
    is_new: bool


@dataclass(frozen=True)
class LoadedCase:
    """One case, read and ready to be looked at."""

    case: Case
    record: RunRecord
    ct: sitk.Image
    lungs: sitk.Image


@dataclass(frozen=True)
class CaseWork:
    """What the cases of one call share."""

    out: Path
    inference: Inference
    options: SegmentOptions
    formats: FormatWriter

    def load(self, case: Case) -> LoadedCase | Segmented:
        """Read a case, or what an earlier run made of it."""
        result, options, model = self.out / case.case_id / MASK, self.options, self.inference.model
        outline = options.outline
        described = {
            **options.model_dump(mode="json", exclude={"existing", "split", "outline", "dicom"}),
            "prompt": prompt_source(options),
            "outline_sha256": file_sha256(outline) if outline and outline.is_file() else None,
        }
        inputs = [path for path in (case.ct_path, case.lungs_path, case.lesion_path) if path.is_file()]
        record = RunRecord("segment", described, inputs=inputs, model_hash=model.hash)
        record.device = str(self.inference.device)
        if record_path(result).is_file() and options.existing == "fail":
            raise OutputError(result.parent, "is segmented already", "take --existing skip or overwrite")
        if options.existing == "skip" and is_done(result, described, inputs, model.hash):
            lesions = tuple(measure_lesions(read_mask(result)))
            with (result.parent / LESIONS).open(newline="", encoding="utf-8") as file:
                rows = tuple(csv.DictReader(file))
            return Segmented(case.case_id, result.parent, lesions, rows, (), is_new=False)
        self.formats.check(case)
        return LoadedCase(case, record, case.ct(), case.lungs())

    def segment(self, loaded: LoadedCase) -> Segmented:
        """Segment a case and write what was found, the record last."""
        case, options = loaded.case, self.options
        found = segment_volume(
            self.inference.model,
            loaded.ct,
            loaded.lungs,
            _prompt(case, options),
            options.how,
            self.inference,
            options.save_probabilities,
        )
        folder = self.out / case.case_id
        lesions = tuple(measure_lesions(found.lesion))
        rows = tuple(finding_rows(case.case_id, lesions, found.findings))
        outputs = _write(case, folder, found, rows, loaded.ct, options)
        others, said = self.formats.write(case, folder, found.lesion, lesions)
        write_volume(found.lesion, folder / MASK)
        of_lesions = (f"lesion {row['lesion']}: {row['origin']}, score {row['score']:.2f}" for row in rows)
        loaded.record.decisions += [*found.decisions, *said, *of_lesions]
        loaded.record.finish(folder / MASK, [*outputs, *others])
        return Segmented(case.case_id, folder, lesions, rows, (*found.decisions, *said), is_new=True)


def _write(
    case: Case,
    folder: Path,
    found: Segmentation,
    rows: Sequence[dict[str, Any]],
    ct: sitk.Image,
    options: SegmentOptions,
) -> list[Path]:
    """Write the files of a case, and remove those of an earlier run that this one does not make."""
    for name in (record_path(folder / MASK).name, PICTURE, PROBABILITY):
        (folder / name).unlink(missing_ok=True)
    write_lesions_csv(rows, folder / LESIONS)
    outputs = [folder / MASK, folder / LESIONS]
    if options.picture:
        masks = {"lesion": found.lesion}
        if case.has_lesion:
            masks["outline"] = case.lesion()
        title = f"{case.case_id}, prior {options.prior}, prompt {prompt_source(options)}"
        write_picture(ct, masks, folder / PICTURE, title)
    if found.probability is not None:
        write_volume(found.probability, folder / PROBABILITY, scale=1 / PARTS)
        outputs.append(folder / PROBABILITY)
    return outputs


def prompt_source(options: SegmentOptions) -> str:
    return "human" if options.box else PROMPT_OF[options.look]


def _prompt(case: Case, options: SegmentOptions) -> Prompt:
    if options.prior == "mask":
        return Prompt("mask", mask=_outline(case, options))
    if options.prior != "box":
        return Prompt(options.look)
    if options.box:
        return Prompt("box", boxes=(parse_box(options.box),))
    outline = _outline(case, options)
    labels = [lesion.label for lesion in measure_lesions(outline)]
    return Prompt("box", boxes=tuple(box_round(outline, label) for label in labels))


def _outline(case: Case, options: SegmentOptions) -> sitk.Image:
    """The outline that was named, or else the one the case was ingested with."""
    if options.outline:
        from radiogen.ingestion.outline_choice import OutlineChoice  # with pydicom: half a second
        from radiogen.ingestion.outlines import read_lesions
        from radiogen.ingestion.sources import outline_of

        choice = OutlineChoice(roi=options.roi)
        kind = outline_of(options.outline).kind
        return read_lesions(options.outline, kind, read_grid(case.ct_path), choice).labels
    if not case.has_lesion:
        hint = "give --box or --box-from, or take --prior lungs"
        raise CaseError(case.case_id, "has no outline to make a prior from", hint)
    return case.lesion()


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
    progress: Progress = no_progress,
    tell: Callable[[Effort], None] | None = None,
) -> SegmentReport:
    """Segment a case folder, a folder of cases, or scans that are ingested into `out/cases` first.

    Args:
        source: Cases, a DICOM folder, or a NIfTI, NRRD or MHA file.
        out: Gets `<case_id>/lesion.nii.gz`, `lesions.csv`, `lesion.png` and a run record a case, with
            `save_probabilities` also `lesion_probability.nii.gz`, and the other formats that are asked for.
        model: A loaded model, or several as one.
        options: Prior, box, and what to do with what is there.
        progress: Called with what is done and how much there is.
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
    inference = Inference(model, options.how, tell, progress)
    with remove_if_refused(out / CASES):
        _segment_cases(source, out, inference, options, report, progress)
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
    progress: Progress,
) -> None:
    cases = _cases_of(source, out, options, report, progress)
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
            report.failures.append((case.case_id, error.reason, error.hint))
        progress("segment", number, len(cases))


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
    source: Path, out: Path, options: SegmentOptions, report: SegmentReport, progress: Progress
) -> list[Case]:
    if is_case_source(source):
        return cases_of_split(source, options.split)
    if options.split:
        raise ConfigError(f"--split {options.split}", "is given for scans", "ingest and split them first")
    from radiogen.ingestion.ingest import KEPT, ingest  # with pydicom and pandas: half a second
    from radiogen.ingestion.options import IngestOptions

    made = ingest(source, out / CASES, IngestOptions(roi=options.roi), progress)
    if any(KEPT in case.decisions for case in made.cases):  # an earlier run asked for another ROI
        made = ingest(source, out / CASES, IngestOptions(roi=options.roi, existing="overwrite"), progress)
    report.failures += [(failure.case_id, failure.reason, failure.hint) for failure in made.failures]
    wanted = {case.case_id for case in made.cases}
    return [case for case in find_cases(out / CASES) if case.case_id in wanted] if wanted else []
