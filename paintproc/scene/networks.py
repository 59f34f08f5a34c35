"""Which networks look at a picture, and what they saw, kept by content.

`choose` says what `--scene` means with the weights at hand; `look` asks the networks.
"""

import functools
import hashlib
import importlib.util
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from paintproc.errors import DeviceError, MissingError, OutputError, UsageError
from paintproc.files import whole_file
from paintproc.scene import depth as depths
from paintproc.scene import segment as segments
from paintproc.scene.layers import Filler, fill
from paintproc.scene.values import Sight
from paintproc.weights.manifest import named
from paintproc.weights.store import find_weights, missing, state, weights_folder

SEGMENTERS = {"cpu": ("mobile-sam", "sam2-tiny", "sam-vit-b", "sam-vit-l", "sam-vit-h"),
              "cuda": ("sam-vit-h", "sam-vit-l", "sam-vit-b", "mobile-sam", "sam2-tiny")}  # fmt: skip
TRUSTED_DEPTH = tuple(name for name, trust in depths.TRUST.items() if trust > 0.5)
"""What `auto` takes: FastDepth does paintings no good (docs/scene.md)."""
PACKAGES = ("torch", "torchvision", "segment_anything", "timm", "transformers", "onnxruntime")
EXTRA = "pip install 'paintproc[models]'"
SEEN = "paintproc-sight-1"


@dataclass(frozen=True)
class Choice:
    """Networks by the names of their weights, None where the built-in way is taken; cpu or cuda[:n]."""

    segments: str | None = None
    depth: str | None = None
    behind: str | None = None
    device: str = "cpu"

    def __str__(self) -> str:
        """For the record: `builtin`, or `mobile-sam`, or `sam-vit-h + depth-anything-v2-small on cuda`."""
        found = " + ".join(name for name in (self.segments, self.depth, self.behind) if name)
        return (found or "builtin") + (" on cuda" if found and self.device != "cpu" else "")


def choose(scene: Literal["auto", "builtin", "networks"], device: str = "auto", folder: Path | None = None) -> Choice:
    """What `--scene` means here.

    auto      networks whose weights and packages are at hand and that are better than the built-in way
    networks  the same, FastDepth where no other depth is at hand, and MI-GAN for what lies behind;
              MissingError where there are none
    """
    folder = weights_folder(folder)
    lacking = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if scene == "builtin" or (scene == "auto" and (lacking or not _any_at_hand(folder))):
        return Choice()
    if lacking:
        raise MissingError(
            f"--scene networks needs {lacking[0]}, which is not installed.",
            f"Install it with: {EXTRA}; --scene builtin works without it.",
        )
    if not _any_at_hand(folder):
        raise missing(named("mobile-sam"), folder, "--scene builtin works without them")
    device = find_device(device)
    segmenter = next((name for name in SEGMENTERS[device.split(":")[0]] if state(named(name), folder) == "here"), None)
    wanted = tuple(depths.TRUST) if scene == "networks" else TRUSTED_DEPTH
    depth = next((name for name in wanted if state(named(name), folder) == "here"), None)
    if segmenter is None:
        # depth alone is at hand: regions are found by the built-in way
        return Choice(depth=depth, device=device) if depth else Choice()
    behind = "migan" if scene == "networks" and state(named("migan"), folder) == "here" else None
    return Choice(segmenter, depth, behind, device)


def look(picture: np.ndarray, choice: Choice, folder: Path | None = None) -> Sight | None:
    """What the chosen networks see in `picture`, uint8 [H, W, 3]; None where none is chosen.

    Kept in the user's cache folder by picture and networks. MissingError, InputError for weights,
    DeviceError where memory does not suffice.
    """
    if choice.segments is None and choice.depth is None:
        return None
    masks, quality, depth, trust = np.zeros((0, 1, 1), bool), np.zeros(0), None, 0.0
    try:
        if choice.segments:
            masks, quality = _see_segments(picture, choice.segments, choice.device, folder)
        if choice.depth:
            depth, trust = _see_depth(picture, choice.depth, choice.device, folder), depths.TRUST[choice.depth]
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise DeviceError("Out of memory while networks looked at the picture.", "Try --scene builtin.") from error
    return Sight(masks, quality, depth, trust, str(choice))


def _see_segments(picture: np.ndarray, name: str, device: str, folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    files = find_weights(name, folder)

    def ask() -> dict[str, np.ndarray]:
        masks, quality = segments.segment(picture, name, files, device)
        return {"shape": np.array(masks.shape), "masks": np.packbits(masks), "quality": quality}

    seen = _kept(picture, name, device, ask)
    shape = tuple(seen["shape"])
    masks = np.unpackbits(seen["masks"], count=int(np.prod(shape))).astype(bool).reshape(shape)
    return masks, seen["quality"]


def _see_depth(picture: np.ndarray, name: str, device: str, folder: Path | None) -> np.ndarray:
    files = find_weights(name, folder)
    return _kept(picture, name, device, lambda: {"depth": depths.find_depth(picture, name, files, device)})["depth"]


def choose_filler(choice: Choice, folder: Path | None = None) -> Filler:
    """What makes up the canvas behind nearer things."""
    if choice.behind is None:
        return fill
    from paintproc.scene.inpaint import fill_with_migan

    return functools.partial(fill_with_migan, file=find_weights(choice.behind, folder)[0])


def find_device(device: str) -> str:
    """auto, cpu, cuda or cuda:<n> as cpu or cuda[:n]. DeviceError where there is no such device."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise UsageError(f"--device is {device!r}.", "Choose auto, cpu, cuda or cuda:0.")
    if kind == "cuda" and not (torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count()):
        raise DeviceError(f"There is no device {device} here.", "Leave --device out, or choose cpu.")
    return "cpu" if kind == "cpu" else device


def _any_at_hand(folder: Path) -> bool:
    return any(state(named(name), folder) == "here" for name in (*segments.NETWORKS, *TRUSTED_DEPTH))


def _kept(
    picture: np.ndarray, name: str, device: str, ask: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What one network saw in a picture: kept from before, or asked now and kept."""
    place = _place(picture, name, device)
    try:
        with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as kept:
            return dict(kept)
    except Exception:
        # absent or damaged: the network looks again
        seen = ask()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **seen)
    try:
        with whole_file(place, replace=True) as scratch:
            scratch.write_bytes(buffer.getvalue())
    except OutputError:
        # a cache that cannot be written is done without
        pass
    return seen


def _place(picture: np.ndarray, name: str, device: str) -> Path:
    """Where what a network saw is kept: named by the picture's pixels, the weights and how they are asked."""
    digest = hashlib.sha256(f"{SEEN} {name} {device} {picture.shape}\n".encode())
    digest.update(f"{segments.SIDE} {segments.POINTS} {segments.LEAST_IOU} {segments.LEAST_STABILITY}\n".encode())
    for file in named(name).files:
        digest.update(file.sha256.encode())
    digest.update(np.ascontiguousarray(picture).tobytes())
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home, "paintproc", "scenes", f"{digest.hexdigest()}.npz").expanduser()
