"""What a run says about how the EGFR classifier was judged: sentences, each with file and key."""

from collections.abc import Iterator
from typing import Any

from radiogen.report.evidence import Evidence, Files, at, counted, named
from radiogen.report.evidence_features import stability
from radiogen.report.figures import show, show_p, show_signed

JSON = "egfr/validation.json"


def outcome(files: Files) -> Iterator[Evidence]:
    if any(row.get("egfr") for row in files.run.manifest):
        text = counted(row.get("egfr") for row in files.run.manifest)
        yield Evidence(f"EGFR mutation status: {text}.", "cases/manifest.csv: egfr")


def classes(files: Files) -> Iterator[Evidence]:
    found = files.run.validation.get("classes")
    if found:
        patients = files.run.validation.get("patients")
        yield Evidence(f"{patients} patients judged: {named(found)}.", f"{JSON}: patients, classes")


def imbalance(files: Files) -> Iterator[Evidence]:
    yield from classes(files)
    if files.run.validation:
        text = "No patient was made up or drawn twice; prevalence stands beside AUPRC."
        yield Evidence(text, f"{JSON}: candidates.*.prevalence, candidates.*.auprc")


def selection(files: Files) -> Iterator[Evidence]:
    if files.run.validation:
        text = f"Judged is “{files.run.validation.get('model')}”, which the settings name."
        yield Evidence(text, f"{JSON}: model; egfr/config.json: inputs, settings")


def ensemble(files: Files) -> Iterator[Evidence]:
    if files.run.predictions:
        text = "A probability is the mean over the members of the model, with their smallest and largest."
        yield Evidence(text, "predictions.csv: probability, low, high")


def threshold(files: Files) -> Iterator[Evidence]:
    if "threshold" in files.run.egfr_config:
        value = show(files.run.egfr_config["threshold"])
        text = f"Probabilities; called mutant from {value}, learned inside the folds."
        yield Evidence(text, "egfr/config.json: threshold")


def metrics(files: Files) -> Iterator[Evidence]:
    if files.run.evaluation:
        names = [
            name
            for name in ("dice", "surface_dice", "hd95_mm", "assd_mm", "f1")
            if name in files.run.evaluation[0]
        ]
        yield Evidence(f"Segmentation: {', '.join(names)}, beside the floors.", "evaluation.csv: header")
    if files.run.validation:
        text = "EGFR: AUC, AUPRC beside the prevalence, Brier, calibration, sensitivity, specificity, F1."
        yield Evidence(text, f"{JSON}: candidates")


def plots(files: Files) -> Iterator[Evidence]:
    if files.run.plots:
        names = ", ".join(path.stem.replace("_", " ") for path in files.run.plots)
        yield Evidence(f"Drawn: {names}.", "egfr/*.png; report.html: EGFR classifier")


def uncertainty(files: Files) -> Iterator[Evidence]:
    bootstrap = files.run.evaluation_summary.get("bootstrap")
    if bootstrap:
        text = f"Segmentation: 95 % intervals from {bootstrap} draws of patients."
        yield Evidence(text, "evaluation.json: bootstrap")
    if files.run.validation:
        yield Evidence("EGFR: every AUC with its 95 % interval.", f"{JSON}: candidates.*.auc.low, high")
    test = files.run.validation.get("permutation")
    if isinstance(test, dict):
        text = f"{test.get('permutations')} shuffles of the labels: p {show_p(test.get('p'))}."
        yield Evidence(text, f"{JSON}: permutation")


def robustness(files: Files) -> Iterator[Evidence]:
    for path, record in files.records("evaluate"):
        if at(record, "options.jitter"):
            yield Evidence(
                f"Boxes that are off by {at(record, 'options.jitter')}.", f"{path}: options.jitter"
            )
    yield from stability(files)
    controls = [
        name
        for name in files.run.validation.get("candidates") or {}
        if "outside" in name or "shuffled" in name
    ]
    if controls:
        yield Evidence(f"Negative controls: {', '.join(controls)}.", f"{JSON}: candidates")


