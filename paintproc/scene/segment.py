"""Masks of a picture by Segment Anything; they overlap and nest, and each has a quality.

segment-anything's automatic mask generator (Kirillov et al. 2023, section 5 and appendix B) asks a network for the
masks around each point of a grid. The network is a SAM checkpoint, MobileSAM (Zhang et al. 2023: SAM's decoder with
a TinyViT encoder, here timm's), or SAM 2 (Ravi et al. 2024) as ONNX graphs.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from paintproc.errors import InputError
from paintproc.scene.running import first_line, normalized, open_graph, out_of_memory
from paintproc.stopping import check_stopped

SIDE = 512
"""Longer side in pixels of the picture that is segmented; the networks enlarge it to 1024."""
POINTS = 144
"""Number of points in the grid, about. More points find smaller objects; the time grows with their number."""
MASK_SIDE = 256
"""Longer side of the returned masks in pixels."""
LEAST_IOU = 0.7
"""Masks with a lower predicted IoU are dropped. Lower than the generator's default of 0.88, since the borders in
paintings are soft; doubtful masks get a low quality."""
LEAST_STABILITY = 0.8
"""Masks with a lower stability score are dropped. Lower than the generator's default of 0.95, for the same reason."""
INPUT_SETTINGS = (SIDE, POINTS, MASK_SIDE, LEAST_IOU, LEAST_STABILITY)
"""The settings above; they are part of the cache key, since they change the result."""
NETWORKS = ("mobile-sam", "sam2-tiny", "sam-vit-b", "sam-vit-l", "sam-vit-h")
"""The segmenters, best first on a CPU."""


def segment(picture: np.ndarray, name: str, files: list[Path], device: str) -> tuple[np.ndarray, np.ndarray]:
    """Find masks in `picture`, uint8 [H, W, 3]: bool [K, h, w], largest first, and their quality [K], 0 to 1.

    The longer side of the masks is at most `MASK_SIDE`. `files` are the weights of the network `name`; InputError
    where they belong to another network.
    """
    import torch
    from segment_anything import SamAutomaticMaskGenerator

    picture = _shrunk(picture, SIDE)
    model = load_segmenter(name, tuple(files), device)
    generator = SamAutomaticMaskGenerator(
        _GeneratorModel() if name == "sam2-tiny" else model,
        points_per_side=None,
        point_grids=[_grid(*picture.shape[:2])],
        points_per_batch=16 if device == "cpu" else 64,
        pred_iou_thresh=LEAST_IOU,
        stability_score_thresh=LEAST_STABILITY,
    )
    if name == "sam2-tiny":
        generator.predictor = model
    else:
        # the generator does not look for signals: now it does between two batches of points
        predictor: Any = generator.predictor
        predictor.predict_torch = _stoppable(predictor.predict_torch)
    with torch.inference_mode():
        found = generator.generate(picture)
    found.sort(key=lambda mask: (-mask["area"], mask["bbox"]))
    height, width = _shrunk(picture, MASK_SIDE).shape[:2]
    masks = np.zeros((len(found), height, width), bool)
    for k, mask in enumerate(found):
        check_stopped()
        masks[k] = (
            cv2.resize(mask["segmentation"].astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0.5
        )
    sure = np.array([mask["predicted_iou"] * mask["stability_score"] for mask in found])
    # rounded, since the last digits depend on the number of threads
    return masks, np.round(np.clip((sure - 0.45) / 0.5, 0, 1), 3)


@functools.lru_cache(maxsize=1)
def load_segmenter(name: str, files: tuple[Path, ...], device: str) -> Any:
    """Load the network `name` from `files`. InputError where they hold something else."""
    try:
        if name == "sam2-tiny":
            return _Sam2(*files)
        return _load_sam(name, files[0]).to(device).eval()
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        if out_of_memory(error):
            raise
        raise InputError(f"{files[0]} does not hold {name}: {first_line(error)}") from error


def mobile_sam() -> Any:
    """Build MobileSAM with random weights: TinyViT-5M, then SAM's prompt encoder and mask decoder."""
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
    """Our name for a tensor of the authors' checkpoint; None for the classifier's tensors, which are not used."""
    if not name.startswith("image_encoder.") or name.startswith("image_encoder.neck."):
        return name
    name = name.removeprefix("image_encoder.")
    if name.startswith(("head.", "norm_head.")):
        return None
    name = name.replace("patch_embed.seq.0.", "patch_embed.conv1.").replace("patch_embed.seq.2.", "patch_embed.conv2.")
    name = re.sub(r"\.c\.(weight)$", r".conv.\1", name)
    # timm merges patches at the start of a stage, the authors at the end of the stage before
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


class _GeneratorModel:
    """The attributes that the mask generator reads from a model when it is built; its predictor is replaced later."""

    class image_encoder:
        img_size = 1024

    mask_threshold = 0.0


class _Sam2:
    """SAM 2 with the methods of `SamPredictor` that segment-anything's mask generator calls."""

    device = "cpu"
    model = _GeneratorModel

    def __init__(self, encoder: Path, decoder: Path) -> None:
        self.encoder, self.decoder = open_graph(encoder), open_graph(decoder)
        self.transform = self
        self.features: dict[str, np.ndarray] = {}
        self.size = (0, 0)

    def set_image(self, picture: np.ndarray) -> None:
        self.size = picture.shape[:2]
        square = normalized(cv2.resize(picture, (1024, 1024), interpolation=cv2.INTER_LINEAR))
        names = [output.name for output in self.encoder.get_outputs()]
        self.features = dict(zip(names, self.encoder.run(None, {"image": square}), strict=True))

    def reset_image(self) -> None:
        self.features = {}

    def apply_coords(self, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return points * (1024 / np.array([size[1], size[0]], np.float64))

    def predict_torch(self, points: Any, labels: Any, **_: Any) -> tuple[Any, Any, Any]:
        """Logits [B, 3, H, W] at the picture's size, predicted IoU [B, 3], logits at the network's size."""
        import torch

        check_stopped()
        count = len(points)
        inputs = self.features | {
            "point_coords": points.numpy().astype(np.float32),
            "point_labels": labels.numpy().astype(np.float32),
            "mask_input": np.zeros((count, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }
        coarse, quality = (torch.from_numpy(value) for value in self.decoder.run(None, inputs))
        return torch.nn.functional.interpolate(coarse, self.size, mode="bilinear"), quality, coarse


def _stoppable(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with a look for signals before it runs."""

    def run(*given: Any, **options: Any) -> Any:
        check_stopped()
        return function(*given, **options)

    return run


def _grid(height: int, width: int) -> np.ndarray:
    """About `POINTS` points (x, y) in [0, 1], in pixels equally far apart in both directions: [P, 2]."""
    step = (height * width / POINTS) ** 0.5
    rows, columns = max(1, round(height / step)), max(1, round(width / step))
    y, x = np.mgrid[:rows, :columns]
    return np.stack([(x.ravel() + 0.5) / columns, (y.ravel() + 0.5) / rows], 1)


def _shrunk(picture: np.ndarray, side: int) -> np.ndarray:
    """`picture` with a longer side of at most `side` pixels; a smaller one keeps its size."""
    scale = min(1.0, side / max(picture.shape[:2]))
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
