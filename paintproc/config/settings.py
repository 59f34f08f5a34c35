"""What all settings share: reading files, checking values, naming the nearest key."""

import dataclasses
import difflib
import json
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from paintproc.errors import InputError, UsageError

Settings = TypeVar("Settings")

INPUT, PAINTING, OUTPUT, BATCH, GENERAL = GROUPS = ("Input", "Painting", "Output", "Batch", "General")
"""The panels of `--help`, from top to bottom; each setting names its own."""


class Setting(NamedTuple):
    """How one field is declared: `Annotated[kind, help, group]`."""

    kind: Any
    help: str
    group: str


def field_types(settings: type) -> dict[str, Setting]:
    """The declaration of each field, by its name."""
    hints = typing.get_type_hints(settings, include_extras=True)
    return {field.name: Setting(*typing.get_args(hints[field.name])) for field in dataclasses.fields(settings)}


def choices(kind: Any) -> tuple[str, ...]:
    """The words that a `Literal`, or a tuple of one, allows; none for other types."""
    if typing.get_origin(kind) is tuple:
        kind = typing.get_args(kind)[0]
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def option(name: str) -> str:
    """A field's name as it is typed on the command line."""
    return "--" + name.replace("_", "-")


def check_choices(settings: Any) -> None:
    """UsageError where a `Literal` field holds something else."""
    for name, setting in field_types(type(settings)).items():
        allowed = choices(setting.kind)
        value = getattr(settings, name)
        for word in value if isinstance(value, tuple) else (value,):
            if allowed and word not in allowed:
                raise UsageError(f"{option(name)} is {word!r}.", f"Choose one of {', '.join(allowed)}.")


def check_device(device: str) -> None:
    """UsageError unless `device` is auto, cpu, cuda or cuda:N."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device, re.ASCII):
        raise UsageError(f"--device is {device!r}.", "Choose auto, cpu, cuda or cuda:0.")


def check_range(settings: Any, name: str, low: float, high: float) -> None:
    """UsageError where a number lies outside [low, high]."""
    value = getattr(settings, name)
    if value is not None and not low <= value <= high:
        raise UsageError(f"{option(name)} is {value}.", f"It must lie between {low:g} and {high:g}.")


def read_settings_file(path: Path, settings: type) -> dict[str, Any]:
    """Values for fields of `settings` from a TOML file, or from the `settings` of a record.

    InputError for a file that cannot be read, UsageError for an unknown key or a wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)["settings"] if path.suffix == ".json" else tomllib.loads(text)
        if not isinstance(values, dict):
            raise TypeError("its settings are not a table")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a settings file: {error}.") from error
    kinds = field_types(settings)
    result = {}
    for raw, value in values.items():
        key = raw.replace("-", "_")
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, n=1, cutoff=0)[0]
            raise UsageError(f"{path} has the unknown setting `{raw}`;", f"did you mean `{near}`?")
        result[key] = _converted(path, raw, value, kinds[key].kind)
    return result


def _converted(path: Path, key: str, value: Any, kind: Any) -> Any:
    """A value read from a file as a field of type `kind` takes it; UsageError for another type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_converted(path, key, item, inner[0]) for item in value)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        kind = next(part for part in inner if part is not type(None))
    if typing.get_origin(kind) is Literal and isinstance(value, str):
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise UsageError(f"{path}: `{key}` is {value!r}, which has the wrong type.")


def as_json(settings: Any) -> dict[str, Any]:
    """The settings as JSON values, in the order of their fields."""
    values = dataclasses.asdict(settings)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
