"""How believable a painting's order is: figures for a plan, from the strokes and the scene."""

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from paintproc.config.plan import PREPARES
from paintproc.metrics.frames import psnr
from paintproc.process.captions import named_regions
from paintproc.process.clock import canvases, stroke_ends, to_uint8, worked_on
from paintproc.process.drawing import under_layers
from paintproc.scene.layers import find_layers
from paintproc.scene.values import Scene
from paintproc.strokes.ops.in_turn import error_changes
from paintproc.strokes.rasterize import rasterize
from paintproc.strokes.values import Strokes


@dataclass(frozen=True)
class Judgement:
    """What is measured of one painting.

    psnr          dB of the finished canvas
    stage_time    part of painting time that each stage takes
    locality      in stages that paint regions from far to near, the part of a frame's squared change
                  that lies in the regions its caption names (mean over frames)
    monotone      part of the frames that are nearer to the finished picture than the frame before, of
                  those between which nobody toned a ground or drew
    order         Spearman correlation of the time at which half of a region's error is gone with
                  its place from far to near; NaN with fewer than three regions
    width         median stroke width of each stage of painting (neither ground nor drawing), in canvas units
    purposeful    part of the painted strokes that lowered the squared error to their own aim over
                  their footprint when they were laid
    ghost         just before a stage that aims at layers paints a region, the mean gradient along its contour, against
                  the finished picture's there (mean over regions, weighted by contour length)
    """

    psnr: float
    stage_time: dict[str, float]
    locality: float
    monotone: float
    order: float
    width: dict[str, float]
    purposeful: float
    ghost: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(strokes: Strokes, scene: Scene, target: np.ndarray, behind: float, num_frames: int = 16) -> Judgement:
    """Judge a painting of `target`, uint8 [H, W, 3], by the frames `generate` would show."""
    size = target.shape[:2]
    moments = np.linspace(0, 1, num_frames)
    frames = list(canvases(strokes, size, moments))
    present = [k for k in range(len(strokes.stages)) if (strokes.stage == k).any()]
    names = {k: strokes.stages[k].name for k in present}
    costs = np.diff(stroke_ends(strokes), prepend=0)
    painted = [k for k in present if strokes.stages[k].role not in PREPARES]
    return Judgement(
        psnr=psnr(to_uint8(rasterize(strokes, size=size)), target),
        stage_time={names[k]: float(costs[strokes.stage == k].sum()) for k in present},
        locality=_locality(strokes, scene, frames, moments),
        monotone=_monotone(strokes, frames, moments, target),
        order=_order(strokes, scene, target),
        width={names[k]: 2 * float(np.median(strokes.radius[strokes.stage == k])) for k in painted},
        purposeful=_purposeful(strokes, scene, target, behind),
        ghost=_ghost(strokes, scene, target),
    )


def _of_role(strokes: Strokes, *roles: str) -> np.ndarray:
    """Which strokes belong to a stage with one of these roles [N]."""
    return np.array([stage.role in roles for stage in strokes.stages])[strokes.stage]


def _layered(strokes: Strokes) -> np.ndarray:
    """Which strokes paint and aim at layers [N]."""
    found = [stage.aim == "layers" and stage.role not in PREPARES for stage in strokes.stages]
    return np.array(found)[strokes.stage]


def _begun(strokes: Strokes) -> float:
    """When painting begins, after ground and drawing, as a part of painting time; 1 where nothing is painted.

    A drawing between stages of painting comes later.
    """
    painted = np.flatnonzero(~_of_role(strokes, *PREPARES))
    return float(np.append(0.0, stroke_ends(strokes))[painted[0] if len(painted) else -1])


def _locality(strokes: Strokes, scene: Scene, frames: list[np.ndarray], moments: np.ndarray) -> float:
    shares = []
    for k in range(1, len(frames)):
        stage, regions = named_regions(strokes, moments[k - 1], moments[k])
        if stage is not None and stage.role not in PREPARES and stage.order == "far-to-near":
            change = ((frames[k].astype(float) - frames[k - 1]) ** 2).sum(2)
            shares.append(float(change[np.isin(scene.regions, regions)].sum() / max(change.sum(), 1e-9)))
    return float(np.mean(shares)) if shares else float("nan")


