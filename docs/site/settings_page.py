"""The page of all settings, made from the pydantic models: keys, types, defaults, meanings."""

import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import griffe
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from radiogen.cli.main import app

from radiogen.benchmark.classifiers import ClassifierSettings
from radiogen.benchmark.variants import VariantSettings
from radiogen.cohorts.settings import CohortSettings
from radiogen.egfr.settings import EgfrSettings
from radiogen.evaluation.case import EvaluateOptions
from radiogen.features.settings import FeatureOptions
from radiogen.pruning.channel_choice import ChannelSettings
from radiogen.pruning.settings import CriterionSettings
from radiogen.resources import CohortCard
from radiogen.segmentation.segment import SegmentOptions
from radiogen.segmentation.volume import SegmentationSettings
from radiogen.training.settings import PRESETS, RunSettings, load_preset

Model = type[BaseModel]


class Row(NamedTuple):
    """One setting: its dotted key, its type in short, its default, what it means."""

    key: str
    kind: str
    default: Any
    meaning: str


class Part(NamedTuple):
    """One group of settings on the page."""

    title: str
    opening: str
    model: Model


PARTS = (
    Part("Segmenting", "`radiogen segment --set key=value`.", SegmentationSettings),
    Part("Evaluating", "Options of `radiogen evaluate`.", EvaluateOptions),
    Part("Pruning weights", "Options of `radiogen prune`.", CriterionSettings),
    Part("Pruning channels", "Options of `radiogen prune --structure channel`.", ChannelSettings),
    Part("EGFR classifier", "Options of `radiogen train-egfr`; from Python all of them.", EgfrSettings),
    Part("Cohort run", "`radiogen cohort run --config FILE.yaml --set key=value`.", CohortSettings),
    Part("Card of a cohort", "The YAML of `radiogen cohort init`.", CohortCard),
    Part("Benchmark of classifiers", "`radiogen benchmark pruning --set key=value`.", ClassifierSettings),
    Part(
        "Benchmark of segmentation",
        "`radiogen benchmark segmentation-pruning --set key=value`.",
        VariantSettings,
    ),
)
COMMANDS = {  # whose options say what a setting of the same name means, where the setting does not
    ChannelSettings: "prune",
    CriterionSettings: "prune",
    EgfrSettings: "train-egfr",
    EvaluateOptions: "evaluate",
    FeatureOptions: "extract-features",
    SegmentOptions: "segment",
}
OPENING = """# Settings

Made from the program at every build. `--set training.epochs=50` sets one key, `--config FILE.yaml` several;
an unknown key is an error that lists the right ones.

## Network, preprocessing and training

What `radiogen train` and `radiogen prune` take, by `--preset`. An empty cell: as `paper`.
"""


def settings_page() -> str:
    """Every setting that a user can reach, as Markdown."""
    lines = [OPENING, *_presets()]
    for part in PARTS:
        lines += [f"## {part.title}\n", part.opening, "", _doc(part.model), ""]
        rows = [[row.key, row.kind, _said(row.default), row.meaning] for row in settings_of(part.model)]
        lines += _table(["key", "default", "meaning"], rows)
    return "\n".join(lines)


def settings_of(model: Model, prefix: str = "", made: BaseModel | None = None) -> Iterator[Row]:
    """The settings of a model and of those within it, with dotted keys; defaults are those of `made`."""
    for name, field in model.model_fields.items():
        default = getattr(made, name) if made else _default(field)
        inner = field.annotation
        if inner is RunSettings:
            yield Row(
                f"{prefix}{name}", "settings", "those of the preset", "as above, under network and so on"
            )
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from settings_of(inner, f"{prefix}{name}.", default if isinstance(default, inner) else None)
        else:
            yield Row(f"{prefix}{name}", _kind(field), default, _meaning(model, name, field))


def _presets() -> Iterator[str]:
    presets = [load_preset(name).model_dump(mode="json") for name in PRESETS]
    for name, field in RunSettings.model_fields.items():
        rows = []
        for row in settings_of(field.annotation, f"{name}."):
            values = [_said(_reach(preset, row.key)) for preset in presets]
            others = ["" if value == values[0] else value for value in values[1:]]
            rows.append([row.key, row.kind, values[0], *others, row.meaning])
        yield f"### {name}\n\n{_doc(field.annotation)}\n"
        yield from _table(["key", *PRESETS, "meaning"], rows)


