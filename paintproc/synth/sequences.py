"""One picture, one method, one sequence."""

import hashlib
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from paintproc.config.generate import GenerateConfig
from paintproc.config.plan import HUMAN, read_plan
from paintproc.config.settings import as_json
from paintproc.config.synth import METHODS, SynthConfig, SynthLayersConfig, SynthStrokesConfig
from paintproc.dataset.layout import item_id
from paintproc.media import Picture
from paintproc.metrics.frames import frame_distances
from paintproc.process.captions import BLANK_STAGE, captions, name_regions, stages
from paintproc.process.clock import canvases, even_changes, painted_masks, stroke_ends, to_uint8, visible_change
from paintproc.process.generate import PROVENANCE, package_versions, stroke_device
from paintproc.process.paint import paint
from paintproc.scene.find import find_scene
from paintproc.scene.networks import SceneNetworks, choose_filler, network_versions, observe
from paintproc.scene.values import Scene
from paintproc.sequence import PaintingSequence
from paintproc.strokes.fit import fit
from paintproc.strokes.values import Strokes
from paintproc.synth.layers import SEGMENTS, Segments, find_segments, paint_segments, paste
from paintproc.synth.learn_to_paint import learn_to_paint
from paintproc.synth.stylized import paint_stylized
from paintproc.version import __version__

SMALLEST = 16
"""Pictures with a shorter side than this, in pixels, are not painted."""
PADDING = 255
"""What `--shape pad` adds: white."""


def methods(config: SynthConfig) -> tuple[str, ...]:
    """The names of the sequences that one picture becomes."""
    if isinstance(config, SynthStrokesConfig):
        return config.method
    if isinstance(config, SynthLayersConfig):
        return (f"layers-{config.order}-{config.render}",)
    return ()


def needs_scene(config: SynthConfig) -> bool:
    return isinstance(config, SynthLayersConfig) or HUMAN in methods(config)


def dataset_settings(config: SynthConfig) -> dict[str, Any]:
    """The settings as a dataset's record has them: those that decide what is in it."""
    return {name: value for name, value in as_json(config).items() if name not in ("scene", "device")}


def sequence_facts(config: SynthConfig, method: str, networks: SceneNetworks) -> dict[str, Any]:
    """What decides a sequence beside its picture."""
    settings = {name: value for name, value in dataset_settings(config).items() if name != "method"}
    return {
        "version": __version__,
        "method": method,
        "settings": settings,
        "plan": read_plan(HUMAN).as_json() if method == HUMAN else None,
        "scene": str(networks) if method == HUMAN or method not in METHODS else None,
        "painted_on": "cuda" if config.device.startswith("cuda") else "cpu",
    }


def sequence_id(source: str, config: SynthConfig, method: str, networks: SceneNetworks) -> str:
    """The id of the sequence that a method makes of the image file with this sha256."""
    return item_id(source, sequence_facts(config, method, networks))


def shape_picture(pixels: np.ndarray, shape: str) -> np.ndarray:
    """uint8 [H, W, 3] as it is, its middle square, or white added to a square."""
    height, width = pixels.shape[:2]
    if shape == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if shape == "pad":
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = np.full((side, side, 3), PADDING, np.uint8)
        square[top : top + height, left : left + width] = pixels
        return square
    return pixels


def make_sequence(
    picture: Picture,
    config: SynthConfig,
    method: str,
    networks: SceneNetworks | None = None,
    scene: Scene | None = None,
    facts: Mapping[str, Any] | None = None,
) -> PaintingSequence:
    """Turn `picture`, already of the right size and shape, into a sequence by one of `methods(config)`.

    `scene` is found where it is needed and not given, `networks` look at it. `facts` (source, prompt, license, origin)
    are kept in the sequence's `info`. Equal arguments give equal sequences.
    """
    networks = networks or SceneNetworks()
    target, device = picture.pixels, stroke_device(config.device)
    if scene is None and needs_scene(config):
        scene = find_scene(target, observe(target, networks))
    if isinstance(config, SynthStrokesConfig) and method != HUMAN:
        # other methods do not look at it, whatever they are made together with
        scene = None
    source_seed = hashlib.sha256(f"{config.seed} {method} {picture.sha256}".encode()).hexdigest()
    seed = int(source_seed[:12], 16)
    info = {
        "id": sequence_id(picture.sha256, config, method, networks),
        "tool": "paintproc",
        **sequence_facts(config, method, networks),
        "input": {"sha256": picture.sha256},
        "seed": config.seed,
        **(facts or {}),
        "versions": package_versions() | (network_versions() if networks.names else {}),
        "provenance": PROVENANCE,
    }
    if isinstance(config, SynthLayersConfig):
        assert scene is not None
        return _layered(target, config, scene, networks, seed, device, info)
    strokes = _strokes(target, config, method, scene, networks, seed, device)
    return _painted(target, strokes, scene, config, info)


