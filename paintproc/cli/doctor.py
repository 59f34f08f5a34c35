"""`paintproc doctor`: what runs on this machine, and what to install for the rest."""

import importlib.metadata
import importlib.util
import json as encoder
import os
import platform
import sys
from pathlib import Path
from typing import Any

from paintproc.cli.options import JsonTable, Verbose, WeightsDir, plain_exits, print_result
from paintproc.version import __version__

BASE = ("numpy", "numba", "opencv-python-headless", "scikit-image", "pillow", "imageio-ffmpeg", "safetensors")
MODELS = ("torch", "torchvision", "segment-anything", "timm", "transformers", "onnxruntime", "h5py", "diffusers")


def command(weights_dir: WeightsDir = None, json: JsonTable = False, verbose: Verbose = False) -> None:
    """Say what runs on this machine, and what to install for the rest.

    Example: paintproc doctor
    """
    with plain_exits(verbose, quiet=False):
        found = examine(weights_dir)
        if json:
            print_result(encoder.dumps(found))
            return
        for name in ("paintproc", "python", "system", "cores", "memory", "device", "weights folder"):
            print_result(f"{name:<16}{found[name]}")
        for title in ("base", "models"):
            versions = (f"{name} {version or 'missing'}" for name, version in found[title].items())
            print_result(f"{title:<16}{', '.join(versions)}")
        print_result(f"{'weights':<16}{', '.join(found['weights']) or 'none'}")
        print_result("")
        for ability in found["abilities"]:
            mark = "yes" if ability["works"] else "no "
            line = f"{mark} {ability['what']}"
            print_result(line if ability["works"] else f"{line}; for that: {ability['missing']}")


def examine(weights_dir: Path | None) -> dict[str, Any]:
    """What `doctor` says, as plain values."""
    from paintproc.weights.manifest import read_manifest
    from paintproc.weights.store import state, weights_folder

    folder, device = weights_folder(weights_dir), _device()
    states: dict[str, str] = {name: state(weight, folder) for name, weight in read_manifest().items()}
    return {
        "paintproc": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": _memory(),
        "device": device,
        "weights folder": str(folder),
        "base": {name: _version(name) for name in BASE},
        "models": {name: _version(name) for name in MODELS},
        "weights": [
            name if found == "here" else f"{name} ({found})" for name, found in states.items() if found != "missing"
        ],
        "abilities": _abilities(states, torch_works="damaged" not in device),
    }


def _abilities(states: dict[str, str], torch_works: bool) -> list[dict[str, Any]]:
    """What paintproc can do: whether each works, with which weights, and the command that would enable it."""
    from paintproc.scene.networks import EXTRA, FOR_AUTO, SEGMENTERS, lacking_packages

    base = [f"pip install {name}" for name in BASE if _version(name) is None]
    extra = [] if torch_works and not lacking_packages() else [EXTRA]

    def needs(what: str, *names: str) -> dict[str, Any]:
        at_hand = [name for name in names if states[name] == "here"]
        steps = base + extra + ([] if at_hand else [f"paintproc weights get {names[0]}"])
        return {"what": what, "works": not steps, "with": at_hand, "missing": " && ".join(steps)}

    large = [name for name in SEGMENTERS["cpu"] if name not in FOR_AUTO]
    depth = "depth-anything-v2-small", "depth-anything-v2-large"
    untried = " (not yet tried with its own weights)"
    return [
        {"what": "generate: regions by the built-in way", "works": not base, "with": [], "missing": " && ".join(base)},
        needs("generate: regions by Segment Anything", *FOR_AUTO),
        needs("generate --scene networks: what lies behind by MI-GAN", "migan"),
        needs(f"generate --scene networks: regions by the larger SAMs{untried}", *large),
        needs(f"generate --scene networks: order by Depth Anything{untried}", *depth),
    ]


def _device() -> str:
    if importlib.util.find_spec("torch") is None:
        return "cpu (torch is not installed)"
    try:
        import torch
    except Exception as error:
        # an incomplete installation fails in many ways
        return f"cpu (torch is damaged: {error})"
    if not torch.cuda.is_available():
        return "cpu (no CUDA device)"
    facts = torch.cuda.get_device_properties(0)
    return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB (CUDA {torch.version.cuda})"


def _memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
        return f"{kib['MemAvailable'] / 2**20:.1f} of {kib['MemTotal'] / 2**20:.1f} GiB free"
    except (OSError, KeyError, ValueError, IndexError):
        return "not known"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
