"""Plans: in which stages and in which order a picture is painted. Read from TOML."""

import difflib
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

Role = Literal["ground", "drawing", "paint", "lights"]
Aim = Literal["layers", "picture"]
Order = Literal["far-to-near", "focus-last"]

VERBS: dict[Role, str] = {
    "ground": "tone the ground",
    "drawing": "draw the main contours",
    "lights": "set the highlights in",
}
"""What captions say of a stage that has no words of its own."""
PREPARES: tuple[Role, ...] = ("ground", "drawing")
"""Roles that prepare the canvas: they are not optimised, and a begun canvas has them behind it."""


@dataclass(frozen=True)
class Stage:
    """What a part of the painting is for; strokes and captions know each of their stages by this value.

    name   in any words, once a plan
    role   ground (a wash over everything), drawing (contours), paint, or lights (paint on what is
           lighter than its surroundings)
    aim    what its strokes are to bring the canvas nearer to: the picture, or its layers (the
           picture as it stands when a region is painted, with everything nearer filled in)
    order  of the regions: far-to-near, or focus-last
    verb   the words of its captions, before the names of regions: "block in"
    """

    name: str
    role: Role = "paint"
    aim: Aim = "picture"
    order: Order = "far-to-near"
    verb: str = ""

    def __post_init__(self) -> None:
        for value, kind in ((self.role, Role), (self.aim, Aim), (self.order, Order)):
            if value not in get_args(kind):
                raise ValueError(f"{value!r} is none of {', '.join(get_args(kind))}")

    def caption(self, place: str) -> str:
        """What was done at `place` ("the dark mass, left"); an empty place is the whole picture."""
        verb = self.verb or VERBS.get(self.role, "")
        if not verb:
            return f"{self.name}: {place}" if place else self.name
        return f"{verb} {place}" if place and self.role not in PREPARES else verb


@dataclass(frozen=True)
class PlannedStage(Stage):
    """A stage, and how it is painted; plans/human.toml says what each value means."""

    share: float = 0.0
    length: float = 0.03
    width: float = 0.005
    scale: float = 1.0
    steps: int = 60
    behind: float = 0.0
    tint: float = 0.3

    @property
    def stage(self) -> Stage:
        """What strokes know of it."""
        return Stage(self.name, self.role, self.aim, self.order, self.verb)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The blank canvas's color, and stages of painting in their order."""

    name: str
    stage: tuple[PlannedStage, ...]
    blank: tuple[float, float, float] = BLANK

    @property
    def behind(self) -> float:
        """How far layers run on behind what is nearer, in canvas units."""
        return max(stage.behind for stage in self.stage)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


RANGES: dict[str, tuple[float, float]] = {
    "share": (0, 1), "length": (0.001, 1), "width": (0.0005, 1), "scale": (0.01, 1), "behind": (0, 1), "tint": (0, 1),
    "steps": (1, 10_000),
}  # fmt: skip

DEFAULTS: dict[str, dict[str, Any]] = {"ground": {"width": 0.12}, "drawing": {"length": 0.12}}
"""What a stage of these roles has where a plan says nothing, other than `PlannedStage`."""


def read_plan(name: str) -> Plan:
    """The plan `human`, or one from a TOML file.

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
    tables = data.get("stage")
    if not isinstance(tables, list) or not tables:
        raise UsageError(f"The plan {name} has no [[stage]].")
    unknown = set(data) - {field.name for field in fields(Plan)}
    if unknown:
        raise UsageError(
            f"The plan {name} has the unknown table or value `{min(unknown)}`.",
            "It has name, blank, and one [[stage]] for each stage, ground and drawing included.",
        )
    stages = tuple(_read_stage(values, f"The plan {name}, stage {k + 1}") for k, values in enumerate(tables))
    blank = data.get("blank", BLANK)
    if not (isinstance(blank, list | tuple) and len(blank) == 3 and all(_number(v) and 0 <= v <= 1 for v in blank)):
        raise UsageError(f"The plan {name}: `blank` is {blank!r}; it is three numbers between 0 and 1.")
    if len({stage.name for stage in stages}) != len(stages):
        raise UsageError(f"The plan {name} has two stages of one name.")
    if any(stage.role == "ground" for stage in stages[1:]):
        raise UsageError(f"The plan {name} has a ground that is not its first stage.", "It would hide what is below.")
    if not any(stage.share > 0 for stage in stages if stage.role not in PREPARES):
        raise UsageError(f"The plan {name} has no stage that paints.", "Give one a `share` above 0.")
    return Plan(name=str(data.get("name", path.stem)), stage=stages, blank=tuple(blank))


def _read_stage(values: Any, where: str) -> PlannedStage:
    """One [[stage]], every value checked; `where` begins the message of an error."""
    if not isinstance(values, dict):
        raise UsageError(f"{where}: it is not a table.")
    hints = get_type_hints(PlannedStage)
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0)[0]
            raise UsageError(f"{where}: unknown setting `{key}`;", f"did you mean `{near}`?")
        choices = get_args(hints[key])
        if choices:
            fits, wanted = value in choices, f"one of {', '.join(choices)}"
        elif key in RANGES:
            low, high = RANGES[key]
            whole = hints[key] is int
            fits = _number(value) and low <= value <= high and not (whole and isinstance(value, float))
            wanted = f"a {'whole number' if whole else 'number'} from {low:g} to {high:g}"
        else:
            fits = isinstance(value, str) and value.isprintable() and (bool(value.strip()) or key != "name")
            wanted = "text in one line"
        if not fits:
            raise UsageError(f"{where}: `{key}` is {value!r}; it is {wanted}.")
    if "name" not in values:
        raise UsageError(f"{where}: it has no `name`.")
    stage = PlannedStage(**DEFAULTS.get(values.get("role", ""), {}) | values)
    if stage.role == "lights" and stage.aim != "picture":
        raise UsageError(f"{where}: `aim` is {stage.aim!r}; lights aim at the picture.")
    return stage


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
