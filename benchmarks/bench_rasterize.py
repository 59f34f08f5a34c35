"""Milliseconds of the rasterizer, forward and with gradients, by strokes and canvas.

    PAINTPROC_YARDSTICK=... python benchmarks/bench_rasterize.py

The strokes are those of a fitted example. The readable reference draws the same scene; the
prototype of PAINTPROC_YARDSTICK draws it with one color and opacity a stroke.
"""

import os
import sys

import numpy as np
from common import ROOT, as_float, save, seconds, shrunk

from paintproc.strokes.fit import fit
from paintproc.strokes.ops.reference import rasterize_slowly
from paintproc.strokes.rasterize import rasterize, squared_error_gradients


def milliseconds(work, repeats: int = 31) -> float:
    return round(1000 * seconds(work, repeats)["median"], 3)


def yardstick_milliseconds(strokes, canvas: np.ndarray, target: np.ndarray) -> float | None:
    folder = os.environ.get("PAINTPROC_YARDSTICK")
    if not folder:
        return None
    sys.path.insert(0, folder)
    import eng

    side, (height, width) = np.float32(max(canvas.shape)), canvas.shape[:2]
    points, radius = strokes.points * side, strokes.radius * side
    color, alpha = strokes.color[:, 0].copy(), strokes.alpha[:, 0].copy()
    one = np.float32(1)

    def work():
        nodes = eng.flatten(points, radius, 6, width, height)
        offsets, ids = eng.bins(nodes, one, width, height)
        _, rows = eng.render(nodes, color, alpha, offsets, ids, canvas[0, 0], target, width, height, one, True)
        return eng.reduce(rows, ids, len(alpha))

    return milliseconds(work)


def main() -> None:
    results = []
    for side, count in ((256, 500), (512, 500), (512, 1000), (512, 2000), (512, 5000), (1024, 5000)):
        target = as_float(shrunk(ROOT / "examples" / "water-pitcher.jpg", 512))[:512, :448]
        strokes = fit(target, count)
        scale = side // 256
        target = np.ascontiguousarray(np.kron(target, np.ones((1 + scale // 4, 1 + scale // 4, 1), np.float32)))
        target = target[: strokes.canvas_size(side)[0], : strokes.canvas_size(side)[1]]
        canvas = strokes.ground_canvas(*target.shape[:2])
        row = {
            "canvas": list(target.shape[:2]),
            "strokes": count,
            "forward_ms": milliseconds(lambda s=strokes, c=canvas: rasterize(s, c)),
            "forward_and_backward_ms": milliseconds(
                lambda s=strokes, c=canvas, t=target: squared_error_gradients(s, c, t)
            ),
            "yardstick_forward_and_backward_ms": yardstick_milliseconds(strokes, canvas, target),
        }
        if side == 256:
            row["reference_forward_ms"] = milliseconds(lambda s=strokes, c=canvas: rasterize_slowly(s, c), 1)
        results.append(row)
    save("rasterize", results)


if __name__ == "__main__":
    main()
