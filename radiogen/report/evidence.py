"""The files of a run as evidence: sentences of evidence.yaml, each with the file and key it was read from.

A sentence is given only where a file of the run has information on an item, with the place where a reviewer
can check it; whether that satisfies the item is for the authors. Sentences that need more than a look-up are
functions below, named in evidence.yaml like an entry of it.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from radiogen.report.answers import answer_segmentation
from radiogen.report.figures import number_of, show, show_p, show_signed
from radiogen.report.flow import count_steps, draw_flow
from radiogen.report.reading import Run

DIFFERENT_VALUES = 6  # up to which numbers are counted one by one, not given as a range
CHARACTERISTICS = ("sex", "smoking", "histology", "ethnicity", "site")
SEGMENTATION_METRICS = ("dice", "surface_dice", "hd95_mm", "assd_mm", "f1")
PLACEHOLDER = re.compile(r"\{([\w.-]+)(?:\|(\w+)([^}]*))?\}")  # {source.key|format arguments}


@dataclass(frozen=True)
class Evidence:
    """One sentence, and where it can be read: a file of the run and a key or column in it."""

    sentence: str
    where: str


@dataclass(frozen=True)
class RunFiles:
    """A run, the folder it was read from, and the `case.json` of its cases."""

    run: Run
    folder: Path
    cases: Sequence[dict[str, Any]] = ()

    @cached_property
    def sources(self) -> dict[str, Any]:
        """The values behind the keys of evidence.yaml: the first run record of each verb, files by name."""
        run = self.run
        records = [{**record, "path": path} for path, record in run.records]
        steps = [vars(step) for step in count_steps(run, self.folder)]
        config = run.training.config if run.training else {}
        metrics = run.evaluation[0] if run.evaluation else {}
        candidates = run.validation.get("candidates") or {}
        judged = candidates.get(run.validation.get("model"))
        return {
            # Reversed, so that of several records of a verb the first one stays.
            **{str(record.get("verb")): record for record in reversed(records)},
            "any": records[0] if records else {},
            "records": records,
            "evaluations": [record for record in records if record.get("verb") == "evaluate"],
            "steps": steps,
            "segment_step": next((step for step in steps if step["verb"] == "segment"), {}),
            "manifest": run.manifest,
            "case": self.cases,
            "failures": run.failures,
            "model": {"architecture": "RA-Seg", **config} if config else {},
            "card": run.training.card if run.training else "",
            "evaluation": run.evaluation,
            "evaluation_summary": run.evaluation_summary,
            "segmentation_metrics": [name for name in SEGMENTATION_METRICS if name in metrics],
            "features_about": run.features_about,
            "feature_blocks": [name.partition("_")[0] for name in run.feature_names],
            "validation": run.validation,
            "judged": {"name": run.validation["model"], **judged} if judged else {},
            "controls": [name for name in candidates if "outside" in name or "shuffled" in name],
            "egfr": run.egfr_config,
            "marker": run.marker,
            "called": run.validation.get("positive", "positive"),
            "other_marker": "" if run.marker == "EGFR" else run.marker,
            "plots": [path.stem.replace("_", " ") for path in run.plots],
            "predictions": run.predictions,
        }


def look_up(content: Any, key: str) -> Any:
    """Return a value by its dotted key, a list of values from a list of rows; None where there is none.

    >>> look_up({"a": {"b": 3}}, "a.b"), look_up({"rows": [{"b": 1}, {}]}, "rows.b"), look_up({"a": 1}, "a.b")
    (3, [1, None], None)
    """
    if isinstance(content, list | tuple):
        return [look_up(row, key) for row in content]
    if not isinstance(content, dict):
        return None
    name, _, rest = key.partition(".")
    value = content.get(name)
    return look_up(value, rest) if rest else value


def _is_set(value: Any) -> bool:
    """Whether a value is set; of a list, whether one of its values is, be it 0 or False."""
    if isinstance(value, list | tuple):
        return any(each not in (None, "") for each in value)
    return bool(value)


def find_evidence(name: str, files: RunFiles) -> Iterator[Evidence]:
    """Give the sentences of an entry of evidence.yaml, or those of a function."""
    if name in FUNCTIONS:
        yield from FUNCTIONS[name](files)
        return
    for entry in read_entries()[name]:
        if isinstance(entry, str):
            yield from find_evidence(entry, files)
        else:
            yield from _fill_sentence(entry, files)


@cache
def read_entries() -> dict[str, list[Any]]:
    """Read evidence.yaml."""
    text = (Path(__file__).parent / "evidence.yaml").read_text(encoding="utf-8")
    entries: dict[str, list[Any]] = yaml.safe_load(text)
    return entries


def _fill_sentence(entry: Mapping[str, str], files: RunFiles) -> Iterator[Evidence]:
    """Fill a sentence in, once or for each item of a list, where its condition holds."""
    rows = (look_up(files.sources, entry["each"]) or ()) if "each" in entry else [None]
    for row in rows:
        sources = {**files.sources, "row": row}
        if _holds(entry, sources, files.folder):
            yield Evidence(_fill(entry["say"], sources), _fill(entry["where"], sources))


def _holds(entry: Mapping[str, str], sources: Mapping[str, Any], folder: Path) -> bool:
    """Whether a sentence may be given: by its file, its `unless`, `known` or `if`, else by its own keys."""
    if "file" in entry:
        return (folder / entry["file"]).is_file()
    if "unless" in entry and _is_set(look_up(sources, entry["unless"])):
        return False
    if "known" in entry:
        return look_up(sources, entry["known"]) is not None
    # A sentence with a gap in it is worse than none.
    keys = [entry["if"]] if "if" in entry else [key for key, *_ in PLACEHOLDER.findall(entry["say"])]
    return all(_is_set(look_up(sources, key)) for key in keys)


def _fill(text: str, sources: Mapping[str, Any]) -> str:
    def value_of(placeholder: re.Match[str]) -> str:
        key, name, arguments = placeholder.groups()
        value = look_up(sources, key)
        return FORMATS[name](value, *arguments.split()) if name else str(value)

    return PLACEHOLDER.sub(value_of, text)


def count_values(values: Iterable[Any]) -> str:
    """Count each value, the most frequent first.

    >>> count_values(["a", "b", "a", ""])
    '2 a, 1 b, 1 not recorded'
    """
    counts = Counter(str(value) if value not in (None, "") else "not recorded" for value in values)
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)


def spread_of(values: Iterable[Any]) -> str:
    """Count each value; of many different numbers give the range.

    >>> spread_of([1.25, 2.5, 1.25]), spread_of([number / 10 for number in range(10)])
    ('2 1.25, 1 2.5', '0 to 0.9, 10 known')
    """
    listed = list(values)
    numbers = [number for number in map(number_of, listed) if number is not None]
    if len(set(numbers)) <= DIFFERENT_VALUES:
        return count_values(listed)
    return f"{min(numbers):g} to {max(numbers):g}, {len(numbers)} known"


def settings_line(content: Any, *names: str) -> str:
    """Write settings in one line, without those that are not set: all of them, or only some by name."""
    if not isinstance(content, dict):
        return ""
    pairs = [(name, content.get(name)) for name in names or content]
    return ", ".join(f"{name} {value}" for name, value in pairs if value not in (None, "", [], {}))


def _plain_settings(content: Any) -> str:
    """Settings without switched-off ones and without groups, which have sentences of their own."""
    pairs = content.items() if isinstance(content, dict) else ()
    return settings_line({k: v for k, v in pairs if not isinstance(v, dict) and v is not False})


def _first_to_last(values: Iterable[Any]) -> str:
    known = sorted(str(value) for value in values if value)
    return f"{known[0]} to {known[-1]}"


def _interval(content: Any, write: Callable[[Any], str] = show) -> str:
    value, low, high = (write((content or {}).get(name)) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


FORMATS: dict[str, Callable[..., str]] = {
    "arrows": lambda values: " → ".join(values),
    "count": lambda values: str(len(values or ())),
    "counted": count_values,
    "counted_known": lambda values: count_values(value for value in values if value),
    "figure": show,
    "first_to_last": _first_to_last,
    "interval": _interval,
    "left_out": lambda content: settings_line(content) or "nobody",
    "listed": lambda values: ", ".join(values or ()) or "none",
    "or_unknown": lambda value: "an unknown number" if value is None else str(value),
    "or_random": lambda value: str(value or "at random"),
    "p_value": show_p,
    "plain_settings": _plain_settings,
    "settings": settings_line,
    "signed_interval": lambda content: _interval(content, show_signed),
    "spread": spread_of,
    "times": lambda values: " × ".join(f"{value:g}" for value in values),
}


def flow(files: RunFiles) -> Iterator[Evidence]:
    """Give a sentence for each stage of the flow diagram, with why cases were excluded before it."""
    for stage in draw_flow(files.run):
        why = "; ".join(f"{each.count} × {each.reason}" for each in stage.excluded)
        text = f"{stage.count} {stage.title}" + (f" ({stage.excluded_count} left: {why})." if why else ".")
        yield Evidence(text, "report.html: Patients; cases/manifest.csv, failures.csv")


def dice_beside_floors(files: RunFiles) -> Iterator[Evidence]:
    """Give the Dice of each prompt; it is never quoted without its floor."""
    for answer in answer_segmentation(files.run.evaluation):
        text = f"Prompt {answer.prompt}: mean Dice {show(answer.dice)}, median {show(answer.middle)}"
        text += f", quartiles {show(answer.low)} to {show(answer.high)}"
        text += f", {answer.cases} cases. {answer.verdict}"
        yield Evidence(text, "evaluation.csv: prompt, dice, floor_*")


def lowest_dice(files: RunFiles) -> Iterator[Evidence]:
    """Name the three cases with the lowest Dice; a case without one was not segmented and counts as 0."""
    rows = files.run.evaluation
    # With the id as second key, so that equal Dice come in the same order every time.
    worst = sorted((number_of(row.get("dice")) or 0.0, row.get("case_id", "")) for row in rows)
    if worst:
        text = ", ".join(f"{case} {dice:.2f}" for dice, case in worst[:3])
        yield Evidence(f"Lowest Dice: {text}.", "evaluation.csv: case_id, dice")


def characteristics(files: RunFiles) -> Iterator[Evidence]:
    """Count each clinical characteristic by split, as CLAIM and TRIPOD ask for them, and give the ages."""
    rows = files.run.manifest
    splits = sorted({row.get("split", "") for row in rows})
    for name in CHARACTERISTICS:
        if any(row.get(name) for row in rows):
            by_split = []
            for split in splits:
                counts = count_values(row.get(name) for row in rows if row.get("split", "") == split)
                by_split.append(f"{split or 'no split'}: {counts}")
            yield Evidence(f"{name}: {'; '.join(by_split)}.", f"cases/manifest.csv: {name}, split")
    known = (number_of(row.get("age")) for row in rows)
    ages = sorted(age for age in known if age is not None)
    if ages:
        text = f"age: median {ages[len(ages) // 2]:.0f}, {ages[0]:.0f} to {ages[-1]:.0f}, {len(ages)} known."
        yield Evidence(text, "cases/manifest.csv: age")


def missing_input(files: RunFiles) -> Iterator[Evidence]:
    """Count the predicted patients with imputed inputs."""
    rows = files.run.predictions
    if any("missing" in row for row in rows):
        count = sum((number_of(row.get("missing")) or 0) > 0 for row in rows)
        text = f"{count} of {len(rows)} patients had missing inputs, which the model filled; "
        text += "in_distribution says for each whether it resembles the training data."
        yield Evidence(text, "predictions.csv: missing, in_distribution")


def auc_beside_clinical(files: RunFiles) -> Iterator[Evidence]:
    """Give the AUC of clinical variables, of both and of volume alone, as far as they were judged."""
    candidates = files.run.validation.get("candidates") or {}
    names = [name for name in ("clinical", "clinical+features", "volume") if name in candidates]
    if names:
        text = "; ".join(f"{name} {_interval(candidates[name].get('auc'))}" for name in names)
        yield Evidence(f"AUC: {text}.", "egfr/validation.json: candidates")


FUNCTIONS: dict[str, Callable[[RunFiles], Iterator[Evidence]]] = {
    "auc_beside_clinical": auc_beside_clinical,
    "characteristics": characteristics,
    "dice_beside_floors": dice_beside_floors,
    "flow": flow,
    "lowest_dice": lowest_dice,
    "missing_input": missing_input,
}