def _monotone(strokes: Strokes, frames: list[np.ndarray], moments: np.ndarray, target: np.ndarray) -> float:
    def painted(k: int) -> bool:
        """Whether only stages of painting led from the frame before to frame k."""
        spent = worked_on(strokes, float(moments[k - 1]), float(moments[k]))
        return all(strokes.stages[stage].role not in PREPARES for stage, _ in spent)

    distances = [float(((frame.astype(float) - target) ** 2).mean()) for frame in frames]
    nearer = [distances[k] < distances[k - 1] for k in range(1, len(frames)) if painted(k)]
    return float(np.mean(nearer)) if nearer else float("nan")


def _order(strokes: Strokes, scene: Scene, target: np.ndarray) -> float:
    """By canvases at a quarter of the resolution."""
    if len(scene) < 3:
        return float("nan")
    from scipy.stats import spearmanr

    size = max(1, target.shape[0] // 4), max(1, target.shape[1] // 4)
    small = cv2.resize(target, size[::-1], interpolation=cv2.INTER_AREA).astype(float)
    regions = cv2.resize(scene.regions.astype(np.float32), size[::-1], interpolation=cv2.INTER_NEAREST).astype(int)
    moments = np.linspace(0, 1, 101)
    area = np.maximum(np.bincount(regions.ravel(), minlength=len(scene)), 1)
    errors = np.array(
        [
            np.bincount(regions.ravel(), ((frame - small) ** 2).sum(2).ravel(), minlength=len(scene)) / area
            for frame in canvases(strokes, size, moments)
        ]
    )
    begun = int(np.searchsorted(moments, _begun(strokes)))
    start, last = errors[min(begun, 100)], errors[-1]
    half = [int(np.argmax(errors[begun:, k] <= (start[k] + last[k]) / 2)) for k in range(len(scene))]
    return float(spearmanr(half, np.arange(len(scene))).statistic)


def _purposeful(strokes: Strokes, scene: Scene, target: np.ndarray, behind: float) -> float:
    unit = target.astype(np.float32) / 255
    under = under_layers(unit, strokes.stages, strokes.ground)
    layers = find_layers(unit, scene, under, behind)
    aims = np.stack([*(cv2.resize(layer, target.shape[1::-1]) for layer in layers), unit])
    aim_of = np.where(_layered(strokes), strokes.region, len(scene))
    if len(strokes.regions) == 1:
        aim_of = np.full(len(strokes), len(scene))
    changes = error_changes(strokes, strokes.ground_canvas(*target.shape[:2]), aims, aim_of)
    painted = ~_of_role(strokes, *PREPARES)
    return float((changes[painted] < 0).mean()) if painted.any() else float("nan")


def _ghost(strokes: Strokes, scene: Scene, target: np.ndarray) -> float:
    def slope(picture: np.ndarray) -> np.ndarray:
        gray = cv2.GaussianBlur(picture.astype(np.float32).mean(2), (0, 0), 1.0)
        return np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))

    layered = _layered(strokes)
    finished, total, weight = slope(target), 0.0, 0.0
    for k in range(1, len(scene)):
        first = np.flatnonzero(layered & (strokes.region == k))
        if not len(first):
            continue
        own, done = (scene.regions == k).astype(np.uint8), (scene.regions < k).astype(np.uint8)
        cross = np.ones((3, 3), np.uint8)
        contour = (cv2.dilate(own, cross) > 0) & (cv2.dilate(done, cross) > 0)
        if contour.sum() < 20:
            continue
        canvas = rasterize(strokes[: first[0]], size=target.shape[:2])
        total += float(slope(255 * canvas)[contour].sum())
        weight += float(finished[contour].sum())
    return total / weight if weight else float("nan")
