"""What happens on the canvas, in plain words: place, size and color, never an object's name."""

import itertools

import cv2
import numpy as np

from paintproc.config.plan import PREPARES, Stage
from paintproc.process.clock import worked_on
from paintproc.scene.values import Scene
from paintproc.strokes.values import Strokes

BLANK_STAGE = "blank"
"""What stands in place of a stage for the first frame, before any stage."""
LOOKED_AT = 1024
"""Regions are named by at most so many rows and columns of the picture."""
NAMED = 3
"""At most so many regions are named in one caption ..."""
NAMED_TIME = 0.8
"""... those on which so much of its time was spent."""


def name_regions(picture: np.ndarray, scene: Scene) -> tuple[str, ...]:
    """A phrase for each region [R] of `picture`, uint8 sRGB: "the dark brown mass, lower left"."""
    every = -(-max(scene.regions.shape) // LOOKED_AT)
    regions = scene.regions[::every, ::every]
    height, width = regions.shape
    lab = cv2.cvtColor(picture[::every, ::every].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    y, x = np.mgrid[:height, :width]
    area = scene.area()
    names: list[str] = []
    for k in range(len(scene)):
        mask = regions == k
        if not mask.any():
            mask = np.ones_like(mask)
        size = "expanse" if area[k] > 0.22 else "mass" if area[k] > 0.05 else "patch"
        spread = float(np.ptp(np.quantile(x[mask], [0.05, 0.95]))) / width
        place = _place(float(y[mask].mean()) / height, float(x[mask].mean()) / width, spread)
        name = f"the {color_word(np.median(lab[mask], axis=0))} {size}, {place}"
        again = sum(name == other or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({again + 1})" if again else name)
    return tuple(names)


def _place(y: float, x: float, spread: float) -> str:
    """Where a middle in [0, 1] lies; only above or below for what spans the picture."""
    row = "top" if y < 0.36 else "bottom" if y > 0.64 else "middle"
    if spread > 0.75:
        return {"top": "at the top", "bottom": "at the bottom", "middle": "across the middle"}[row]
    column = "left" if x < 0.38 else "right" if x > 0.62 else "center"
    if row == "middle":
        return {"left": "on the left", "right": "on the right", "center": "in the center"}[column]
    if column == "center":
        return "top center" if row == "top" else "bottom center"
    return f"{'upper' if row == 'top' else 'lower'} {column}"


def color_word(lab: np.ndarray) -> str:
    """One or two words for a CIE Lab color."""
    lightness, a, b = (float(v) for v in lab)
    chroma = float(np.hypot(a, b))
    tone = "dark " if lightness < 32 else "pale " if lightness > 76 else ""
    if chroma < 9:
        if lightness < 14:
            return "black"
        return "white" if lightness > 90 else f"{tone}gray"
    hue = float(np.degrees(np.arctan2(b, a))) % 360
    if 40 <= hue < 80 and lightness < 55:
        return f"{tone}brown"
    for limit, word in ((18, "red"), (40, "red"), (68, "orange"), (105, "yellow"), (165, "green"), (215, "blue-green")):
        if hue < limit:
            if word == "yellow" and lightness < 62:
                return f"{tone}olive" if chroma < 35 else f"{tone}ochre"
            return f"{tone}{'pink' if word == 'red' and lightness > 65 else word}"
    return f"{tone}{'blue' if hue < 310 else 'violet' if hue < 335 else 'red' if lightness < 55 else 'pink'}"


def named_regions(strokes: Strokes, begin: float, end: float) -> tuple[Stage | None, list[int]]:
    """The stage on which most of the time between two moments was spent, and its regions by time.

    None where nothing was painted.
    """
    found = worked_on(strokes, begin, end)
    times: dict[int, float] = {}
    for (stage, _), time in found.items():
        times[stage] = times.get(stage, 0.0) + time
    if not times:
        return None, []
    main = max(times, key=lambda stage: times[stage])
    regions: list[int] = []
    told = 0.0
    for (stage, region), time in found.items():
        if stage == main and told < NAMED_TIME * times[main] and len(regions) < NAMED:
            regions.append(region)
            told += time
    return strokes.stages[main], regions


def stages(strokes: Strokes, moments: np.ndarray) -> list[str]:
    """The name of the stage that took most of the time before each moment (part of painting time).

    The first is `BLANK_STAGE`; where nothing was painted between two moments, the stage before goes on.
    """
    names = [BLANK_STAGE]
    for begin, end in itertools.pairwise(moments):
        stage, _ = named_regions(strokes, float(begin), float(end))
        names.append(stage.name if stage else names[-1])
    return names


def captions(strokes: Strokes, moments: np.ndarray) -> list[str]:
    """One short sentence a moment (part of painting time): what was done to get there."""
    sentences = ["the empty canvas" if strokes.ground.ndim == 1 else "the begun canvas"]
    for begin, end in itertools.pairwise(moments):
        stage, regions = named_regions(strokes, float(begin), float(end))
        if stage is None:
            sentences.append("nothing more")
        elif len(strokes.regions) == 1:
            sentences.append(stage.caption("the picture" if stage.role not in PREPARES else ""))
        else:
            sentences.append(stage.caption("; ".join(strokes.regions[k] for k in regions)))
    return sentences
