"""Write one self-contained HTML page about a run folder."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiogen import __version__
from radiogen.drawing.panels import COLORS
from radiogen.errors import RadiogenError
from radiogen.io.cases import Case
from radiogen.provenance import RunRecord, record_path, write_text
from radiogen.report import answers
from radiogen.report.charts import dice_chart, draw_distributions, layer_bars, loss_chart
from radiogen.report.figures import number_of, template
from radiogen.report.flow import count_steps, draw_flow
from radiogen.report.qc import ExaminedCase, examine_all, masks_of
from radiogen.report.reading import Row, Run, cohort_setting, find_ct_cases, find_masks, read_run
from radiogen.report.stills import draw_still, embed_pictures, shrink_pictures
from radiogen.report.viewer import Viewer, make_viewer
from radiogen.runtime import Progress, no_progress

PAGE = "report.html"
EGFR_COLUMNS = ("auprc", "brier", "calibration_slope", "sensitivity", "specificity")
# Ids of patients do not belong on a page; their number is shown instead.
HIDDEN_CONFIG = {"patients_seen": "patients", "scans_seen": "scans"}
PLOTS_BYTES = 3_000_000  # of validation plots beside a viewer or many pictures


@dataclass(frozen=True)
class ReportOptions:
    """Which cases and model a page is about, where the folder does not say."""

    cases: Path | None = None  # folder of the cases, where the run does not hold them
    case: str | None = None  # only this case, with a viewer
    egfr: Path | None = None  # folder of the EGFR model whose validation stands behind the probabilities
    jobs: int = 1  # cases examined at the same time


@dataclass(frozen=True)
class CaseReview:
    """The examined CTs of a run; empty where there are none."""

    examined: tuple[ExaminedCase, ...] = ()  # the most suspicious first
    still: str = ""  # the large picture of a single case
    viewer: Viewer | None = None  # of a single case


def report(
    run: Path, out: Path, options: ReportOptions | None = None, progress: Progress = no_progress
) -> Path:
    """Write the page of a run: answers first, then patients, pictures, tables, training, and run records.

    The page needs no network and no other file. The same folder gives the same bytes. A page of one case
    carries a viewer, a page of many their pictures, the most suspicious first.

    Args:
        run: Folder of a run, of cases, of segmented cases, of one case, or of one model.
        out: HTML file to write, or a folder that is there already, which receives `report.html`.
        options: Where the cases are, and whether the page is of one only.
        progress: Called with the number of cases examined and of all.

    Returns:
        The HTML file.

    Raises:
        CaseError: There is nothing to report, or a file of the run is damaged.
        TableError: A table of the run is damaged.
        OutputError: The page cannot be written.
    """
    options = options or ReportOptions()
    target = out / PAGE if out.is_dir() else out
    record = RunRecord("report", options={"case": options.case} if options.case else {})
    contents = read_whole(run, record_path(target), options)
    cases = find_ct_cases(run, options.cases)
    if options.case:
        contents = contents.only(options.case)
    review = review_cases(contents, cases, run, options.jobs, progress)
    write_text(target, render(contents, run, review))
    record.finish(target)
    return target


def read_whole(run: Path, leave_out: Path, options: ReportOptions) -> Run:
    """Read a run with the cases and the EGFR model that it used."""
    beside = options.cases or cohort_setting(run, "source")
    return read_run(run, leave_out, beside, options.egfr or cohort_setting(run, "egfr"))


def review_cases(run: Run, cases: Sequence[Case], folder: Path, jobs: int, progress: Progress) -> CaseReview:
    """Measure and draw the cases of a run; a single case gets a viewer."""
    # A source of cases may hold more than this run used.
    named = {case.case_id for case in run.segmented} | set(run.ingest_decisions)
    named |= {row["case_id"] for row in run.manifest if row.get("case_id")}
    chosen = [case for case in cases if case.case_id in named]
    if not chosen:
        return CaseReview()
    masks = find_masks(folder / "segmented" if (folder / "segmented").is_dir() else folder)
    # Where only a split was segmented, the other cases are not part of this run.
    if run.segmented:
        done = {case.case_id for case in run.segmented} | {row["case_id"] for row in run.failures}
        chosen = [case for case in chosen if case.case_id in done or case.case_id in run.ingest_decisions]
    examined = examine_all(chosen, masks, jobs, progress)
    if len(examined) != 1 or examined[0].facts is None:
        return CaseReview(tuple(shrink_pictures(examined)))
    case = chosen[0]
    try:
        ct, of_case = case.ct(), masks_of(case, masks.get(case.case_id))
    # The page still lists a case whose masks cannot be drawn; `examine_all` gives the reason.
    except RadiogenError:
        return CaseReview(tuple(examined))
    return CaseReview(tuple(examined), draw_still(ct, of_case, case.case_id), make_viewer(ct, of_case))


def render(run: Run, folder: Path, review: CaseReview) -> str:
    """Return the HTML of a run and of its examined cases."""
    # Where the CTs are there, cases are drawn anew; else the pictures that `segment` wrote are embedded.
    own = [] if review.examined else [path for case in run.segmented for path in case.pictures]
    pictures = [*own, *run.plots]
    training, segmentation = run.training, answers.answer_segmentation(run.evaluation)
    drawn = (loss_chart(training.epochs), dice_chart(training.validation)) if training else ()
    flow, is_one_case = answers.count_patients(run), len(review.examined or run.segmented) == 1
    counts = flow.ingested is not None or flow.failed or flow.segmented
    return template("page.html.j2").render(
        run=run,
        version=__version__,
        review=review,
        viewer=review.viewer,
        colors=COLORS,
        is_one_case=is_one_case,
        shows_patients=bool(flow.failed) or bool(counts and not (is_one_case and review.examined)),
        steps=count_steps(run, folder),
        stages=draw_flow(run),
        distributions=draw_distributions(run, review.examined),
        flow=flow,
        segmentation=segmentation,
        unmeasured=answers.count_unmeasured(run.evaluation, segmentation),
        egfr=answers.answer_egfr(run.validation),
        learned_from=answers.patients_known(run, training),
        image=embed_pictures(pictures, PLOTS_BYTES) if review.examined else embed_pictures(pictures),
        lesions=[{"case_id": case.case_id, **lesion} for case in run.segmented for lesion in case.lesions],
        predictions=[_with_probability(row) for row in run.predictions],
        probability={row.get("patient_id"): _with_probability(row) for row in run.predictions},
        decisions=_decisions(run),
        features=Counter(name.partition("_")[0] for name in run.feature_names),
        charts=[chart for chart in drawn if chart],
        bars=layer_bars(run.layers),
        egfr_columns=_egfr_columns(run.validation),
        model_config=_without_patients(training.config) if training else {},
    )


def _with_probability(row: Row) -> dict[str, Any]:
    probability, low, high = (number_of(row.get(name)) for name in ("probability", "low", "high"))
    return {"row": row, "probability": probability, "low": low, "high": high}


def _decisions(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the decisions of each case: (step, sentence)."""
    listed: dict[str, list[tuple[str, str]]] = {}
    for case_id, decisions in run.ingest_decisions.items():
        listed.setdefault(case_id, []).extend(("ingest", each) for each in decisions)
    for case in run.segmented:
        listed.setdefault(case.case_id, []).extend(("segment", each) for each in case.decisions)
    return [(case_id, decisions) for case_id, decisions in sorted(listed.items()) if decisions]


def _egfr_columns(validation: dict[str, Any]) -> list[str]:
    candidates = list((validation.get("candidates") or {}).values())
    # The name of this column holds the positive class, such as f1_mutant.
    f1 = [name for name in (candidates[0] if candidates else ()) if name.startswith("f1_")]
    return [*EGFR_COLUMNS, *f1]


def _without_patients(config: dict[str, Any]) -> dict[str, Any]:
    listed = {name: config.get(name) for name in HIDDEN_CONFIG}
    numbers = {
        name: f"{len(seen)} {HIDDEN_CONFIG[name]}" if isinstance(seen, list) else "unknown"
        for name, seen in listed.items()
    }
    return {**{name: value for name, value in config.items() if name not in numbers}, **numbers}
