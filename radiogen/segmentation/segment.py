"""Segment the lesions of cases or scans: masks, tables, pictures and other formats come out."""

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
from radiogen.io.patients import find_known, name_pair
from radiogen.measures.lesions import Lesion, measure_lesions
from radiogen.model.folder import AnyModel, ModelConfig, check_prior, load_models, starter_model
from radiogen.model.priors import (
    AUTO_PRIORS,
    PROMPT_OF,
    PriorChoice,
    box_round,
    parse_box,
    parse_point,
    point_within,
)
from radiogen.provenance import (
    RunRecord,
    file_sha256,
    is_done,
    record_path,
    remove_if_refused,
    write_failures,
)
from radiogen.runtime import AnyPath, Progress, no_progress
from radiogen.segmentation.formats import Format, FormatWriter, parse_formats
from radiogen.segmentation.inference import Effort, Inference
from radiogen.segmentation.lesion_map import PARTS, score_rows, write_lesions_csv
from radiogen.segmentation.volume import (
    Prompt,
    Segmentation,
    SegmentationSettings,
    segment_crop,
    segment_volume,
)

LESIONS = "lesions.csv"
MASK = "lesion.nii.gz"
PICTURE = "lesion.png"
PROBABILITY = "lesion_probability.nii.gz"
CASES, FAILURES = "cases", "failures.csv"


class SegmentOptions(Settings):
    """Which prompt the cases get, which files are written, and what happens to cases that are done."""

    prior: PriorChoice | None = None  # None: box where one is given, else auto if the model can, else lungs
    box: str | None = None  # x0,y0,z0,x1,y1,z1, LPS millimetres
    points: tuple[str, ...] = ()  # each x,y,z, LPS millimetres, in a lesion of its own
    point_outline: Path | None = None  # the points are the deepest of the lesions of this outline
    outline: Path | None = None  # the prior is the box or the mask of this outline, not of the case's own
    roi: str | None = None  # which ROI of that outline
    split: str | None = None  # only the cases of this split
    how: SegmentationSettings = SegmentationSettings()  # a key of run records and of cohort settings
    save_probabilities: bool = False
    picture: bool = True
    formats: tuple[Format, ...] = ("nifti",)  # beside which others the mask is written in
    dicom: Path | None = None  # what the cases were ingested from, for formats that refer to it
    keep_patient: bool = False  # DICOM bears the patient's identity instead of the case id
    existing: Literal["skip", "overwrite", "fail"] = "skip"

    @field_validator("formats", mode="before")
    @classmethod
    def _known(cls, names: str | Sequence[str]) -> tuple[Format, ...]:
        return parse_formats(names if isinstance(names, str) else ",".join(names))


@dataclass(frozen=True)
class SegmentedCase:
    """One case that was segmented: where its files lie, and its lesions."""

    case_id: str
    folder: Path
    lesions: tuple[Lesion, ...]
    rows: tuple[dict[str, Any], ...]  # of lesions.csv, one a lesion
    decisions: tuple[str, ...]
    is_new: bool


@dataclass
class SegmentReport:
    """The cases of a source that were segmented, and those that failed."""

    done: list[SegmentedCase] = field(default_factory=list)
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # case_id, reason, hint


def segment(
    source: AnyPath,
    out: AnyPath,
    model: AnyModel | None = None,
    options: SegmentOptions | None = None,
    progress: Progress = no_progress,
    on_estimate: Callable[[Effort], None] | None = None,
) -> SegmentReport:
    """Segment a case folder, a folder of cases, or scans that are ingested into `out/cases` first.

    Args:
        source: Cases, a DICOM folder, or a NIfTI, NRRD or MHA file.
        out: Gets `<case_id>/lesion.nii.gz`, `lesions.csv`, `lesion.png` and a run record a case, with
            `save_probabilities` also `lesion_probability.nii.gz`, and the other formats that are requested.
        model: A loaded model, or several as one; else the model that radiogen ships.
        options: Prior, box, and what happens to results that are there.
        progress: Called with what is done and how much there is.
        on_estimate: Called with the time and memory of a case, when its first windows were measured.

    Raises:
        RadiogenError: The only case failed, or the model was not trained with this prior.
    """
    source, out = Path(source), Path(out)
    model = model or load_models([starter_model()])
    options = options or SegmentOptions()
    options = options.model_copy(update={"prior": chosen_prior(options, model.config)})
    _check_options(options, model)
    if out.is_file():
        raise OutputError(out, "is a file", "choose a folder")
    report = SegmentReport()
    inference = Inference(model, options.how, on_estimate, progress)
    with remove_if_refused(out / CASES):
        cases = _cases_of(source, out, options, report, progress)
        for name, values in (("--box", options.box), ("--point", options.points)):
            if values and len(cases) > 1:
                wrong = f"works for one case only, not for {len(cases)} cases"
                raise ConfigError(name, wrong, f"segment one case at a time, or take {name}-from")
        dicom = options.dicom or (None if is_case_source(source) else source)
        formats = FormatWriter(options.formats, dicom, options.keep_patient, model.hash, out)
        segmenter = CaseSegmenter(out, inference, options, formats)
        for number, case in enumerate(cases, start=1):
            try:
                report.done.append(segmenter.segment(case))
            except RadiogenError as error:
                if len(cases) == 1 and not report.failures:
                    raise
                report.failures.append((case.case_id, error.reason, error.hint))
            progress("segment", number, len(cases))
    write_lesions_csv([row for done in report.done for row in done.rows], out / LESIONS)
    write_failures(out / FAILURES, "segment", report.failures)
    return report


