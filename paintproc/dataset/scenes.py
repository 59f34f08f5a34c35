"""A scene as one PNG: the map of parts, uint16 [H, W], and in its text chunk `Scene` what each part belongs to.

regions  the region of each part
depth    of each region, 0 far to 1 near
weight   of each region
method   what found the regions
"""

import json

import numpy as np

from paintproc.errors import InputError
from paintproc.png import decode_png, encode_png
from paintproc.scene.values import Scene

TEXT = "Scene"


def scene_to_png(scene: Scene) -> bytes:
    """The bytes of the PNG. ValueError for more than 65,536 parts."""
    numbers, first, parts = np.unique(scene.parts, return_index=True, return_inverse=True)
    if len(numbers) > 1 << 16:
        raise ValueError(f"a scene of {len(numbers)} parts does not fit 16 bits")
    about = {
        "regions": scene.regions.ravel()[first].tolist(),
        "depth": [round(float(value), 6) for value in scene.depth],
        "weight": [round(float(value), 6) for value in scene.weight],
        "method": scene.method,
    }
    return encode_png(parts.reshape(scene.parts.shape).astype(np.uint16), {TEXT: json.dumps(about)})


def scene_from_png(data: bytes, size: tuple[int, int] | None, name: str) -> Scene:
    """The scene in the bytes of a PNG. InputError, about `name`, if it is damaged or of another size."""
    parts, text = decode_png(data, np.uint16, size, name)
    try:
        about = json.loads(text[TEXT])
        regions = np.array(about["regions"], np.int32)
        return Scene(
            regions[parts],
            parts.astype(np.int32),
            np.array(about["depth"], np.float64),
            np.array(about["weight"], np.float64),
            str(about["method"]),
        )
    except (KeyError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise InputError(f"{name} is no scene: {type(error).__name__} {error}.") from error
