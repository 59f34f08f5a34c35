"""From a picture to the sequence of canvases that leads to it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paintproc.config.generate import GenerateConfig
from paintproc.config.plan import FREE, Plan, read_plan
from paintproc.config.settings import as_json
from paintproc.errors import InputError
from paintproc.media import Picture, PillowImage, load_picture, picture_from_image, picture_from_pixels, shrink_picture
from paintproc.metrics.frames import frame_distances
from paintproc.process.captions import captions, name_regions, stages
from paintproc.process.clock import DrawnFrames, even_changes, stage_ends
from paintproc.process.paint import paint
from paintproc.scene.find import find_scene
from paintproc.scene.networks import (
    SceneNetworks,
    choose_filler,
    choose_networks,
    find_device,
    network_versions,
    observe,
)
from paintproc.scene.values import Scene
from paintproc.sequence import PaintingSequence
from paintproc.strokes.fit import fit
from paintproc.strokes.values import Strokes
from paintproc.version import __version__

KEPT_BYTES = 2**27
"""Frames that take more memory than this are drawn whenever they are asked for."""
PROVENANCE = "synthetic process, not a recording"

Image = str | Path | np.ndarray | PillowImage | Picture
"""A path, uint8 sRGB pixels [H, W, 3], an image of Pillow, or a picture already read."""


def generate(
    image: Image,
    config: GenerateConfig | None = None,
    *,
    canvas: Image | None = None,
    networks: SceneNetworks | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> PaintingSequence:
    """Show how `image` could have been painted.

    `canvas` is a half-finished canvas of the same picture to go on from (resized to it): what is
    blocked in there is kept. `networks` look at the scene; by default those that `config`
    means with the user's weights. `progress` is called with the part of the work done. InputError for
    what cannot be read, UsageError for a plan that does not fit.
    """
    config = config or GenerateConfig()
    plan = None if config.plan == FREE else read_plan(config.plan)
    picture = as_picture(image, config.size)
    begun = None if canvas is None else as_picture(canvas)
    target = picture.pixels
    height, width = target.shape[:2]
    networks = scene_networks(config) if networks is None else networks
    scene = find_scene(target, observe(target, networks)) if needs_scene(config) else None
    strokes = _paint(target, config, plan, scene, begun, networks, progress)
    moments = _moments(strokes, (height, width), config)
    frames: Sequence[np.ndarray] = DrawnFrames(strokes, (height, width), moments)
    kept = len(frames) * target.size <= KEPT_BYTES
    if kept:
        frames = list(frames)
    sentences = captions(strokes, moments)
    distances = frame_distances(frames[-1], target)
    if config.finish == "exact":
        frames = [*frames[:-1], target] if kept else DrawnFrames(strokes, (height, width), moments, target)
        sentences[-1] = "finished: the picture itself"
    return PaintingSequence(
        frames=frames,
        progress=moments,
        stages=stages(strokes, moments),
        captions=sentences,
        seconds=moments * config.painting_time * 60,
        strokes=strokes,
        scene=scene,
        target=target,
        info={
            **identity(picture, begun, config, networks),
            "settings": as_json(config),
            "method": plan.name if plan else FREE,
            "seed": config.seed,
            "strokes": len(strokes),
            "painted_end": {name: value if np.isfinite(value) else None for name, value in distances.items()},
            "versions": package_versions() | (network_versions() if networks.names else {}),
            "provenance": PROVENANCE,
        },
    )


def _paint(
    target: np.ndarray,
    config: GenerateConfig,
    plan: Plan | None,
    scene: Scene | None,
    begun: Picture | None,
    networks: SceneNetworks,
    progress: Callable[[float], None],
) -> Strokes:
    """Strokes for `target`, uint8 [H, W, 3]: under a plan and a scene, or in free order without them."""
    height, width = target.shape[:2]
    count, device = config.stroke_count(height, width), stroke_device(config.device)
    unit = target.astype(np.float32) / 255
    canvas = None if begun is None else _at_size(begun.pixels, height, width)
    if plan is None or scene is None:
        return fit(unit, count, canvas=canvas, seed=config.seed, device=device, progress=progress)
    return paint(
        unit, count, plan, scene,
        canvas=canvas, names=name_regions(target, scene), filler=choose_filler(networks),
        seed=config.seed, device=device, progress=progress,
    )  # fmt: skip


def _moments(strokes: Strokes, size: tuple[int, int], config: GenerateConfig) -> np.ndarray:
    """When the key frames are taken, as parts of painting time."""
    if config.frames_at == "stage":
        return stage_ends(strokes)
    if config.frames_at == "change":
        return even_changes(strokes, size, config.num_frames)
    return np.linspace(0, 1, config.num_frames)


def needs_scene(config: GenerateConfig) -> bool:
    return config.plan != FREE or "scene" in config.format


def stroke_device(device: str) -> str:
    """Where strokes are painted: on the CPU, or on the CUDA device that was named.

    A GPU gives other bytes than a CPU, so `auto` means the CPU. DeviceError for a device that is not here, MissingError
    where torch is not installed.
    """
    return find_device(device) if device.startswith("cuda") else "cpu"


def scene_networks(config: GenerateConfig, weights: Path | None = None) -> SceneNetworks:
    """The networks that `config` means here; none where no scene is needed. Errors of `choose_networks`."""
    return choose_networks(config.scene, config.device, weights) if needs_scene(config) else SceneNetworks()


def identity(
    picture: Picture, canvas: Picture | None, config: GenerateConfig, networks: SceneNetworks
) -> dict[str, Any]:
    """What decides the result: the inputs, the settings, the networks with their device, the version."""
    settings = {name: value for name, value in as_json(config).items() if name not in ("scene", "device")}
    return {
        "tool": "paintproc",
        "version": __version__,
        "input": {"sha256": picture.sha256},
        "canvas": None if canvas is None else {"sha256": canvas.sha256},
        "settings": settings,
        "plan": None if config.plan == FREE else read_plan(config.plan).as_json(),
        "scene": str(networks) if needs_scene(config) else None,
        "painted_on": config.device.partition(":")[0] if config.device.startswith("cuda") else "cpu",
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide the pixels."""
    import importlib.metadata

    names = ("numpy", "numba", "opencv-python-headless", "pillow", "scikit-image", "imageio-ffmpeg")
    return {name: importlib.metadata.version(name) for name in names}


def as_picture(image: Image, max_side: int | None = None) -> Picture:
    """Read or check an image; its longer side is shrunk to `max_side`."""
    if isinstance(image, Picture):
        return shrink_picture(image, max_side)
    if isinstance(image, np.ndarray):
        return picture_from_pixels(image, max_side)
    if isinstance(image, PillowImage):
        return picture_from_image(image, max_side)
    return load_picture(image, max_side=max_side)


def _at_size(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A half-finished canvas at the target's size, float32; its shape must be the target's."""
    import cv2

    own_height, own_width = pixels.shape[:2]
    if abs(own_width * height / own_height - width) > 1 + 0.01 * width:
        raise InputError(
            f"The canvas is {own_width} x {own_height} pixels, another shape than the picture's {width} x {height}.",
            "Crop it to the picture's shape.",
        )
    how = cv2.INTER_AREA if own_height > height else cv2.INTER_CUBIC
    resized = cv2.resize(pixels.astype(np.float32) / 255, (width, height), interpolation=how)
    return np.clip(resized, 0, 1)