def chosen_prior(options: SegmentOptions, config: ModelConfig) -> PriorChoice:
    """Return the requested prior; else that of the prompt, else the best one that needs no prompt."""
    if options.prior:
        return options.prior
    if options.box or options.outline:
        return "box"
    if options.points or options.point_outline:
        return "points"
    return "auto" if all(prior in config.priors for prior in AUTO_PRIORS) else "lungs"


@dataclass(frozen=True)
class CaseSegmenter:
    """Segments the cases of one call, one at a time, and writes their files.

    Attributes:
        out: Gets a folder for each case.
        inference: The networks, prepared once.
        options: With the prior chosen.
        formats: Writes the mask in other formats.
    """

    out: Path
    inference: Inference
    options: SegmentOptions
    formats: FormatWriter

    def segment(self, case: Case) -> SegmentedCase:
        """Segment a case and write its files, the record last; or read what an earlier run left."""
        options, model = self.options, self.inference.model
        folder = self.out / case.case_id
        prior = chosen_prior(options, model.config)
        source = "human" if options.box or options.points else PROMPT_OF[prior]
        given = options.outline or options.point_outline
        outline = given if given and given.is_file() else None
        described = {
            **options.model_dump(
                mode="json", exclude={"existing", "split", "outline", "point_outline", "dicom"}
            ),
            "prompt": source,
            "outline_sha256": file_sha256(outline) if outline else None,
        }
        inputs = [path for path in (case.ct_path, case.lungs_path, case.lesion_path) if path.is_file()]
        record = RunRecord("segment", described, inputs=inputs, model_hash=model.hash)
        record.device = str(self.inference.device)
        if record_path(folder / MASK).is_file() and options.existing == "fail":
            raise OutputError(folder, "is segmented already", "take --existing skip or overwrite")
        if options.existing == "skip" and is_done(folder / MASK, described, inputs, model.hash):
            return _read_earlier(case, folder)
        self.formats.check(case)
        ct, lungs = case.ct(), case.lungs()
        prompt = _make_prompt(case, prior, options)
        segment = segment_crop if case.is_crop else segment_volume
        found = segment(model, ct, lungs, prompt, options.how, self.inference, options.save_probabilities)
        lesions = tuple(measure_lesions(found.lesion))
        rows = tuple(score_rows(case.case_id, lesions, found.scores))
        title = f"{case.case_id}, prior {prior}, prompt {source}"
        outputs = _write(case, folder, found, rows, ct, title if options.picture else None)
        others, messages = self.formats.write(case, folder, found.lesion, lesions)
        write_volume(found.lesion, folder / MASK)
        known = find_known([case.patient_id], {case.patient_id: [case.scan]}, model.config.seen or ())
        messages += [f"the model learned from this patient ({name_pair(*one)})" for one in known.items()]
        decisions = (*found.decisions, *messages)
        record.decisions += decisions
        record.decisions += [
            f"lesion {row['lesion']}: {row['origin']}, score {row['score']:.2f}" for row in rows
        ]
        record.finish(folder / MASK, [*outputs, *others])
        return SegmentedCase(case.case_id, folder, lesions, rows, decisions, is_new=True)


