"""Settings: frozen pydantic models, filled from YAML and from key=value pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from radiogen.errors import ConfigError


class Settings(BaseModel):
    """Parent of all settings: they do not change once made, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: The file is missing, not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(path, f"cannot be read as YAML: {error}", "give a YAML file of settings") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(path, "does not hold key: value pairs", "give a YAML mapping")
    return content


def load_settings(
    kind: type[S],
    defaults: dict[str, Any] | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
) -> S:
    """Make settings from defaults, then a YAML file, then `key=value` pairs; the later one wins.

    A dotted key reaches into nested settings; values are read as YAML.

    Raises:
        ConfigError: An unknown key, or a value that the settings refuse.

    >>> class Window(Settings):
    ...     low_hu: float = -200.0
    >>> load_settings(Window, overrides=["low_hu=-1000"])
    Window(low_hu=-1000.0)
    """
    values: dict[str, Any] = merge(dict(defaults or {}), read_yaml(file) if file else {})
    for pair in overrides:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {pair}", "is not of the form key=value", "write --set key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {pair}", "has a value that is not YAML", "quote the value") from error
        for part in reversed(key.split(".")):
            value = {part: value}
        values = merge(values, value)
    return check_settings(kind, values, source=str(file) if file else "settings")


def check_settings(kind: type[S], values: dict[str, Any], source: str) -> S:
    """Make settings from a dictionary; what pydantic refuses becomes one line.

    Args:
        kind: Class of the settings.
        values: By field.
        source: Names the file or command in an error.

    Raises:
        ConfigError: An unknown key, or a value that the settings refuse.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or kind.__name__
        known = ", ".join(kind.model_fields)
        raise ConfigError(f"{source}: {key}", first["msg"], f"the settings are {known}") from error


def parse_numbers(text: str, count: int, option: str) -> tuple[float, ...]:
    """Return the numbers of a comma-separated option.

    Raises:
        ConfigError: They are not `count` numbers.

    >>> parse_numbers("3,3,5", 3, "--spacing")
    (3.0, 3.0, 5.0)
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise ConfigError(f"{option} {text}", f"is not {count} numbers", "write them with commas between")
    return numbers


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge two nested dictionaries; the second one wins.

    >>> merge({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}})
    {'a': 1, 'b': {'c': 4, 'd': 3}}
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def data_folder(name: str) -> Path:
    """Return the folder `data_manifests` or `models`: inside the installed package, or beside a checkout.

    Raises:
        ConfigError: It is in neither place.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise ConfigError(f"folder {name}", "is not part of this installation", "install radiogen again")
