"""A short example for every public name, shown in python.md and run by tests/test_docs.py.

Each example stands alone. It finds a picture, `painting.jpg`, in the folder where it runs; `Dataset` finds a finished
dataset folder, `dataset`, there.
"""

EXAMPLES = {
    "Dataset": """
import paintproc

training = paintproc.Dataset("dataset", "train")
print(len(training), "sequences")
for sequence in training:
    print(sequence.info["method"], len(sequence.frames), sequence.captions[-1])
""",
    "find_scene": """
import paintproc

picture = paintproc.load_picture("painting.jpg", max_side=512).pixels
scene = paintproc.find_scene(picture)
nearest = scene.regions == len(scene) - 1  # a mask [H, W]
print(len(scene), "regions; the nearest covers", nearest.mean())
""",
    "fit": """
import numpy as np
import paintproc

picture = paintproc.load_picture("painting.jpg", max_side=512).pixels
target = picture.astype(np.float32) / 255
strokes = paintproc.fit(target, 100, seed=7)
print(strokes.points.shape, strokes.stages)
""",
    "frame_distances": """
import paintproc

picture = paintproc.load_picture("painting.jpg", max_side=512).pixels
darker = picture // 2
print(paintproc.frame_distances(darker, picture)["psnr"])
""",
    "generate": """
import paintproc

config = paintproc.GenerateConfig(size=256, strokes=200, num_frames=6)
sequence = paintproc.generate("painting.jpg", config)
for progress, caption in zip(sequence.progress, sequence.captions):
    print(f"{progress:.0%} {caption}")
""",
    "GenerateConfig": """
import dataclasses
import paintproc

config = paintproc.GenerateConfig(strokes=500, seed=7, format=("frames", "html"))
another = dataclasses.replace(config, seed=8)
""",
    "load_picture": """
import paintproc

picture = paintproc.load_picture("painting.jpg", max_side=512)
print(picture.pixels.shape, picture.pixels.dtype, picture.sha256)
""",
    "load_strokes": """
import paintproc

config = paintproc.GenerateConfig(strokes=200, format=("frames",))
paintproc.save_sequence(paintproc.generate("painting.jpg", config), "with-strokes")
strokes = paintproc.load_strokes("with-strokes/strokes.safetensors")
print(len(strokes), "strokes")
""",
    "PaintingSequence": """
import numpy as np
import paintproc

blank = np.full((48, 64, 3), 255, np.uint8)
half, end = blank - 60, blank - 120
sequence = paintproc.PaintingSequence(
    frames=[blank, half, end],
    progress=np.array([0, 0.5, 1]),
    stages=["blank", "wash", "wash"],
    captions=["a blank canvas", "a light wash", "a darker wash"],
    seconds=np.array([0, 60, 120]),
)
print(len(sequence))
""",
    "PaintprocError": """
import paintproc

try:
    paintproc.load_picture("absent.jpg")
except paintproc.PaintprocError as error:
    print(error.message, error.hint, error.exit_code)
""",
    "rasterize": """
import numpy as np
import paintproc

strokes = paintproc.Strokes(
    points=[[(0.1, 0.5), (0.5, 0.1), (0.9, 0.5)]],
    radius=[(0.05, 0.02)],
    color=[[(0.8, 0.1, 0.1), (0.9, 0.7, 0.1)]],
    alpha=[(1, 1)],
)
picture = paintproc.rasterize(strokes, size=(128, 128))
half_drawn = paintproc.rasterize(strokes, size=(128, 128), reveal=np.array([0.5]))
""",
    "rasterize_gradients": """
import numpy as np
import paintproc

strokes = paintproc.Strokes(
    points=[[(0.1, 0.5), (0.5, 0.1), (0.9, 0.5)]],
    radius=[(0.05, 0.02)],
    color=[[(0.8, 0.1, 0.1), (0.9, 0.7, 0.1)]],
    alpha=[(1, 1)],
)
canvas = np.ones((128, 128, 3), np.float32)
brightness = np.full(canvas.shape, 1 / canvas.size, np.float32)  # the derivative of the picture's mean by each value
picture, gradients = paintproc.rasterize_gradients(strokes, canvas, brightness)
print(picture.mean(), gradients.color)  # how much each color makes the picture brighter
""",
    "save_sequence": """
import paintproc

config = paintproc.GenerateConfig(strokes=200, num_frames=6, format=("frames", "sheet"))
sequence = paintproc.generate("painting.jpg", config)
paintproc.save_sequence(sequence, "painting-process")
""",
    "Scene": """
import paintproc

picture = paintproc.load_picture("painting.jpg", max_side=512).pixels
scene = paintproc.find_scene(picture)
for region in range(len(scene)):
    print(region, scene.depth[region], scene.weight[region], scene.area()[region])
""",
    "squared_error_gradients": """
import numpy as np
import paintproc

picture = paintproc.load_picture("painting.jpg", max_side=512).pixels
target = picture.astype(np.float32) / 255
strokes = paintproc.fit(target, 50)
canvas = strokes.ground_canvas(*target.shape[:2])
painted, gradients = paintproc.squared_error_gradients(strokes, canvas, target)
print("the stroke that helps most:", gradients.removal.argmax())
""",
    "Strokes": """
import numpy as np
import paintproc

strokes = paintproc.Strokes(
    points=np.random.default_rng(0).random((20, 3, 2)),
    radius=np.full((20, 2), 0.02),
    color=np.full((20, 2, 3), 0.3),
    alpha=np.ones((20, 2)),
    ground=np.array([0.96, 0.95, 0.92]),
    aspect=4 / 3,
)
first_half = strokes[:10]
height, width = strokes.canvas_size(longer_side=512)
""",
    "strokes_to_svg": """
from pathlib import Path

import numpy as np
import paintproc

picture = paintproc.load_picture("painting.jpg", max_side=512).pixels
strokes = paintproc.fit(picture.astype(np.float32) / 255, 100)
Path("painting.svg").write_text(paintproc.strokes_to_svg(strokes, 512), encoding="utf-8")
""",
}
