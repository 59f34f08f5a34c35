"""Depth of a picture by a network: 0 far to 1 near.

Depth Anything V2 (Yang et al. 2024) learned from photographs of all kinds; FastDepth (Wofk et al.
2019) from rooms alone, and `docs/scene.md` shows what it makes of a landscape.
"""

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from paintproc.errors import InputError
from paintproc.scene.running import first_line, normalized, open_graph, out_of_memory

TRUST = {"depth-anything-v2-large": 1.0, "depth-anything-v2-small": 1.0, "fastdepth": 0.13}
"""The networks, best first, and how far each is relied on. With more trust than this FastDepth
makes the order worse, with this much it does nothing (docs/scene.md)."""
SHORT_SIDE, LONG_SIDE = 518, 1036
"""What Depth Anything sees: its shorter side, as published, and a bound for thin pictures."""
ASKED = (SHORT_SIDE, LONG_SIDE)


def find_depth(picture: np.ndarray, name: str, files: list[Path], device: str) -> np.ndarray:
    """float32 [h, w], 0 far to 1 near, of `picture`, uint8 [H, W, 3]. InputError for other weights."""
    if name == "fastdepth":
        return _scaled(-_fastdepth(picture, files[0]))
    return _scaled(_depth_anything(picture, name, files[0], device))


def depth_anything(name: str) -> Any:
    """Depth Anything V2 without weights. Sizes: Yang et al. 2024, and their published configurations."""
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
    """Inverse depth at the network's size: sides are multiples of 14."""
    import torch

    height, width = picture.shape[:2]
    scale = min(SHORT_SIDE / min(height, width), LONG_SIDE / max(height, width))
    size = max(14, round(width * scale / 14) * 14), max(14, round(height * scale / 14) * 14)
    pixels = torch.from_numpy(normalized(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))).to(device)
    with torch.inference_mode():
        return _load_depth_anything(name, file, device)(pixels).predicted_depth[0].float().cpu().numpy()


def _fastdepth(picture: np.ndarray, file: Path) -> np.ndarray:
    """Meters [224, 224]."""
    graph = open_graph(file)
    seen = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    name = graph.get_inputs()[0].name
    return graph.run(None, {name: np.ascontiguousarray(seen.transpose(2, 0, 1)[None])})[0][0, 0]


def _scaled(depth: np.ndarray) -> np.ndarray:
    """To 0..1 between the 2nd and the 98th of a hundred."""
    low, high = np.quantile(depth, [0.02, 0.98])
    return np.clip((depth - low) / max(float(high - low), 1e-9), 0, 1).astype(np.float32)
