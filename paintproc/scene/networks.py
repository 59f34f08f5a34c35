"""Which networks look at a picture, and what they saw, kept by content.

`choose_networks` says what `--scene` means with the weights at hand; `observe` asks the networks.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from paintproc.errors import DeviceError, InputError, MissingError, OutputError
from paintproc.files import cache_home, whole_file
from paintproc.scene import depth as depths
from paintproc.scene import segment as segments
from paintproc.scene.layers import Filler, fill
from paintproc.scene.running import first_line, plain_memory_errors
from paintproc.scene.values import Observation
from paintproc.weights.manifest import named
from paintproc.weights.store import find_weights, missing, state, verify, weights_folder

SEGMENTERS = {
    "cpu": segments.NETWORKS,
    "cuda": ("sam-vit-h", "sam-vit-l", "sam-vit-b", "mobile-sam", "sam2-tiny"),
}
"""Best first: what is seen, and what it costs there."""
TRUSTED_DEPTH = tuple(name for name, trust in depths.TRUST.items() if trust > 0.5)
"""What `auto` takes: FastDepth does paintings no good (docs/scene.md)."""
ON_CPU = ("sam2-tiny", "fastdepth", "migan")
"""ONNX graphs, whatever the device."""
PACKAGES = ("torch", "torchvision", "segment_anything", "timm", "transformers", "onnxruntime")
EXTRA = "pip install 'paintproc[models]'"
INSTEAD = "--scene builtin works without"
SEEN = "paintproc-seen-1"

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class SceneNetworks:
    """Networks by the names of their weights, None where the built-in way is taken; cpu or cuda[:n]; their folder."""

    segments: str | None = None
    depth: str | None = None
    behind: str | None = None
    device: str = "cpu"
    folder: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.segments, self.depth, self.behind) if name)

    def __str__(self) -> str:
        """For the record: `builtin`, or `mobile-sam`, or `sam-vit-h + depth-anything-v2-small on cuda`."""
        return (" + ".join(self.names) or "builtin") + (" on cuda" if self.device != "cpu" else "")


def choose_networks(
    scene: Literal["auto", "builtin", "networks"], device: str = "auto", folder: Path | None = None
) -> SceneNetworks:
    """What `--scene` means here.

    auto      segments by the best network at hand, order by Depth Anything where it is at hand; the
              built-in way where weights or packages are missing
    networks  the same, FastDepth where no other depth is at hand, and MI-GAN for what lies behind;
              MissingError where there is no segmenter

    InputError where weights are damaged, MissingError where torch is, DeviceError for a missing device.
    """
    if scene == "builtin":
        return SceneNetworks()
    folder = weights_folder(folder)
    wanted = tuple(depths.TRUST) if scene == "networks" else TRUSTED_DEPTH
    at_hand = {name for name in (*SEGMENTERS["cpu"], *wanted) if _at_hand(name, folder)}
    lacking = lacking_packages()
    if scene == "auto" and (lacking or not at_hand):
        return SceneNetworks()
    if lacking:
        raise MissingError(
            f"--scene networks needs {lacking[0]}, which is not installed.", f"Install it with: {EXTRA}; {INSTEAD} it."
        )
    if scene == "networks" and not at_hand & set(SEGMENTERS["cpu"]):
        raise missing(named("mobile-sam"), folder, f"{INSTEAD} them")
    device = find_device(device)
    segmenter = next((name for name in SEGMENTERS[device.split(":")[0]] if name in at_hand), None)
    depth = next((name for name in wanted if name in at_hand), None)
    behind = "migan" if scene == "networks" and _at_hand("migan", folder) else None
    networks = SceneNetworks(segmenter, depth, behind, device, folder)
    return networks if set(networks.names) - set(ON_CPU) else SceneNetworks(segmenter, depth, behind, "cpu", folder)


def observe(picture: np.ndarray, networks: SceneNetworks) -> Observation | None:
    """What the chosen networks see in `picture`, uint8 [H, W, 3]; None where none is chosen.

    Kept in the user's cache folder by picture and networks. Weights are checked byte by byte before
    a network is asked: MissingError, InputError. DeviceError where memory does not suffice.
    """
    if networks.segments is None and networks.depth is None:
        return None
    masks, quality, depth, trust = np.zeros((0, 1, 1), bool), np.zeros(0), None, 0.0
    with plain_memory_errors():
        if networks.segments:
            masks, quality = _see_segments(picture, networks.segments, networks)
        if networks.depth:
            depth, trust = _see_depth(picture, networks.depth, networks), depths.TRUST[networks.depth]
    return Observation(masks, quality, depth, trust, str(networks))


def choose_filler(networks: SceneNetworks) -> Filler:
    """What makes up the canvas behind nearer things."""
    if networks.behind is None:
        return fill
    from paintproc.scene.inpaint import fill_with_migan

    file = _checked_files(networks.behind, networks.folder)[0]

    def fill_behind(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
        with plain_memory_errors():
            return fill_with_migan(picture, known, file)

    return fill_behind


def find_device(device: str) -> str:
    """auto, cpu, cuda or cuda:<n> as cpu or cuda[:n]. DeviceError where there is no such device."""
    if device == "cpu":
        return device
    try:
        import torch
    except (ImportError, OSError) as error:
        text = f"torch is installed and cannot be imported: {first_line(error)}."
        raise MissingError(text, f"Install it anew with: {EXTRA}; {INSTEAD} it.") from error

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    index = int(device.partition(":")[2] or 0)
    if not (torch.cuda.is_available() and index < torch.cuda.device_count()):
        raise DeviceError(f"There is no device {device} here.", "Leave --device out, or choose cpu.")
    return device


def lacking_packages() -> list[str]:
    """Packages of the extra `models` that networks need and that are not installed."""
    return [package for package in PACKAGES if importlib.util.find_spec(package) is None]


def network_versions() -> dict[str, str]:
    """Versions of the packages that decide what networks see."""
    lacking = lacking_packages()
    there = (package for package in PACKAGES if package not in lacking)
    return {package: importlib.metadata.version(package.replace("_", "-")) for package in there}


def _at_hand(name: str, folder: Path) -> bool:
    """Whether weights are here. InputError where they are damaged."""
    found = state(named(name), folder)
    if found == "damaged":
        try:
            find_weights(name, folder)
        except InputError as error:
            raise InputError(error.message, f"{error.hint} {INSTEAD} them.") from error
    return found == "here"


@functools.lru_cache(maxsize=8)
def _checked_files(name: str, folder: Path | None) -> list[Path]:
    """The files of weights, every byte of which was read once in this process."""
    files = find_weights(name, folder)
    verify(named(name), weights_folder(folder))
    return files


def _see_segments(picture: np.ndarray, name: str, networks: SceneNetworks) -> tuple[np.ndarray, np.ndarray]:
    def ask() -> dict[str, np.ndarray]:
        masks, quality = segments.segment(picture, name, _checked_files(name, networks.folder), networks.device)
        return {"shape": np.array(masks.shape), "masks": np.packbits(masks), "quality": quality}

    def read(seen: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        shape = tuple(seen["shape"])
        masks = np.unpackbits(seen["masks"], count=int(np.prod(shape))).astype(bool).reshape(shape)
        if seen["quality"].shape != shape[:1]:
            raise ValueError("not as many qualities as masks")
        return masks, seen["quality"]

    return _kept(_place(picture, name, networks.device), ask, read)


def _see_depth(picture: np.ndarray, name: str, networks: SceneNetworks) -> np.ndarray:
    def ask() -> dict[str, np.ndarray]:
        files = _checked_files(name, networks.folder)
        return {"depth": depths.find_depth(picture, name, files, networks.device)}

    return _kept(_place(picture, name, networks.device), ask, lambda seen: seen["depth"])


def _kept(place: Path, ask: Callable[[], dict[str, np.ndarray]], read: Callable[[dict[str, np.ndarray]], Seen]) -> Seen:
    """What one network saw in a picture: kept from before, or asked now and kept."""
    try:
        with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as kept:
            return read(dict(kept))
    except Exception:
        # absent or damaged: the network looks again
        arrays: dict[str, Any] = ask()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    try:
        with whole_file(place, replace=True) as scratch:
            scratch.write_bytes(buffer.getvalue())
    except OutputError:
        # a cache that cannot be written is done without
        pass
    return read(arrays)


def _place(picture: np.ndarray, name: str, device: str) -> Path:
    """Where what a network saw is kept: named by the pixels, the weights, the packages and how it is asked."""
    asked = segments.ASKED if name in segments.NETWORKS else depths.ASKED
    digest = hashlib.sha256(f"{SEEN} {name} {device} {picture.shape} {asked} {network_versions()}\n".encode())
    for file in named(name).files:
        digest.update(file.sha256.encode())
    digest.update(np.ascontiguousarray(picture).tobytes())
    return cache_home() / "scenes" / f"{digest.hexdigest()}.npz"