def _reach(values: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _kind(field: FieldInfo) -> str:
    """The type as YAML has it, with the limits."""
    text = getattr(field.annotation, "__name__", "") if isinstance(field.annotation, type) else ""
    text = text or str(field.annotation)
    for long in ("typing.", "pathlib._local.", "pathlib.", "radiogen."):
        text = text.replace(long, "")
    limits = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in limits.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join([_short(text), *found])


def _short(text: str) -> str:
    """A type in few words.

    >>> _short("tuple[int, int, int]"), _short("tuple[str, ...]"), _short("Optional[Literal['a', 'b']]")
    ('3 int', 'list of str', 'a, b or nothing')
    """
    text = re.sub(r"<[^>]*>|[\w.]+\.(?=[A-Z])", "", text)
    text = re.sub(r"Annotated\[(\w+), (?:[^\[\]]|\[[^\[\]]*\])*\]", r"\1", text)
    text = re.sub(r"Literal\[([^\]]*)\]", r"\1", text).replace("'", "")
    text = re.sub(r"Optional\[(.*)\]$", r"\1 or nothing", text)
    text = re.sub(r"Union\[(.*)\]$", r"\1", text).replace(", NoneType", " or nothing")
    text = text.replace(" | None", " or nothing").replace(" | ", " or ")
    text = re.sub(r"tuple\[(.*), \.\.\.\]", r"list of \1", text)
    return re.sub(r"tuple\[(\w+)((?:, \1)+)\]", lambda one: f"{one[2].count(',') + 1} {one[1]}", text)


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    return "required" if value is PydanticUndefined else value


def _said(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | int | float | list | tuple | dict):
        return json.dumps(value, default=lambda other: getattr(other, "model_dump", other.__str__)())
    return str(value)


def _meaning(model: Model, name: str, field: FieldInfo) -> str:
    """The description of the field, its docstring, its line under Attributes, or the help of its option."""
    if field.description:
        return field.description
    owner = next(kind for kind in model.__mro__ if name in inspect.get_annotations(kind))
    return _written(owner.__module__, owner.__name__).get(name) or _option_help(model, name)


def _option_help(model: Model, name: str) -> str:
    if model not in COMMANDS:
        return ""
    options = typer.main.get_command(app).commands[COMMANDS[model]].params
    named = [option for option in options if name in (option.name, option.opts[0].strip("-"))]
    return next((option.help for option in named if option.help), "")


@cache
def _written(module: str, name: str) -> dict[str, str]:
    """What the source says of each attribute of a class."""
    found = _sources()[module.removeprefix("radiogen.")][name]
    said = {}
    for section in found.docstring.parse("google") if found.docstring else []:
        if section.kind is griffe.DocstringSectionKind.attributes:
            said |= {line.name: line.description for line in section.value}
    for attribute, what in found.attributes.items():
        comment = what.source.partition("  # ")[2]
        if what.docstring:
            said[attribute] = what.docstring.value
        elif comment:
            said[attribute] = comment
    return {key: " ".join(text.split()) for key, text in said.items()}


@cache
def _sources() -> griffe.Module:
    root = Path(__file__).resolve().parents[2]
    return griffe.load("radiogen", search_paths=[root], allow_inspection=False)


def _doc(model: Model) -> str:
    """The first sentences of the docstring, before any section."""
    return (model.__doc__ or "").partition("Attributes:")[0].strip()


def _table(titles: list[str], rows: list[list[str]]) -> list[str]:
    head = "".join(f"<th>{title}</th>" for title in titles)
    lines = [f"<table><thead><tr>{head}</tr></thead><tbody>"]
    for key, kind, *cells, meaning in rows:
        coded = "".join(f"<td><code>{escape(cell)}</code></td>" if cell else "<td></td>" for cell in cells)
        said = re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(meaning))
        first = f"<code>{escape(key)}</code><br><small>{escape(kind)}</small>"
        lines.append(f"<tr><td>{first}</td>{coded}<td>{said}</td></tr>")
    return [*lines, "</tbody></table>\n"]
