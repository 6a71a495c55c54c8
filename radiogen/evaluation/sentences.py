"""Describe the figures of an evaluation, and their limits, in plain sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from radiogen.measures.floors import FLOOR_WORDS

PROMPTS = {
    "oracle": "the prior comes from the true outline: an upper bound, not the result for a new patient",
    "jitter": "the prior comes from the true box, its faces shifted at random",
    "human": "a person marked the lesion",
    "auto": "the program chose the place itself",
    "none": "the network was given no place",
    "unknown": "no run record names the prompt",
}
# Prompts that give the lesions away: that they are found is no result.
PROMPTS_WITH_PLACE = ("oracle", "jitter", "human")
NO_PROMPT = "unknown"
NO_PREDICTION = "no prediction"
MISSING = "-"
# Patients below which the percentile interval of a bootstrap is too narrow.
FEW = 10


def describe_prompt(row: Mapping[str, Any]) -> list[str]:
    """Describe one row of the summary in sentences."""
    prompt = row["prompt"]
    if prompt == NO_PREDICTION:
        return [f"{plural(row['without_numbers'], 'case')} without a prediction; in no figure here."]
    sentences = [f"Prompt {prompt}: {PROMPTS.get(prompt, 'as the run record says')}."]
    if row["n"]:
        sentences += [_describe_dice(row), describe_floor(row)]
        if prompt in ("auto", "none") and row["best_floor"]:
            sentences.append("The floor knows the true boxes and this model did not: it is a hard one here.")
    if row["scans"]:
        sentences.append(_describe_lesions(row))
    if row["scans_without_lesion"]:
        scans = plural(row["scans_without_lesion"], "scan")
        sentences.append(f"{scans} without a lesion: false lesions alone count there.")
    if row["without_numbers"]:
        sentences.append(f"{plural(row['without_numbers'], 'case')} without numbers; the notes say why.")
    if 0 < row["patients"] < FEW:
        patients = plural(row["patients"], "patient")
        sentences.append(f"{patients}: so few make intervals that are too narrow, if anything.")
    return sentences


def _describe_dice(row: Mapping[str, Any]) -> str:
    over = f"{plural(row['n'], 'scan')} of {plural(row['patients'], 'patient')}"
    return f"Dice {with_interval(row, 'dice_mean', 'dice')} over {over}."


def describe_floor(row: Mapping[str, Any], things: str = "cases") -> str:
    """Describe how Dice compares with the best floor, and which floors could not be compared."""
    if row["best_floor"] is None:
        return "No floor is known of these cases."
    floor = f"{FLOOR_WORDS[row['best_floor']]}, {row['best_floor_mean']:.3f}"
    sentence = f"Above the floor ({floor}) in {row['above_floor']} of {row['above_floor_of']} {things}"
    sentence += f"; the mean difference is {row['over_floor_mean']:+.3f}{_verdict(row)}."
    if row["floors_unknown"]:
        unknown = ", ".join(FLOOR_WORDS[name] for name in row["floors_unknown"])
        sentence += f" Not compared, as unknown in some {things} (no CT, or an older table): {unknown}."
    return sentence


def _verdict(row: Mapping[str, Any]) -> str:
    """Describe whether a difference to the floor is a gain; the interval decides, not the mean."""
    low, high = row["over_floor_low"], row["over_floor_high"]
    if low is None:
        below = "" if row["over_floor_mean"] > 0 else ": the model is not above the floor"
        return f", and one patient has no interval{below}"
    verdict = "the interval holds zero: no gain over the floor is shown"
    if low > 0:
        verdict = "the interval excludes zero"
    elif high < 0:
        verdict = "the model is worse than the floor, which needs no network"
    return f" ({low:+.3f} to {high:+.3f}): {verdict}"


def _describe_lesions(row: Mapping[str, Any]) -> str:
    sentence = f"{row['lesions_found']} of {plural(row['lesions'], 'lesion')} found"
    if row["lesions_merged"]:
        sentence += f", {row['lesions_merged']} merged with another"
    if row["stray_parts"]:
        sentence += f" ({plural(row['stray_parts'], 'stray part')} below 3 mm not counted)"
    sentence += f"; {plural(row['lesions_false'], 'false lesion')} in {plural(row['scans'], 'scan')}"
    sentence += f" ({row['false_per_scan']:.2f} a scan)"
    if row["lesions_fragments"]:
        sentence += f", {plural(row['lesions_fragments'], 'fragment')} of true ones"
    if row["prompt"] in PROMPTS_WITH_PLACE:
        return f"{sentence}. The prompt gave the lesions away: that they were found is no result."
    return f"{sentence}. Sensitivity {with_interval(row, 'sensitivity', 'sensitivity')}."


def with_interval(row: Mapping[str, Any], value: str, name: str) -> str:
    """Format a figure with its interval, `0.812 (0.770 to 0.850)`; without one the figure alone."""
    if row[value] is None:
        return MISSING
    if row[f"{name}_low"] is None:
        return f"{row[value]:.3f}"
    return f"{row[value]:.3f} ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table; a number has three digits, an unknown value is a dash.

    >>> print(markdown_table(["size", "Dice"], [["< 10 mm", None]]))
    | size | Dice |
    | --- | --- |
    | < 10 mm | - |
    """
    lines = [titles, ["---"] * len(titles), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return MISSING
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "/")


def plural(count: int, thing: str) -> str:
    """Format a count with its noun.

    >>> plural(1, "scan"), plural(2, "scan")
    ('1 scan', '2 scans')
    """
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
