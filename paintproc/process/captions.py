"""What happened on the canvas, in plain words."""

import numpy as np

from paintproc.process.clock import stage_at
from paintproc.strokes.values import Strokes

WORDS = {
    "block-in": "block in the big shapes",
    "development": "develop the shapes with medium strokes",
    "detail": "work out the details with small strokes",
}


def captions(strokes: Strokes, moments: np.ndarray) -> list[str]:
    """One short sentence a moment (part of painting time): what was done to get there."""
    toned = strokes.ground.ndim == 1
    first = "tone the ground in the picture's mean color" if toned else "take up the begun canvas"
    return [first, *(WORDS[stage_at(strokes, moment)] if len(strokes) else first for moment in moments[1:])]
