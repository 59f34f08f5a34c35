"""`Strokes`: what a painter did, in order, without a resolution."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from paintproc.config.plan import PREPARES, Stage
from paintproc.errors import InputError
from paintproc.strokes.brushes import ROUND, check_brush

FORMAT = "paintproc-strokes-2"
OLDER = ("paintproc-strokes-1",)
"""Formats that are still read: in the first a stage is a name."""
WHITE = np.ones(3, np.float32)
ROWS = ("points", "radius", "color", "alpha", "brush", "stage", "region")
"""The arrays with one row a stroke."""


@dataclass(frozen=True, eq=False)
class Strokes:
    """Brush strokes in painting order.

    Canvas units: the origin is the top-left corner, x grows to the right, y downwards,
    and 1.0 is the longer side of the canvas, so strokes have no resolution.

    points  [N, 3, 2]  control points (x, y) of a quadratic Bezier curve
    radius  [N, 2]     at the start and the end, in canvas units; linear between
    color   [N, 2, 3]  sRGB in [0, 1], at the start and the end
    alpha   [N, 2]     opacity in [0, 1], at the start and the end
    brush   [N]        index into `brushes`
    stage   [N]        index into `stages` (parts of the plan: block-in, detail ...)
    region  [N]        index into `regions` (a part of the picture)
    ground             what is under the first stroke: a color [3] or a canvas [H, W, 3],
                       sRGB in [0, 1]
    aspect             width / height of the canvas

    A stage given as text becomes a `Stage` of that name, with the role "paint". Raises ValueError
    where shapes, ranges or indices do not fit.
    """

    points: np.ndarray
    radius: np.ndarray
    color: np.ndarray
    alpha: np.ndarray
    brush: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    stage: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    region: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    brushes: tuple[np.ndarray, ...] = (ROUND,)
    stages: tuple[Stage, ...] = (Stage("strokes"),)
    regions: tuple[str, ...] = ("picture",)
    ground: np.ndarray = field(default_factory=lambda: WHITE)
    aspect: float = 1.0

    def __post_init__(self) -> None:
        count = len(self.points)
        for name, shape in (("points", (3, 2)), ("radius", (2,)), ("color", (2, 3)), ("alpha", (2,))):
            array = np.ascontiguousarray(getattr(self, name), np.float32)
            if array.shape != (count, *shape):
                raise ValueError(f"{name} has shape {array.shape}, expected {(count, *shape)}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite")
            object.__setattr__(self, name, array)
        for name, table in (("brush", self.brushes), ("stage", self.stages), ("region", self.regions)):
            index = np.ascontiguousarray(getattr(self, name), np.int32)
            if index.size == 0:
                index = np.zeros(count, np.int32)
            if index.shape != (count,):
                raise ValueError(f"{name} has shape {index.shape}, expected {(count,)}")
            if count and not (index.min() >= 0 and index.max() < len(table)):
                raise ValueError(f"{name} indexes outside its table of {len(table)}")
            object.__setattr__(self, name, index)
        if self.radius.size and self.radius.min() < 0:
            raise ValueError("radius is negative")
        for name in ("color", "alpha", "ground"):
            array = np.asarray(getattr(self, name), np.float32)
            if array.size and not (array.min() >= 0 and array.max() <= 1):
                raise ValueError(f"{name} lies outside [0, 1]")
        ground = np.ascontiguousarray(self.ground, np.float32)
        if ground.shape != (3,) and not (ground.ndim == 3 and ground.shape[2] == 3 and ground.size):
            raise ValueError(f"ground is a color [3] or a canvas [H, W, 3], got shape {ground.shape}")
        object.__setattr__(self, "ground", ground)
        object.__setattr__(self, "brushes", tuple(check_brush(brush) for brush in self.brushes))
        stages = tuple(Stage(stage) if isinstance(stage, str) else stage for stage in self.stages)
        object.__setattr__(self, "stages", stages)
        if not self.brushes:
            raise ValueError("strokes have at least one brush")
        if not all(isinstance(stage, Stage) for stage in stages):
            raise ValueError("stages are `Stage` values or names")
        if not all(isinstance(name, str) for name in self.regions):
            raise ValueError("names of regions are text")
        if not 0 < self.aspect < np.inf:
            raise ValueError(f"aspect is width / height and positive, got {self.aspect}")

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        names = ", ".join(stage.name for stage in self.stages)
        return f"Strokes({len(self)} strokes, stages {names}, {len(self.regions)} regions, aspect {self.aspect:.3f})"

    def __getitem__(self, index: slice | np.ndarray) -> "Strokes":
        """The strokes at `index` (a slice, a mask or positions), on the same ground."""
        rows = {name: getattr(self, name)[index] for name in ROWS}
        return replace(self, **rows)

    def canvas_size(self, longer_side: int) -> tuple[int, int]:
        """Height and width in pixels of a canvas with this longer side."""
        return canvas_size(self.aspect, longer_side)

    def ground_canvas(self, height: int, width: int) -> np.ndarray:
        """The blank canvas, float32 [height, width, 3]; a ground canvas is resampled."""
        if self.ground.shape == (3,):
            return np.broadcast_to(self.ground, (height, width, 3)).copy()
        if self.ground.shape[:2] == (height, width):
            return self.ground.copy()
        import cv2

        shrinks = height * width < self.ground.shape[0] * self.ground.shape[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        resized = cv2.resize(self.ground, (width, height), interpolation=how)
        return np.clip(resized, 0, 1).astype(np.float32)

    def lengths(self) -> np.ndarray:
        """Length of each curve [N] in canvas units, by 16 chords."""
        t = np.linspace(0, 1, 17, dtype=np.float32)
        weights = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1)
        return np.linalg.norm(np.diff(weights @ self.points, axis=1), axis=2).sum(1)


def canvas_size(aspect: float, longer_side: int) -> tuple[int, int]:
    """Height and width in pixels of a canvas of `aspect` (width / height)."""
    if aspect >= 1:
        return max(1, round(longer_side / aspect)), longer_side
    return longer_side, max(1, round(longer_side * aspect))


def concatenate(parts: Sequence[Strokes]) -> Strokes:
    """`parts` one after the other, on the ground of the first; their tables must agree."""
    first = parts[0]
    for part in parts[1:]:
        if (part.stages, part.regions, len(part.brushes)) != (first.stages, first.regions, len(first.brushes)):
            raise ValueError("strokes with different stages, regions or brushes cannot be joined")
    rows: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ROWS}
    return replace(first, **rows)


def strokes_to_bytes(strokes: Strokes, info: dict[str, Any] | None = None) -> bytes:
    """`strokes` as one safetensors file; `info` (JSON values) travels in its header."""
    from safetensors.numpy import save

    tensors = {name: getattr(strokes, name) for name in ROWS}
    tensors["ground"] = strokes.ground
    tensors |= {f"brushes.{i}": brush for i, brush in enumerate(strokes.brushes)}
    header = {
        "format": FORMAT,
        "aspect": repr(float(strokes.aspect)),
        "stages": json.dumps([asdict(stage) for stage in strokes.stages]),
        "regions": json.dumps(strokes.regions),
        "info": json.dumps(info or {}, sort_keys=True),
    }
    return _canonical(save(tensors, metadata=header))


def _canonical(blob: bytes) -> bytes:
    """The same safetensors file with its header keys sorted: equal values, equal bytes."""
    length = int.from_bytes(blob[:8], "little")
    header = json.dumps(json.loads(blob[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + blob[8 + length :]


def _read_stage(stage: str | dict[str, Any]) -> Stage:
    """A stage as a strokes file has it. A name alone, as in the first format, says its role where it is a known one."""
    if isinstance(stage, str):
        return Stage(stage, role=stage if stage in PREPARES else "paint")
    return Stage(**stage)


def load_strokes(path: str | Path) -> Strokes:
    """Read a strokes file. InputError when it is missing, damaged or something else."""
    try:
        return strokes_from_bytes(Path(path).read_bytes(), str(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not a strokes file.") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied.") from None
    except OSError as error:
        raise InputError(f"{path} is not a whole strokes file: {error}.") from error


def strokes_from_bytes(data: bytes, name: str) -> Strokes:
    """The strokes in the bytes of a file. InputError, about `name`, when they are damaged or something else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        if header.get("format") not in (FORMAT, *OLDER):
            raise InputError(f"{name} is a safetensors file, but not one of strokes.")
        count = sum(key.startswith("brushes.") for key in arrays)
        brushes = tuple(arrays.pop(f"brushes.{i}") for i in range(count))
        return Strokes(
            **arrays,
            brushes=brushes,
            stages=tuple(_read_stage(stage) for stage in json.loads(header["stages"])),
            regions=tuple(json.loads(header["regions"])),
            aspect=float(header["aspect"]),
        )
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{name} is not a whole strokes file: {error}.") from error
