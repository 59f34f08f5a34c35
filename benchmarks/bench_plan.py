"""How believable a plan's order is, and what it costs against the free order.

    PAINTPROC_PAINTINGS=... python benchmarks/bench_plan.py [--plan FILE] [--every N]

Over `famous/` (every N-th painting) and `bench8/`, at 512 pixels and the default number of
strokes; the free order (coarse-to-fine) paints each picture with as many.
"""

import argparse
import itertools
import time

import numpy as np
from common import as_float, pictures, save

from paintproc.config.generate import GenerateConfig
from paintproc.config.plan import Plan, read_plan
from paintproc.metrics.frames import psnr
from paintproc.process.clock import to_uint8
from paintproc.process.judge import judge
from paintproc.process.paint import paint
from paintproc.scene.find import find_scene
from paintproc.scene.values import Scene
from paintproc.strokes.fit import fit
from paintproc.strokes.rasterize import rasterize


def figures(target: np.ndarray, plan: Plan, scene: Scene | None = None) -> dict[str, float]:
    """Every figure of one picture; the scene is the built-in one where none is given."""
    count = GenerateConfig().stroke_count(*target.shape[:2])
    begun = time.perf_counter()
    scene = find_scene(target) if scene is None else scene
    found = time.perf_counter()
    strokes = paint(as_float(target), count, plan, scene)
    painted = time.perf_counter()
    free = fit(as_float(target), count)
    freely = time.perf_counter()
    judged = judge(strokes, scene, target, plan.behind).as_json()
    widths = [width for stage, width in judged.pop("width").items()]
    times = judged.pop("stage_time")
    short = {stage.name for stage in plan.stage if stage.role in ("ground", "lights")}
    whole = [value for stage, value in times.items() if stage not in short]
    return {
        **judged,
        "cost_db": psnr(to_uint8(rasterize(free, size=target.shape[:2])), target) - judged["psnr"],
        "coarse_to_fine": float(all(a > b for a, b in itertools.pairwise(widths))),
        "stage_times_within_bounds": float(min(whole) >= 0.05 and max(whole) <= 0.5),
        **{f"time_{stage}": value for stage, value in times.items()},
        "regions": len(scene),
        "scene_seconds": found - begun,
        "paint_seconds": painted - found,
        "free_seconds": freely - painted,
    }


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    names = rows[0]
    table = {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names}
    return {
        name: {
            "mean": round(float(np.nanmean(values)), 4),
            "worst": round(float((np.nanmax if name in ("cost_db", "ghost") else np.nanmin)(values)), 4),
        }
        for name, values in table.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan", default="human")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    plan = read_plan(arguments.plan)
    results = {"plan": plan.name}
    warm = next(iter(pictures("bench8").values()))
    figures(warm, plan)
    for name in ("bench8", "famous"):
        targets = list(pictures(name).values())[:: arguments.every if name == "famous" else 1]
        rows = [figures(target, plan) for target in targets]
        results[name] = {"pictures": len(rows), **summary(rows)}
    save("plan", results)


if __name__ == "__main__":
    main()
