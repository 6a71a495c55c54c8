"""What a run says about images, segmentation and software: sentences, each with file and key."""

from collections.abc import Iterator

from radiogen.report.answers import answer_segmentation
from radiogen.report.evidence import Evidence, Files, at, counted, named, spread
from radiogen.report.figures import figure, show
from radiogen.report.flow import count_steps, draw_flow

SCANNER = ("vendor", "kernel", "kvp", "contrast", "slice_thickness_mm")


def technology(files: Files) -> Iterator[Evidence]:
    if files.model:
        said = f"{files.model.get('architecture', 'RA-Seg')}, preset {files.model.get('preset')}"
        yield Evidence(f"Deep learning: {said}.", "model/config.json: architecture, preset")
    if files.run.validation:
        yield Evidence(
            f"Machine learning on features: {files.run.validation.get('classifier')}.",
            "egfr/validation.json: classifier",
        )


def data_sources(files: Files) -> Iterator[Evidence]:
    if files.run.manifest:
        text = counted(row.get("cohort") for row in files.run.manifest)
        yield Evidence(f"Cases by cohort: {text}.", "cases/manifest.csv: cohort")


def dates(files: Files) -> Iterator[Evidence]:
    years = sorted({str(at(case, "scanner.year")) for case in files.cases if at(case, "scanner.year")})
    if years:
        yield Evidence(
            f"Years of the scans: {years[0]} to {years[-1]}; cohorts may shift their dates.",
            "cases/*/case.json: scanner.year",
        )


def eligibility(files: Files) -> Iterator[Evidence]:
    for path, record in files.records("ingest")[:1]:
        wanted = ("series_rule", "series", "kernel", "contrast", "gaps", "tilt", "roi", "segment")
        options = {name: at(record, f"options.{name}") for name in wanted}
        yield Evidence(f"Series and outlines were taken by: {named(options)}.", f"{path}: options")
    yield from flow(files)


def preprocessing(files: Files) -> Iterator[Evidence]:
    for path, record in files.records("ingest")[:1]:
        options = {name: at(record, f"options.{name}") for name in ("gaps", "tilt", "lungs")}
        yield Evidence(f"Ingest: {named(options)}.", f"{path}: options")
    if at(files.model, "preprocessing"):
        yield Evidence(f"Network: {named(files.model['preprocessing'])}.", "model/config.json: preprocessing")


def resampling(files: Files) -> Iterator[Evidence]:
    spacing = at(files.model, "preprocessing.spacing_mm")
    if spacing:
        text = " × ".join(f"{value:g}" for value in spacing)
        yield Evidence(
            f"For the network CTs are resampled to {text} mm; masks are laid back on the scanner's grid.",
            "model/config.json: preprocessing.spacing_mm",
        )


def subsets(files: Files) -> Iterator[Evidence]:
    if any(row.get("split") for row in files.run.manifest):
        text = counted(row.get("split") for row in files.run.manifest)
        yield Evidence(f"Cases by split: {text}.", "cases/manifest.csv: split")


def acquisition(files: Files) -> Iterator[Evidence]:
    for key in SCANNER:
        if any(at(case, f"scanner.{key}") not in (None, "") for case in files.cases):
            text = spread(at(case, f"scanner.{key}") for case in files.cases)
            yield Evidence(f"{key.replace('_', ' ')}: {text}.", f"cases/*/case.json: scanner.{key}")


def reference_masks(files: Files) -> Iterator[Evidence]:
    kinds = [at(case, "outline.kind") for case in files.cases if at(case, "outline.kind")]
    if kinds:
        yield Evidence(
            f"Outlines came as: {counted(kinds)}; who drew them is for the authors to say.",
            "cases/*/case.json: outline.kind, outline.names",
        )


def partitions(files: Files) -> Iterator[Evidence]:
    yield from subsets(files)
    for path, record in files.records("split")[:1]:
        options = named(record.get("options"))
        yield Evidence(f"Drawn by patient: {options}, seed {record.get('seed')}.", f"{path}: options, seed")
    judged = files.run.validation
    if judged:
        text = (
            f"{judged.get('folds')} folds, {judged.get('repeats')} repeats, {judged.get('inner_folds')} inner"
        )
        yield Evidence(f"EGFR model: cross-validation of {text}.", "egfr/validation.json: folds, repeats")


def disjoint(files: Files) -> Iterator[Evidence]:
    overlap = files.run.validation.get("overlap_with_segmentation_training")
    if overlap is not None:
        yield Evidence(
            f"Folds never divide a patient; the segmentation model saw {overlap} of the judged patients.",
            "egfr/validation.json: overlap_with_segmentation_training",
        )
    seen = files.model.get("patients_seen")
    if isinstance(seen, list):
        text = f"The segmentation model learned from {len(seen)} patients, by name."
        yield Evidence(text, "model/config.json: patients_seen")


