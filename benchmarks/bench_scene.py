"""Scenes by networks against the built-in ones: points read by eye, and the figures of the human plan.

    PAINTPROC_PAINTINGS=... [PAINTPROC_WEIGHTS=...] python benchmarks/bench_scene.py [--plan] [--only METHOD]...

For points on 40 paintings (`scene_points.json`):
together  points on one thing that lie in one region
apart     points on things of different levels that lie in different regions
order     of those, how many are put in the right order; what is painted first is far
"""

import argparse
import dataclasses
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_plan import figures
from common import pictures, save

from paintproc.config.plan import read_plan
from paintproc.scene.find import find_scene
from paintproc.scene.networks import SceneNetworks, observe
from paintproc.scene.values import Scene
from paintproc.weights.store import weights_folder

WEIGHTS = weights_folder()
METHODS = {
    "builtin": SceneNetworks(),
    "mobile-sam": SceneNetworks("mobile-sam", folder=WEIGHTS),
    "sam2-tiny": SceneNetworks("sam2-tiny", folder=WEIGHTS),
    "mobile-sam + fastdepth": SceneNetworks("mobile-sam", "fastdepth", folder=WEIGHTS),
    "mobile-sam + fastdepth, fully trusted": SceneNetworks("mobile-sam", "fastdepth", folder=WEIGHTS),
}
TIMED = 6
POINTS = json.loads(Path(__file__).with_name("scene_points.json").read_text())["paintings"]


def judge(scene: Scene, levels: list) -> dict[str, list[bool]]:
    """What holds of each pair of points."""
    height, width = scene.regions.shape
    found: dict[str, list[bool]] = {"together": [], "apart": [], "order": []}

    def region(point: list[float]) -> int:
        return int(scene.regions[min(height - 1, int(point[1] * height)), min(width - 1, int(point[0] * width))])

    for level in levels:
        for thing in level:
            found["together"] += [region(a) == region(b) for a, b in itertools.combinations(thing, 2)]
    for far, near in itertools.combinations(levels, 2):
        for thing, other in itertools.product(far, near):
            for a, b in itertools.product(thing, other):
                found["apart"].append(region(a) != region(b))
                if region(a) != region(b):
                    found["order"].append(region(a) < region(b))
    return found


def measure(targets: dict[str, np.ndarray], choice: SceneNetworks, plan: bool, trusted: bool) -> dict:
    pairs: dict[str, list[bool]] = {"together": [], "apart": [], "order": []}
    counts, judged = [], []
    for index, (name, target) in enumerate(targets.items()):
        observation = observe(target, choice)
        if trusted and observation is not None:
            observation = dataclasses.replace(observation, trust=1.0)
        scene = find_scene(target, observation)
        counts.append(len(scene))
        for kind, values in judge(scene, POINTS[name]).items():
            pairs[kind] += values
        if plan and index % 2 == 0:
            judged.append(figures(target, read_plan("human"), scene))
        print(f"{choice}: {name}, {len(scene)} regions", file=sys.stderr)
    result = {kind: round(float(np.mean(values)), 3) for kind, values in pairs.items()}
    result |= {"regions": round(float(np.mean(counts)), 1)}
    seconds = timed(list(targets.values())[:TIMED], choice)
    result |= {"seconds_median": round(float(np.median(seconds)), 2), "seconds_worst": round(max(seconds), 1)}
    if judged:
        result["plan"] = {key: round(float(np.mean([row[key] for row in judged])), 3) for key in judged[0]}
    return result | {"pairs": {kind: len(values) for kind, values in pairs.items()}}


def timed(targets: list[np.ndarray], choice: SceneNetworks) -> list[float]:
    """Seconds a picture where nothing is kept from before; the networks are loaded already."""
    home, seconds = os.environ.get("XDG_CACHE_HOME"), []
    with tempfile.TemporaryDirectory() as empty:
        os.environ["XDG_CACHE_HOME"] = empty
        for target in [np.zeros_like(targets[0]), *targets]:
            begun = time.perf_counter()
            find_scene(target, observe(target, choice))
            seconds.append(time.perf_counter() - begun)
    os.environ.pop("XDG_CACHE_HOME")
    if home:
        os.environ["XDG_CACHE_HOME"] = home
    return seconds[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--plan", action="store_true", help="also the figures of the human plan, for every second painting"
    )
    parser.add_argument("--only", action="append", choices=METHODS, help="measure only this; nothing is saved")
    arguments = parser.parse_args()
    found = pictures("famous")
    targets = {name: found[name] for name in POINTS if name in found}
    results = {}
    for name in arguments.only or METHODS:
        results[name] = measure(targets, METHODS[name], arguments.plan and "fastdepth" not in name, "trusted" in name)
        print(name, results[name])
    if not arguments.only:
        save("scene", {"pictures": len(targets), "methods": results})


if __name__ == "__main__":
    main()
