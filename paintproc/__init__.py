"""paintproc: how a picture could have been painted.

import paintproc

sequence = paintproc.generate("examples/wheat-field.jpg")
paintproc.save_sequence(sequence, "wheat-field-process")
"""

import importlib
from typing import Any

_HOMES = {
    "Dataset": "paintproc.dataset",
    "GenerateConfig": "paintproc.config.generate",
    "PaintingSequence": "paintproc.sequence",
    "PaintprocError": "paintproc.errors",
    "Scene": "paintproc.scene.values",
    "Strokes": "paintproc.strokes.values",
    "find_scene": "paintproc.scene.find",
    "fit": "paintproc.strokes.fit",
    "frame_distances": "paintproc.metrics.frames",
    "generate": "paintproc.process.generate",
    "load_picture": "paintproc.media",
    "load_strokes": "paintproc.strokes.values",
    "rasterize": "paintproc.strokes.rasterize",
    "rasterize_gradients": "paintproc.strokes.rasterize",
    "save_sequence": "paintproc.process.folder",
    "squared_error_gradients": "paintproc.strokes.rasterize",
    "strokes_to_svg": "paintproc.strokes.svg",
    "__version__": "paintproc.version",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'paintproc' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOMES)
