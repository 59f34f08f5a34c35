"""Segments of a picture by Segment Anything: masks that overlap and nest, each with its quality.

One generator for all: segment-anything's automatic mask generator (Kirillov et al. 2023, section 5
and appendix B) asks about a grid of points. Behind it stands a SAM checkpoint, MobileSAM (Zhang et
al. 2023: the same decoder behind a TinyViT, here timm's), or SAM 2 (Ravi et al. 2024) as ONNX.
"""

import functools
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from paintproc.errors import InputError
from paintproc.scene.running import first_line, normalized, open_graph, out_of_memory

SIDE = 512
"""The picture is looked at with this longer side; the networks enlarge it to 1024."""
POINTS = 144
"""Points asked about: more finds smaller things, and takes as much longer."""
KEPT_SIDE = 256
LEAST_IOU, LEAST_STABILITY = 0.7, 0.8
"""Lower than the generator's own: paintings have soft borders, and doubtful masks count for less."""
ASKED = (SIDE, POINTS, KEPT_SIDE, LEAST_IOU, LEAST_STABILITY)
NETWORKS = ("mobile-sam", "sam2-tiny", "sam-vit-b", "sam-vit-l", "sam-vit-h")


def segment(picture: np.ndarray, name: str, files: list[Path], device: str) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool [K, h, w], at most 256 on the longer side, and quality [K] of `picture`, uint8 [H, W, 3].

    `files` are the weights `name`. InputError where they are not those of this network.
    """
    import torch
    from segment_anything import SamAutomaticMaskGenerator

    picture = _shrunk(picture, SIDE)
    model = load_segmenter(name, tuple(files), device)
    generator = SamAutomaticMaskGenerator(
        _Stand() if name == "sam2-tiny" else model,
        points_per_side=None,
        point_grids=[_grid(*picture.shape[:2])],
        points_per_batch=16 if device == "cpu" else 64,
        pred_iou_thresh=LEAST_IOU,
        stability_score_thresh=LEAST_STABILITY,
    )
    if name == "sam2-tiny":
        generator.predictor = model
    with torch.inference_mode():
        found = generator.generate(picture)
    found.sort(key=lambda mask: (-mask["area"], mask["bbox"]))
    height, width = _shrunk(picture, KEPT_SIDE).shape[:2]
    masks = np.zeros((len(found), height, width), bool)
    for k, mask in enumerate(found):
        masks[k] = (
            cv2.resize(mask["segmentation"].astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0.5
        )
    sure = np.array([mask["predicted_iou"] * mask["stability_score"] for mask in found])
    # rounded: the last digits depend on the number of threads
    return masks, np.round(np.clip((sure - 0.45) / 0.5, 0, 1), 3)


@functools.lru_cache(maxsize=1)
def load_segmenter(name: str, files: tuple[Path, ...], device: str) -> Any:
    """The network, ready to look. InputError where the files hold something else."""
    try:
        if name == "sam2-tiny":
            return _Sam2(*files)
        return _load_sam(name, files[0]).to(device).eval()
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        if out_of_memory(error):
            raise
        raise InputError(f"{files[0]} does not hold {name}: {first_line(error)}") from error


def mobile_sam() -> Any:
    """MobileSAM without weights: SAM's prompt encoder and mask decoder behind TinyViT-5M."""
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    return Sam(
        image_encoder=_tiny_encoder(),
        prompt_encoder=PromptEncoder(
            embed_dim=256, image_embedding_size=(64, 64), input_image_size=(1024, 1024), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
            transformer_dim=256,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )


def mobile_sam_names(name: str) -> str | None:
    """Our name of a tensor of the authors' checkpoint; None for the classifier, which is not used."""
    if not name.startswith("image_encoder.") or name.startswith("image_encoder.neck."):
        return name
    name = name.removeprefix("image_encoder.")
    if name.startswith(("head.", "norm_head.")):
        return None
    name = name.replace("patch_embed.seq.0.", "patch_embed.conv1.").replace("patch_embed.seq.2.", "patch_embed.conv2.")
    name = re.sub(r"\.c\.(weight)$", r".conv.\1", name)
    # timm puts the merging of patches at the start of a stage, the authors at the end of the one before
    name = re.sub(r"^layers\.(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name)
    return "image_encoder.trunk." + name.replace("layers.", "stages.", 1)


def _load_sam(name: str, file: Path) -> Any:
    from safetensors.torch import load_file
    from segment_anything import sam_model_registry

    tensors = load_file(file)
    if name == "mobile-sam":
        model = mobile_sam()
        tensors = {ours: value for key, value in tensors.items() if (ours := mobile_sam_names(key))}
    else:
        model = sam_model_registry[name.removeprefix("sam-").replace("-", "_")]()
    model.load_state_dict(tensors)
    return model


def _tiny_encoder() -> Any:
    import timm
    from segment_anything.modeling.common import LayerNorm2d
    from torch import nn

    class TinyEncoder(nn.Module):
        """float32 [B, 3, 1024, 1024] to [B, 256, 64, 64]."""

        img_size = 1024

        def __init__(self) -> None:
            super().__init__()
            trunk: Any = timm.create_model("tiny_vit_5m_224", num_classes=0)
            trunk.stages[3].downsample.conv2.conv.stride = (1, 1)
            trunk.head = nn.Identity()
            self.trunk = trunk
            self.neck = nn.Sequential(
                nn.Conv2d(320, 256, 1, bias=False),
                LayerNorm2d(256),
                nn.Conv2d(256, 256, 3, padding=1, bias=False),
                LayerNorm2d(256),
            )

        def forward(self, picture: Any) -> Any:
            return self.neck(self.trunk(picture))

    return TinyEncoder()


class _Stand:
    """What the mask generator wants to know of a network before it is given another predictor."""

    class image_encoder:
        img_size = 1024

    mask_threshold = 0.0


class _Sam2:
    """SAM 2 behind segment-anything's generator: the part of `SamPredictor` that it calls."""

    device = "cpu"
    model = _Stand

    def __init__(self, encoder: Path, decoder: Path) -> None:
        self.encoder, self.decoder = open_graph(encoder), open_graph(decoder)
        self.transform = self
        self.seen: dict[str, np.ndarray] = {}
        self.size = (0, 0)

    def set_image(self, picture: np.ndarray) -> None:
        self.size = picture.shape[:2]
        square = normalized(cv2.resize(picture, (1024, 1024), interpolation=cv2.INTER_LINEAR))
        names = [output.name for output in self.encoder.get_outputs()]
        self.seen = dict(zip(names, self.encoder.run(None, {"image": square}), strict=True))

    def reset_image(self) -> None:
        self.seen = {}

    def apply_coords(self, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return points * (1024 / np.array([size[1], size[0]], np.float64))

    def predict_torch(self, points: Any, labels: Any, **_: Any) -> tuple[Any, Any, Any]:
        """Logits [B, 3, H, W] at the picture's size, predicted IoU [B, 3], logits as they came."""
        import torch

        count = len(points)
        asked = self.seen | {
            "point_coords": points.numpy().astype(np.float32),
            "point_labels": labels.numpy().astype(np.float32),
            "mask_input": np.zeros((count, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }
        coarse, quality = (torch.from_numpy(value) for value in self.decoder.run(None, asked))
        return torch.nn.functional.interpolate(coarse, self.size, mode="bilinear"), quality, coarse


def _grid(height: int, width: int) -> np.ndarray:
    """About `POINTS` points (x, y) in 0..1, as far apart in both directions."""
    step = (height * width / POINTS) ** 0.5
    rows, columns = max(1, round(height / step)), max(1, round(width / step))
    y, x = np.mgrid[:rows, :columns]
    return np.stack([(x.ravel() + 0.5) / columns, (y.ravel() + 0.5) / rows], 1)


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    scale = min(1.0, side / max(picture.shape[:2]))
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