def _strokes(
    target: np.ndarray,
    config: SynthConfig,
    method: str,
    scene: Scene | None,
    networks: SceneNetworks,
    seed: int,
    device: str,
) -> Strokes:
    unit = target.astype(np.float32) / 255
    if method == "fit":
        return fit(unit, config.strokes, seed=seed, device=device)
    if method == "learn-to-paint":
        return learn_to_paint(unit, config.strokes, seed=seed)
    if method == "stylized":
        return paint_stylized(unit, config.strokes, brush="oil" if seed % 2 else "marker", seed=seed)
    assert scene is not None
    names = name_regions(target, scene)
    filler = choose_filler(networks)
    plan = read_plan(HUMAN)
    return paint(unit, config.strokes, plan, scene, names=names, filler=filler, seed=seed, device=device)


def _painted(
    target: np.ndarray, strokes: Strokes, scene: Scene | None, config: SynthConfig, info: dict[str, Any]
) -> PaintingSequence:
    """The sequence of what was painted stroke by stroke."""
    size = target.shape[:2]
    by_time = config.frame_sampling == "even-time"
    wanted = np.linspace(0, 1, config.num_frames) if by_time else even_changes(strokes, size, config.num_frames)
    # a frame shows finished strokes
    ends = np.concatenate([[0.0], stroke_ends(strokes)])
    moments = ends[nearest_places(wanted, ends)]
    frames = list(canvases(strokes, size, moments))
    info |= {"strokes": len(strokes), "painted_end": _distances(frames[-1], target)}
    return PaintingSequence(
        frames=frames,
        progress=moments,
        stages=stages(strokes, moments),
        captions=captions(strokes, moments),
        seconds=moments * GenerateConfig.painting_time * 60,
        strokes=strokes,
        scene=scene,
        masks=list(painted_masks(strokes, size, moments)),
        target=target,
        info=info,
    )


def _layered(
    target: np.ndarray,
    config: SynthLayersConfig,
    scene: Scene,
    networks: SceneNetworks,
    seed: int,
    device: str,
    info: dict[str, Any],
) -> PaintingSequence:
    """The sequence of segments that are placed one after the other."""
    unit = target.astype(np.float32) / 255
    segments = find_segments(scene, config.order, config.num_frames - 1)
    filler = choose_filler(networks)
    canvases = paste(unit, scene, segments, config.order, filler)
    names = name_regions(target, scene)
    if config.render == "strokes":
        strokes = paint_segments(canvases, segments, config.strokes, names, seed=seed, device=device)
        return _painted(target, strokes, scene, config, info)
    shown = [to_uint8(canvas) for canvas in canvases]
    changes = [visible_change(before, after) for before, after in itertools.pairwise(shown)]
    by_time = config.frame_sampling == "even-time"
    amount = np.cumsum([0.0, *(np.ones(len(segments)) if by_time else np.maximum(changes, 1e-6))])
    chosen = nearest_places(np.linspace(0, amount[-1], config.num_frames), amount)
    progress = np.array(chosen) / len(segments)
    frames = [shown[k] for k in chosen]
    masks = [
        segments.masks[begin:end].any(0) | (shown[begin] != shown[end]).any(2)
        for begin, end in itertools.pairwise([0, *chosen])
    ]
    return PaintingSequence(
        frames=frames,
        progress=progress,
        stages=[BLANK_STAGE, *[SEGMENTS.name] * (config.num_frames - 1)],
        captions=["the empty canvas", *_placed(segments, names, chosen)],
        seconds=progress * GenerateConfig.painting_time * 60,
        scene=scene,
        masks=masks,
        target=target,
        info=info | {"painted_end": _distances(frames[-1], target)},
    )


def nearest_places(wanted: np.ndarray, places: np.ndarray) -> list[int]:
    """Which of `places` [M] are nearest to `wanted` [N], both non-decreasing.

    The first and the last are among them; each is taken once where N is at most M.
    """
    last, count = len(places) - 1, len(wanted)
    chosen = [0]
    for number in range(1, count):
        nearest = int(np.abs(places - wanted[number]).argmin())
        least, most = chosen[-1] + 1, last - (count - 1 - number)
        chosen.append(min(last, max(min(nearest, most), least)))
    chosen[-1] = last
    return chosen


def _placed(segments: Segments, names: tuple[str, ...], chosen: list[int]) -> list[str]:
    """What was placed between one chosen canvas and the next, in words."""
    sentences = []
    for begin, end in itertools.pairwise(chosen):
        regions = dict.fromkeys(segments.regions[begin:end].tolist())
        sentences.append(f"place {'; '.join(names[k] for k in regions)}" if regions else "nothing more")
    return sentences


def _distances(last: np.ndarray, target: np.ndarray) -> dict[str, float | None]:
    found = frame_distances(last, target)
    return {name: value if np.isfinite(value) else None for name, value in found.items()}