def model(files: Files) -> Iterator[Evidence]:
    if at(files.model, "network"):
        yield Evidence(f"Network: {named(files.model['network'])}.", "model/config.json: network")
    if files.run.training and files.run.training.card:
        yield Evidence("Described in words, with what it learned from.", "model/MODEL_CARD.md")


def initial(files: Files) -> Iterator[Evidence]:
    for path, record in files.records("train")[:1]:
        start = at(record, "options.start") or "at random"
        yield Evidence(f"Started {start}, seed {at(record, 'options.seed')}.", f"{path}: options.start, seed")


def training(files: Files) -> Iterator[Evidence]:
    for path, record in files.records("train")[:1]:
        settings = at(record, "options.settings.training") or {}
        told = {k: v for k, v in settings.items() if not isinstance(v, dict) and v is not False}
        yield Evidence(f"Training: {named(told)}.", f"{path}: options.settings.training")
        if settings.get("augmentation"):
            where = f"{path}: options.settings.training.augmentation"
            yield Evidence(f"Augmentation: {named(settings['augmentation'])}.", where)


def segmentation(files: Files) -> Iterator[Evidence]:
    found = files.records("segment")
    for step in count_steps(files.run, files.folder):
        if step.verb == "segment" and found:
            text = f"By the model {step.model}, {step.options}; {step.results} results."
            yield Evidence(text, f"{found[0][0]}: model_hash, options.prior, options.prompt")


def software(files: Files) -> Iterator[Evidence]:
    for path, record in files.run.records[:1]:
        text = f"radiogen {record.get('radiogen')}, Python {record.get('python')}"
        yield Evidence(f"{text}, {named(record.get('packages'))}.", f"{path}: radiogen, python, packages")


def steps(files: Files) -> Iterator[Evidence]:
    done = count_steps(files.run, files.folder)
    if done:
        text = " → ".join(step.verb for step in done)
        yield Evidence(f"Steps with a run record: {text}.", "report.html: What was done, with which model")


def records(files: Files) -> Iterator[Evidence]:
    if files.run.records:
        text = (
            f"{len(files.run.records)} run records hold options, hashes of inputs and outputs, and decisions."
        )
        yield Evidence(text, "**/*.run.json: options, inputs, outputs, decisions")


def availability(files: Files) -> Iterator[Evidence]:
    for path, record in files.run.records[:1]:
        yield Evidence(f"Software: radiogen {record.get('radiogen')}, licence MIT.", f"{path}: radiogen")
    for step in count_steps(files.run, files.folder):
        if step.model:
            yield Evidence(f"Model of {step.verb}: {step.model}.", "run records: model_hash")


def flow(files: Files) -> Iterator[Evidence]:
    stages = draw_flow(files.run)
    for stage in stages:
        why = "; ".join(f"{each.count} × {each.reason}" for each in stage.left)
        yield Evidence(
            f"{stage.count} {stage.title}" + (f" ({stage.lost} left: {why})." if why else "."),
            "report.html: Patients; cases/manifest.csv, failures.csv",
        )


def segmentation_performance(files: Files) -> Iterator[Evidence]:
    for answer in answer_segmentation(files.run.evaluation):
        text = f"Prompt {answer.prompt}: mean Dice {show(answer.dice)}, median {show(answer.middle)}"
        text += f", quartiles {show(answer.low)} to {show(answer.high)}"
        text += f", {answer.cases} cases. {answer.verdict}"
        yield Evidence(text, "evaluation.csv: prompt, dice, floor_*")
    for each in files.run.evaluation_summary.get("prompts") or ():
        if figure(each.get("dice_mean")) is not None:
            text = f"Prompt {each.get('prompt')}: mean Dice {show(each['dice_mean'])}"
            text += f", 95 % {show(each.get('dice_low'))} to {show(each.get('dice_high'))}."
            yield Evidence(text, "evaluation.json: prompts.dice_mean, dice_low, dice_high")


def failures(files: Files) -> Iterator[Evidence]:
    if files.run.failures:
        text = counted(row.get("step") for row in files.run.failures)
        yield Evidence(
            f"Cases that failed, by step: {text}.",
            "cases, segmented/failures.csv, features.failures.csv: reason",
        )
    if files.run.evaluation:
        worst = sorted(
            (figure(row.get("dice")) or 0.0, row.get("case_id", "")) for row in files.run.evaluation
        )
        text = ", ".join(f"{case} {dice:.2f}" for dice, case in worst[:3])
        yield Evidence(f"Lowest Dice: {text}.", "evaluation.csv: case_id, dice")
