"""Plans: in which stages and in which order a picture is painted. Read from TOML."""

import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from paintproc.errors import InputError, UsageError

FREE = "coarse-to-fine"
"""The plan without regions: `fit` over the whole picture."""
HUMAN = "human"

BLANK = (0.96, 0.95, 0.92)
"""The canvas before anything is on it, sRGB."""

Order = Literal["far-to-near", "focus-last"]
Aim = Literal["layers", "picture", "lights"]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The wash under everything; see plans/human.toml for what each value means."""

    blank: tuple[float, float, float] = BLANK
    width: float = 0.12


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Thin dry strokes along the main contours."""

    share: float = 0.04
    width: float = 0.005
    length: float = 0.12


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Strokes of about one size, region by region."""

    name: str
    share: float
    length: float
    scale: float = 1.0
    steps: int = 60
    order: Order = "far-to-near"
    aim: Aim = "picture"
    behind: float = 0.0
    tint: float = 0.3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A ground, a drawing and stages of painting."""

    name: str
    ground: Ground
    drawing: Drawing
    stage: tuple[Stage, ...]

    @property
    def behind(self) -> float:
        """How far layers run on behind what is nearer, in canvas units."""
        return max(stage.behind for stage in self.stage)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read_plan(name: str) -> Plan:
    """The plan of this name, or in this TOML file.

    InputError for a file that cannot be read, UsageError for a value that does not fit.
    """
    path = Path(__file__).parent.parent / "plans" / f"{name}.toml" if name == HUMAN else Path(name)
    if not path.suffix:
        raise UsageError(f"--plan is {name!r}.", f"Choose {HUMAN}, {FREE}, or a TOML file.")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"The plan {name} cannot be read: {reason}.", f"Use {HUMAN}, {FREE} or a file.") from error
    except ValueError as error:
        raise InputError(f"The plan {name} is not TOML: {error}.") from error
    stages = data.get("stage")
    if not isinstance(stages, list) or not stages:
        raise UsageError(f"The plan {name} has no [[stage]].")
    plan = Plan(
        name=str(data.get("name", path.stem)),
        ground=_build(Ground, data.get("ground", {}), name),
        drawing=_build(Drawing, data.get("drawing", {}), name),
        stage=tuple(_build(Stage, values, name) for values in stages),
    )
    unknown = set(data) - {field.name for field in fields(Plan)}
    if unknown:
        raise UsageError(f"The plan {name} has the unknown table `{min(unknown)}`.")
    names = [stage.name for stage in plan.stage]
    if len(set(names)) != len(names) or {"ground", "drawing"} & set(names):
        raise UsageError(f"The plan {name} has two stages of one name.")
    return plan


def _build(kind: Any, values: Any, name: str) -> Any:
    """One table of a plan, every value checked by its field's type."""
    hints = get_type_hints(kind)
    if not isinstance(values, dict):
        raise UsageError(f"The plan {name}: {kind.__name__.lower()} is not a table.")
    for key, value in values.items():
        hint = hints.get(key)
        if hint is None:
            raise UsageError(f"The plan {name} has the unknown setting `{key}`.", f"Known are {', '.join(hints)}.")
        choices = get_args(hint)
        if hint in (Order, Aim):
            fits = value in choices
        elif key == "blank":
            fits = isinstance(value, list) and len(value) == 3 and all(_number(v) and 0 <= v <= 1 for v in value)
        elif hint is str:
            fits = isinstance(value, str) and bool(value)
        elif hint is int:
            fits = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000
        else:
            fits = _number(value) and (0 < value <= 1 if key in ("scale", "length", "width") else 0 <= value <= 1)
        if not fits:
            raise UsageError(f"The plan {name}: `{key}` is {value!r}, which does not fit.")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except TypeError as error:
        raise UsageError(f"The plan {name}: a {kind.__name__.lower()} lacks a value: {error}.") from error


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
