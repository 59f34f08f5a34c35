"""Choosing the networks that look at a picture, running them, and caching their output.

`choose_networks` turns `--scene` into networks whose weights are on this machine; `observe` runs them.
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
from paintproc.stopping import check_stopped
from paintproc.weights.manifest import named
from paintproc.weights.store import find_weights, missing, state, verify, weights_folder

SEGMENTERS = {
    "cpu": segments.NETWORKS,
    "cuda": ("sam-vit-h", "sam-vit-l", "sam-vit-b", "mobile-sam", "sam2-tiny"),
}
"""Segmenters for each kind of device, best first; the order weighs quality against time on that device."""
FOR_AUTO = ("mobile-sam", "sam2-tiny")
"""Networks that `auto` may choose: they ran here with their own weights, and improved the scenes of paintings.

FastDepth ran and improved nothing. Depth Anything and the larger SAMs never ran here with their own weights. All of
them need `--scene networks` (docs/scene.md).
"""
ON_CPU = ("sam2-tiny", "fastdepth", "migan")
"""Networks that always run on the CPU: they are ONNX graphs."""
PACKAGES = ("torch", "torchvision", "segment_anything", "timm", "transformers", "onnxruntime")
"""What the networks need: the packages of the extra `models`."""
EXTRA = "pip install 'paintproc[models]'"
"""The command that installs them."""
ALTERNATIVE = "--scene builtin works without"
"""End of every hint about something that is missing."""
CACHE_VERSION = "paintproc-seen-1"
"""Part of every cache key; a new value makes all cached output invalid."""

Output = TypeVar("Output")


@dataclass(frozen=True)
class SceneNetworks:
    """Which networks look at a picture. Each is the name of its weights, or None for the built-in method.

    segments  finds masks
    depth     estimates depth
    behind    fills what lies behind nearer regions
    device    cpu, cuda, or cuda:1 and so on
    folder    where the weights are; None for the user's folder
    """

    segments: str | None = None
    depth: str | None = None
    behind: str | None = None
    device: str = "cpu"
    folder: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.segments, self.depth, self.behind) if name)

    def __str__(self) -> str:
        """As the record has it: `builtin`, `mobile-sam`, or `sam-vit-h + depth-anything-v2-small on cuda`."""
        return (" + ".join(self.names) or "builtin") + (" on cuda" if self.device != "cpu" else "")


def choose_networks(
    scene: Literal["auto", "builtin", "networks"], device: str = "auto", folder: Path | None = None
) -> SceneNetworks:
    """Choose networks for `--scene` from those whose weights are in `folder`.

    builtin   no networks
    auto      the best of `FOR_AUTO`; no networks where packages or all of these weights are missing
    networks  the best segmenter, the best depth network, and MI-GAN for what lies behind, each where its weights
              are there; MissingError where packages or every segmenter are missing

    InputError where weights are damaged, MissingError where torch cannot be imported, DeviceError where the
    device does not exist.
    """
    if scene == "builtin":
        return SceneNetworks()
    folder = weights_folder(folder)
    wanted = FOR_AUTO if scene == "auto" else (*SEGMENTERS["cpu"], *depths.TRUST)
    available = {name for name in wanted if _is_installed(name, folder)}
    lacking = lacking_packages()
    if scene == "auto" and (lacking or not available):
        return SceneNetworks()
    if lacking:
        raise MissingError(
            f"--scene networks needs {lacking[0]}, which is not installed.",
            f"Install it with: {EXTRA}; {ALTERNATIVE} it.",
        )
    if scene == "networks" and not available & set(SEGMENTERS["cpu"]):
        raise missing(named("mobile-sam"), folder, f"{ALTERNATIVE} them")
    device = find_device(device)
    segmenter = next((name for name in SEGMENTERS[device.split(":")[0]] if name in available), None)
    depth = next((name for name in depths.TRUST if name in available), None)
    behind = "migan" if scene == "networks" and _is_installed("migan", folder) else None
    networks = SceneNetworks(segmenter, depth, behind, device, folder)
    return networks if set(networks.names) - set(ON_CPU) else SceneNetworks(segmenter, depth, behind, "cpu", folder)


def observe(picture: np.ndarray, networks: SceneNetworks) -> Observation | None:
    """Run the chosen networks on `picture`, uint8 [H, W, 3]; None where no segmenter and no depth is chosen.

    The output is cached in the user's cache folder, so the same picture is looked at once. The sha256 of the
    weights is checked before a network runs: MissingError or InputError where they are absent or damaged.
    DeviceError where memory does not suffice.
    """
    if networks.segments is None and networks.depth is None:
        return None
    masks, quality = np.zeros((0, 1, 1), bool), np.zeros(0)
    depth, trust = None, 0.0
    with plain_memory_errors():
        if networks.segments:
            masks, quality = _segments_of(picture, networks.segments, networks)
        if networks.depth:
            depth, trust = _depth_of(picture, networks.depth, networks), depths.TRUST[networks.depth]
    return Observation(masks, quality, depth, trust, str(networks))


def choose_filler(networks: SceneNetworks) -> Filler:
    """The function that fills the canvas behind nearer regions: MI-GAN where it is chosen, else `fill`."""
    if networks.behind is None:
        return fill
    from paintproc.scene.inpaint import fill_with_migan

    file = _checked_files(networks.behind, networks.folder)[0]

    def fill_behind(picture: np.ndarray, known: np.ndarray) -> np.ndarray:
        with plain_memory_errors():
            return fill_with_migan(picture, known, file)

    return fill_behind


def find_device(device: str) -> str:
    """Resolve `auto` to cuda or cpu, and check that any other device exists.

    DeviceError where it does not, MissingError where torch cannot be imported.
    """
    if device == "cpu":
        return device
    try:
        import torch
    except (ImportError, OSError) as error:
        text = f"torch is installed and cannot be imported: {first_line(error)}."
        raise MissingError(text, f"Install it anew with: {EXTRA}; {ALTERNATIVE} it.") from error

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    index = int(device.partition(":")[2] or 0)
    if not (torch.cuda.is_available() and index < torch.cuda.device_count()):
        raise DeviceError(f"There is no device {device} here.", "Leave --device out, or choose cpu.")
    return device


def lacking_packages() -> list[str]:
    """Which of `PACKAGES` are not installed."""
    return [package for package in PACKAGES if importlib.util.find_spec(package) is None]


def network_versions() -> dict[str, str]:
    """Versions of the installed packages that change the output of networks."""
    lacking = lacking_packages()
    installed = (package for package in PACKAGES if package not in lacking)
    return {package: importlib.metadata.version(package.replace("_", "-")) for package in installed}


def _is_installed(name: str, folder: Path) -> bool:
    """True if the weights are in `folder` and whole; InputError where they are damaged."""
    found = state(named(name), folder)
    if found == "damaged":
        try:
            find_weights(name, folder)
        except InputError as error:
            raise InputError(error.message, f"{error.hint} {ALTERNATIVE} them.") from error
    return found == "here"


@functools.lru_cache(maxsize=8)
def _checked_files(name: str, folder: Path | None) -> list[Path]:
    """The files of these weights. Their sha256 is checked the first time a process asks for them."""
    files = find_weights(name, folder)
    verify(named(name), weights_folder(folder))
    return files


def _segments_of(picture: np.ndarray, name: str, networks: SceneNetworks) -> tuple[np.ndarray, np.ndarray]:
    """Masks and quality as `segment` gives them, from the cache where they are there."""

    def run() -> dict[str, np.ndarray]:
        masks, quality = segments.segment(picture, name, _checked_files(name, networks.folder), networks.device)
        return {"shape": np.array(masks.shape), "masks": np.packbits(masks), "quality": quality}

    def decode(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        shape = tuple(arrays["shape"])
        masks = np.unpackbits(arrays["masks"], count=int(np.prod(shape))).astype(bool).reshape(shape)
        if arrays["quality"].shape != shape[:1]:
            raise ValueError("the number of qualities is not the number of masks")
        return masks, arrays["quality"]

    return _cached(_cache_path(picture, name, networks.device), run, decode)


def _depth_of(picture: np.ndarray, name: str, networks: SceneNetworks) -> np.ndarray:
    """Depth as `find_depth` gives it, from the cache where it is there."""

    def run() -> dict[str, np.ndarray]:
        files = _checked_files(name, networks.folder)
        return {"depth": depths.find_depth(picture, name, files, networks.device)}

    return _cached(_cache_path(picture, name, networks.device), run, lambda arrays: arrays["depth"])


def _cached(
    file: Path,
    run: Callable[[], dict[str, np.ndarray]],
    decode: Callable[[dict[str, np.ndarray]], Output],
) -> Output:
    """Read a network's arrays from the cache `file`, else run the network and write them there; then decode them."""
    check_stopped()
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            return decode(dict(stored))
    except Exception:
        # the file is absent or damaged
        arrays: dict[str, Any] = run()
        check_stopped()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    try:
        with whole_file(file, replace=True) as scratch:
            scratch.write_bytes(buffer.getvalue())
    except OutputError:
        # the cache folder cannot be written: go on without it
        pass
    return decode(arrays)


def _cache_path(picture: np.ndarray, name: str, device: str) -> Path:
    """The cache file for a network's output, named by a digest of all that decides it.

    These are the pixels, the weights, the versions of packages, the device and the network's settings.
    """
    settings = segments.INPUT_SETTINGS if name in segments.NETWORKS else depths.INPUT_SETTINGS
    versions = network_versions()
    digest = hashlib.sha256(f"{CACHE_VERSION} {name} {device} {picture.shape} {settings} {versions}\n".encode())
    for file in named(name).files:
        digest.update((file.sha256 or "").encode())
    digest.update(np.ascontiguousarray(picture).tobytes())
    return cache_home() / "scenes" / f"{digest.hexdigest()}.npz"