def explained(files: Files) -> Iterator[Evidence]:
    if any(row.get("moved_by") for row in files.run.predictions):
        yield Evidence(
            "The inputs that moved each patient's log odds most are named.", "predictions.csv: moved_by"
        )


def internal(files: Files) -> Iterator[Evidence]:
    split = files.run.evaluation_summary.get("split")
    if split:
        yield Evidence(f"Segmentation judged on the split “{split}”.", "evaluation.json: split")
    if files.run.validation:
        folds, repeats = (files.run.validation.get(name) for name in ("folds", "repeats"))
        text = f"EGFR: out of fold, {folds} folds, {repeats} repeats."
        yield Evidence(text, f"{JSON}: folds, repeats; egfr/oof.csv")


def external(files: Files) -> Iterator[Evidence]:
    path = files.folder / "egfr" / "external" / "external.json"
    if path.is_file():
        yield Evidence("A second cohort was judged once.", "egfr/external/external.json")


def _auc(name: str, candidate: dict[str, Any]) -> str:
    area = candidate.get("auc") or {}
    return f"{name} {show(area.get('value'))} ({show(area.get('low'))} to {show(area.get('high'))})"


def performance(files: Files) -> Iterator[Evidence]:
    judged = files.run.validation
    for name, candidate in (judged.get("candidates") or {}).items():
        if name == judged.get("model"):
            text = f"AUC {_auc(name, candidate)}; Brier {show(candidate.get('brier'))}"
            text += f", calibration slope {show(candidate.get('calibration_slope'))}."
            yield Evidence(text, f"{JSON}: candidates.{name}")
    gain = judged.get("headline")
    if isinstance(gain, dict):
        text = f"Increment over clinical variables {show_signed(gain.get('value'))}"
        text += f" ({show_signed(gain.get('low'))} to {show_signed(gain.get('high'))})."
        yield Evidence(text, f"{JSON}: headline")


def operating_point(files: Files) -> Iterator[Evidence]:
    judged = files.run.validation
    candidate = (judged.get("candidates") or {}).get(judged.get("model"))
    if candidate:
        sensitivity, specificity = (show(candidate.get(name)) for name in ("sensitivity", "specificity"))
        text = f"Sensitivity {sensitivity}, specificity {specificity}"
        yield Evidence(
            f"{text} at the threshold learned inside.", f"{JSON}: candidates.{judged.get('model')}"
        )


def clinical(files: Files) -> Iterator[Evidence]:
    candidates = files.run.validation.get("candidates") or {}
    shown = [
        _auc(name, candidates[name])
        for name in ("clinical", "clinical+features", "volume")
        if name in candidates
    ]
    if shown:
        yield Evidence(f"AUC: {'; '.join(shown)}.", f"{JSON}: candidates")
    if files.run.validation.get("decision_curve"):
        yield Evidence("Net benefit over thresholds.", f"{JSON}: decision_curve")


def comparisons(files: Files) -> Iterator[Evidence]:
    for each in files.run.validation.get("comparisons") or ():
        text = f"{each.get('first')} minus {each.get('second')}: {show_signed(each.get('value'))}"
        text += f" ({show_signed(each.get('low'))} to {show_signed(each.get('high'))})"
        text += f", p {show_p(each.get('p'))}."
        yield Evidence(text, f"{JSON}: comparisons")


def sites(files: Files) -> Iterator[Evidence]:
    if any(row.get("site") for row in files.run.manifest):
        text = counted(row.get("site") for row in files.run.manifest)
        yield Evidence(f"Cases by hospital: {text}.", "cases/manifest.csv: site")
    if files.run.validation.get("sites"):
        yield Evidence("The hospital alone as a classifier, and hospitals apart.", f"{JSON}: sites")


def model_files(files: Files) -> Iterator[Evidence]:
    for name in ("model/model.safetensors", "egfr/pipeline.skops", "egfr/config.json"):
        if (files.folder / name).is_file():
            yield Evidence("Part of the model, hashed in its run record.", name)


def notes(files: Files) -> Iterator[Evidence]:
    for note in files.run.validation.get("notes") or ():
        yield Evidence(f"{note}.", f"{JSON}: notes")