def _read_earlier(case: Case, folder: Path) -> SegmentedCase:
    lesions = tuple(measure_lesions(read_mask(folder / MASK)))
    with (folder / LESIONS).open(newline="", encoding="utf-8") as file:
        rows = tuple(csv.DictReader(file))
    return SegmentedCase(case.case_id, folder, lesions, rows, (), is_new=False)


def _write(
    case: Case,
    folder: Path,
    found: Segmentation,
    rows: Sequence[dict[str, Any]],
    ct: sitk.Image,
    title: str | None,
) -> list[Path]:
    """Write the files of a case, a picture if it has a title, and remove those of an earlier run."""
    for name in (record_path(folder / MASK).name, PICTURE, PROBABILITY):
        (folder / name).unlink(missing_ok=True)
    write_lesions_csv(rows, folder / LESIONS)
    outputs = [folder / MASK, folder / LESIONS]
    if title is not None:
        masks = {"lesion": found.lesion}
        if case.has_lesion:
            masks["outline"] = case.lesion()
        write_picture(ct, masks, folder / PICTURE, title)
    if found.probability is not None:
        write_volume(found.probability, folder / PROBABILITY, scale=1 / PARTS)
        outputs.append(folder / PROBABILITY)
    return outputs


def _make_prompt(case: Case, prior: PriorChoice, options: SegmentOptions) -> Prompt:
    """Make the prompt of a case: what was given, or boxes, points or mask of an outline, or none."""
    if prior not in ("box", "points", "mask"):
        return Prompt(prior)
    if options.box:
        return Prompt("box", boxes=(parse_box(options.box),))
    if options.points:
        return Prompt("points", points=tuple(parse_point(point) for point in options.points))
    given = options.point_outline if prior == "points" else options.outline
    if given:
        outline = _read_outline(case, given, options.roi)
    elif case.has_lesion:
        outline = case.lesion()
    else:
        hint = "give --box, --point, --box-from or --point-from, or take --prior lungs"
        raise CaseError(case.case_id, "has no outline to make a prior from", hint)
    if prior == "mask":
        return Prompt("mask", mask=outline)
    if prior == "points":
        labels = [one.label for one in measure_lesions(outline)]
        return Prompt("points", points=tuple(point_within(outline, label) for label in labels))
    return Prompt("box", boxes=tuple(box_round(outline, one.label) for one in measure_lesions(outline)))


def _read_outline(case: Case, path: Path, roi: str | None) -> sitk.Image:
    from radiogen.ingestion.outline_choice import OutlineChoice  # with pydicom: half a second
    from radiogen.ingestion.outlines import read_lesions
    from radiogen.ingestion.sources import outline_of

    return read_lesions(path, outline_of(path).kind, read_grid(case.ct_path), OutlineChoice(roi=roi)).labels


def _check_options(options: SegmentOptions, model: AnyModel) -> None:
    check_prior(model.config, chosen_prior(options, model.config), model.folder)
    if options.prior != "box" and options.box:
        raise ConfigError("--box", f"is given with --prior {options.prior}", "take --prior box")
    if options.prior != "points" and (options.points or options.point_outline):
        wrong = f"is given with --prior {options.prior}"
        raise ConfigError("--point" if options.points else "--point-from", wrong, "take --prior points")
    if options.box:
        parse_box(options.box)
    for point in options.points:
        parse_point(point)
    if options.outline and options.prior not in ("box", "mask"):
        raise ConfigError("--box-from", f"is given with --prior {options.prior}", "take --prior box or mask")


def _cases_of(
    source: Path, out: Path, options: SegmentOptions, report: SegmentReport, progress: Progress
) -> list[Case]:
    """List the cases of a source; scans become cases first, and those that fail are reported."""
    if is_case_source(source):
        return cases_of_split(source, options.split)
    if options.split:
        raise ConfigError(f"--split {options.split}", "is given for scans", "ingest and split them first")
    from radiogen.ingestion.ingest import KEPT, ingest  # with pydicom and pandas: half a second
    from radiogen.ingestion.options import IngestOptions

    ingested = ingest(source, out / CASES, IngestOptions(roi=options.roi), progress)
    if any(KEPT in case.decisions for case in ingested.cases):  # an earlier run took another ROI
        again = IngestOptions(roi=options.roi, existing="overwrite")
        ingested = ingest(source, out / CASES, again, progress)
    report.failures += [(failure.case_id, failure.reason, failure.hint) for failure in ingested.failures]
    ids = {case.case_id for case in ingested.cases}
    return [case for case in find_cases(out / CASES) if case.case_id in ids] if ids else []
