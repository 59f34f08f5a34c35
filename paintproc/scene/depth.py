"""Depth of every pixel, estimated by a network: 0 is far, 1 is near.

Depth Anything V2 (Yang et al. 2024) was trained on photographs of all kinds. FastDepth (Wofk et al. 2019)
was trained on photographs of rooms alone; `docs/scene.md` shows how it fails on a landscape.
"""

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from paintproc.errors import InputError
from paintproc.scene.running import first_line, normalized, open_graph, out_of_memory

TRUST = {"depth-anything-v2-large": 1.0, "depth-anything-v2-small": 1.0, "fastdepth": 0.13}
"""The networks, best first, and how far each one's depth replaces the built-in cues: 0 not at all, 1 as far
as possible. With a higher value FastDepth makes the order worse; with this one the order stays about as it
is without it (docs/scene.md)."""
SHORT_SIDE = 518
"""Shorter side in pixels of the picture that Depth Anything gets, as its authors published it."""
LONG_SIDE = 1036
"""Longest side in pixels of the picture that Depth Anything gets; a thin picture is shrunk further."""
INPUT_SETTINGS = (SHORT_SIDE, LONG_SIDE)
"""The settings above; they are part of the cache key, since they change the result."""


def find_depth(picture: np.ndarray, name: str, files: list[Path], device: str) -> np.ndarray:
    """Estimate the depth of `picture`, uint8 [H, W, 3]: float32 [h, w], 0 far to 1 near.

    `files` are the weights of the network `name`. InputError where they belong to another network.
    """
    if name == "fastdepth":
        return _scaled(-_fastdepth(picture, files[0]))
    return _scaled(_depth_anything(picture, name, files[0], device))


def depth_anything(name: str) -> Any:
    """Build Depth Anything V2 with random weights. Sizes: Yang et al. 2024, and their published configurations."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    small = name.endswith("small")
    width, layers, heads = (384, 12, 6) if small else (1024, 24, 16)
    stages = (3, 6, 9, 12) if small else (5, 12, 18, 24)
    backbone: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 518,
        "patch_size": 14,
        "out_features": [f"stage{k}" for k in stages],
        "reshape_hidden_states": False,
    }
    config = DepthAnythingConfig(
        backbone_config=Dinov2Config(**backbone),
        reassemble_hidden_size=width,
        neck_hidden_sizes=[48, 96, 192, 384] if small else [256, 512, 1024, 1024],
        fusion_hidden_size=64 if small else 256,
    )
    return DepthAnythingForDepthEstimation(config)


@functools.lru_cache(maxsize=1)
def _load_depth_anything(name: str, file: Path, device: str) -> Any:
    from safetensors.torch import load_file

    model = depth_anything(name)
    try:
        model.load_state_dict(load_file(file))
    except (RuntimeError, ValueError, OSError) as error:
        if out_of_memory(error):
            raise
        raise InputError(f"{file} does not hold {name}: {first_line(error)}") from error
    return model.to(device).eval()


def _depth_anything(picture: np.ndarray, name: str, file: Path, device: str) -> np.ndarray:
    """Estimate inverse depth, float32 [h, w]; both sides of the network's input are multiples of 14 pixels."""
    import torch

    height, width = picture.shape[:2]
    scale = min(SHORT_SIDE / min(height, width), LONG_SIDE / max(height, width))
    size = max(14, round(width * scale / 14) * 14), max(14, round(height * scale / 14) * 14)
    pixels = torch.from_numpy(normalized(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))).to(device)
    with torch.inference_mode():
        return _load_depth_anything(name, file, device)(pixels).predicted_depth[0].float().cpu().numpy()


def _fastdepth(picture: np.ndarray, file: Path) -> np.ndarray:
    """Estimate distance in meters, float32 [224, 224]."""
    graph = open_graph(file)
    pixels = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    name = graph.get_inputs()[0].name
    return graph.run(None, {name: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])})[0][0, 0]


def _scaled(depth: np.ndarray) -> np.ndarray:
    """Map the 2nd percentile to 0 and the 98th to 1; values beyond are clipped."""
    low, high = np.quantile(depth, [0.02, 0.98])
    return np.clip((depth - low) / max(float(high - low), 1e-9), 0, 1).astype(np.float32)
