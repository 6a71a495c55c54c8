"""Write one self-contained HTML page over what a run folder holds."""

import json
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader, Template

from radiogen import __version__
from radiogen.provenance import RunRecord, record_path, write_text
from radiogen.report import answers
from radiogen.report.charts import dice_chart, layer_bars, loss_chart
from radiogen.report.figures import figure, show, show_cell, show_column, show_p, show_signed
from radiogen.report.pictures import embed_pictures
from radiogen.report.reading import Row, Run, read_run

PAGE = "report.html"
EGFR_COLUMNS = ("auprc", "brier", "calibration_slope", "sensitivity", "specificity")
HIDDEN_CONFIG = "patients_seen"  # names of patients; their number is shown instead


def report(run: Path, out: Path) -> Path:
    """Write the page of a run: answers first, then patients, pictures, tables, training, and run records.

    The page needs no network and no other file. The same folder gives the same bytes.

    Args:
        run: Folder of a run, of segmented cases, of one case, or of one model.
        out: HTML file to write, or a folder that is there already, which receives `report.html`.

    Returns:
        The HTML file.

    Raises:
        CaseError: There is nothing to report, or a file of the run is damaged.
        TableError: A table of the run is damaged.
        OutputError: The page cannot be written.
    """
    target = out / PAGE if out.is_dir() else out
    record = RunRecord("report", options={})
    found = read_run(run, leave_out=record_path(target))
    write_text(target, render(found))
    record.finish(target)
    return target


def template(name: str) -> Template:
    """A page of this folder, with the filters that write numbers and tables."""
    environment = Environment(
        loader=PackageLoader("radiogen.report", "."),
        autoescape=True,
        undefined=ChainableUndefined,  # JSON of other versions may lack a value
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=figure,
        show=show,
        signed=show_signed,
        column=show_column,
        cell=show_cell,
        pretty=_pretty,
        numbers=_hold_numbers,
        p_value=show_p,
    )
    return environment.get_template(name)


def render(run: Run) -> str:
    """The HTML of a run that was read."""
    pictures = [path for case in run.segmented for path in case.pictures] + list(run.plots)
    training = run.training
    segmentation = answers.answer_segmentation(run.evaluation)
    return template("page.html.j2").render(
        run=run,
        version=__version__,
        flow=answers.count_flow(run),
        segmentation=segmentation,
        unmeasured=answers.count_unmeasured(run.evaluation, segmentation),
        egfr=answers.answer_egfr(run.validation),
        learned_from=answers.patients_known(run, training),
        image=embed_pictures(pictures),
        lesions=[lesion for case in run.segmented for lesion in _with_case(case.case_id, case.lesions)],
        predictions=[_with_probability(row) for row in run.predictions],
        decisions=_decisions(run),
        features=_feature_blocks(run.features),
        charts=[
            chart
            for chart in (
                loss_chart(training.epochs) if training else None,
                dice_chart(training.validation) if training else None,
            )
            if chart
        ],
        bars=layer_bars(run.layers),
        egfr_columns=_egfr_columns(run.validation),
        model_config=_without_patients(training.config) if training else {},
    )


def _with_case(case_id: str, lesions: tuple[Row, ...]) -> list[Row]:
    return [{"case_id": case_id, **lesion} for lesion in lesions]


def _with_probability(row: Row) -> dict[str, Any]:
    probability, low, high = (figure(row.get(name)) for name in ("probability", "low", "high"))
    return {"row": row, "probability": probability, "low": low, "high": high}


def _decisions(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """By case: (step, sentence)."""
    listed: dict[str, list[tuple[str, str]]] = {}
    for case_id, said in run.ingest_decisions.items():
        listed.setdefault(case_id, []).extend(("ingest", each) for each in said)
    for case in run.segmented:
        listed.setdefault(case.case_id, []).extend(("segment", each) for each in case.decisions)
    return [(case_id, said) for case_id, said in sorted(listed.items()) if said]


def _feature_blocks(features: tuple[Row, ...]) -> dict[str, int]:
    """How many columns there are of each block."""
    blocks: dict[str, int] = {}
    for name in features[0] if features else ():
        block = name.partition("_")[0]
        if name not in ("case_id", "patient_id", "lesion"):
            blocks[block] = blocks.get(block, 0) + 1
    return blocks


def _egfr_columns(validation: dict[str, Any]) -> list[str]:
    candidates = list((validation.get("candidates") or {}).values())
    f1 = [name for name in (candidates[0] if candidates else ()) if name.startswith("f1_")]
    return [*EGFR_COLUMNS, *f1]


def _without_patients(config: dict[str, Any]) -> dict[str, Any]:
    seen = config.get(HIDDEN_CONFIG)
    number = f"{len(seen)} patients" if isinstance(seen, list) else "unknown"
    return {**{name: value for name, value in config.items() if name != HIDDEN_CONFIG}, HIDDEN_CONFIG: number}


def _pretty(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)


def _hold_numbers(rows: list[Row], name: str) -> bool:
    """Whether a column of a table is one of numbers."""
    return any(figure(row.get(name)) is not None for row in rows)
