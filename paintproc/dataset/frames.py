"""A dataset's sequences as tensors, for training: `Dataset(...).frames(...)`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from paintproc.dataset.items import StoredItem
from paintproc.errors import InputError, MissingError, UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader

    from paintproc.dataset.read import Dataset


@dataclass(frozen=True)
class Augment:
    """Random changes to a sequence, the same for all its frames, its picture and its masks.

    flip     half of the sequences are mirrored, left to right
    crop     the smallest part of a side that is kept, (0, 1]; how much, and where, is random
    moments  the frames between the first and the last are random ones, not evenly chosen
    """

    flip: bool = False
    crop: float = 1.0
    moments: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise UsageError(f"crop is {self.crop}.", "It is the part of a side that is kept: above 0, at most 1.")


class Frames:
    """The sequences of a dataset as dicts of tensors. What torch calls a map-style dataset.

    frames    float32 [F, 3, H, W] in [0, 1], F = `num_frames`; the first and the last frame are among them
    progress  float32 [F], from 0 to 1
    seconds   float32 [F], painting time passed
    masks     float32 [F, 1, H, W], 1 where paint was laid since the frame before; None where they are not known
    picture   float32 [3, H, W] in [0, 1]; None where it was not kept
    captions  F sentences: what was done since the frame before
    prompt    what is known of the picture; empty where nothing is
    id, source, method

    `size` is the height and width of the tensors, one number for a square; a picture of another shape is cropped to it
    in its middle. Without `size` sequences stay as they are, and a batch has to be of one size.

    A sequence is asked for by its number, or by (epoch, number): the random changes depend on the seed, the epoch and
    the sequence alone, not on workers or order.
    """

    def __init__(
        self,
        dataset: "Dataset",
        num_frames: int = 8,
        size: int | tuple[int, int] | None = None,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        try:
            import torch  # noqa: F401
        except ImportError:
            hint = "Install it with: pip install 'paintproc[models]'"
            raise MissingError("Frames as tensors need torch, which is not installed.", hint) from None
        if num_frames < 2:
            raise UsageError(f"num_frames is {num_frames}.", "At least the first and the last frame are needed.")
        self.dataset, self.num_frames, self.seed = dataset, num_frames, seed
        self.size = (size, size) if isinstance(size, int) else size
        self.augment = augment or Augment()
        self._by_id: np.ndarray | None = None
        if self.size is None and self.augment.crop < 1:
            raise UsageError("crop needs a size.", "Pass size=...")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        import torch

        epoch, number = key if isinstance(key, tuple) else (0, key)
        item = self.dataset.item(number)
        name = item.layout.provenance.id
        random = np.random.default_rng([self.seed, epoch, int(name, 16)])
        chosen = self._choose(len(item.layout.frames), random)
        view = self._view(item, random)
        picture = item.picture()
        masks = _masks_between(item, chosen)
        captions = item.layout.captions
        return {
            "frames": torch.stack([_tensor(view.apply(item.frame(k))) for k in chosen]),
            "progress": torch.tensor([item.layout.progress[k] for k in chosen], dtype=torch.float32),
            "seconds": torch.tensor([item.layout.seconds[k] for k in chosen], dtype=torch.float32),
            "masks": None if masks is None else torch.stack([_tensor(view.apply(mask)) for mask in masks]),
            "picture": None if picture is None else _tensor(view.apply(picture)),
            "captions": [_joined(captions[before + 1 : k + 1]) or captions[k] for before, k in _steps(chosen)],
            "prompt": item.layout.provenance.prompt or "",
            "id": name,
            "source": item.layout.provenance.source or "",
            "method": item.layout.provenance.method or "",
        }

    def order(self, epoch: int = 0, start: int = 0, rank: int = 0, ranks: int = 1) -> list[tuple[int, int]]:
        """The sequences of an epoch in their random order, as (epoch, number), from the one at `start` on.

        Of several processes with `ranks` in all, number `rank` gets its part; all parts are of one length. A folder and
        its shards give the same order: it is one of ids. UsageError for a part or a start that there is not.
        """
        if not 0 <= rank < ranks or start < 0:
            raise UsageError(f"rank is {rank} of {ranks}, start is {start}.", "Both count from 0.")
        if self._by_id is None:
            self._by_id = np.argsort(self.dataset.ids())
        numbers = self._by_id[np.random.default_rng([self.seed, epoch]).permutation(len(self))]
        own = numbers[rank : len(self) // ranks * ranks : ranks]
        return [(epoch, int(number)) for number in own[start:]]

    def loader(
        self,
        batch_size: int = 1,
        *,
        epoch: int = 0,
        start: int = 0,
        workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
        **options: Any,
    ) -> "DataLoader[dict[str, Any]]":
        """torch's DataLoader over one epoch, in the order of `order`, whatever the number of workers.

        To go on in the middle of an epoch pass as `start` how many sequences this process has had of it: batches times
        `batch_size`. `options` are DataLoader's own.
        """
        from torch.utils.data import DataLoader

        return DataLoader(
            self,
            batch_size,
            sampler=self.order(epoch, start, rank, ranks),
            num_workers=workers,
            collate_fn=collate,
            **options,
        )

    def _choose(self, count: int, random: np.random.Generator) -> list[int]:
        """Which of `count` frames are given, in order."""
        wanted = self.num_frames
        if not self.augment.moments or wanted >= count:
            return np.rint(np.linspace(0, count - 1, wanted)).astype(int).tolist()
        inner = random.choice(count - 2, wanted - 2, replace=False) + 1
        return [0, *sorted(inner.tolist()), count - 1]

    def _view(self, item: StoredItem, random: np.random.Generator) -> "View":
        """The part of the canvas that is shown, and how."""
        height, width = item.layout.size or item.frame(0).shape[:2]
        flip = bool(random.random() < 0.5) and self.augment.flip
        part, across, down = 1 - random.random() * (1 - self.augment.crop), random.random(), random.random()
        if self.size is None:
            return View((0, 0, width, height), (height, width), flip)
        scale = min(height / self.size[0], width / self.size[1]) * part
        tall, wide = self.size[0] * scale, self.size[1] * scale
        if self.augment.crop == 1:
            across = down = 0.5
        tall, wide = min(tall, height), min(wide, width)  # products may be larger by a bit
        left, top = across * (width - wide), down * (height - tall)
        return View((left, top, min(width, left + wide), min(height, top + tall)), self.size, flip)


@dataclass(frozen=True)
class View:
    """A part of a canvas, `box` (left, top, right, bottom) in pixels, shown at `size` (height, width)."""

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    flip: bool

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] or bool [H, W] in this view; a pixel of a mask is set where half of it is."""
        mask = pixels.dtype == bool
        image = Image.fromarray(pixels.astype(np.uint8) * 255 if mask else pixels)
        how = Image.Resampling.BOX if mask else Image.Resampling.LANCZOS
        if image.size != self.size[::-1] or self.box != (0, 0, image.width, image.height):
            image = image.resize(self.size[::-1], how, box=self.box)
        shown = np.asarray(image)
        shown = shown > 127 if mask else shown
        return shown[:, ::-1] if self.flip else shown


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A batch: tensors stacked along a new first axis; sentences, names and what is not known of all as lists.

    InputError where sequences are of different sizes.
    """
    import torch

    batch: dict[str, Any] = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        if not all(isinstance(value, torch.Tensor) for value in values):
            batch[key] = values
        elif len({value.shape for value in values}) > 1:
            raise InputError(f"The sequences of a batch have {key} of different sizes.", "Pass size=...")
        else:
            batch[key] = torch.stack(values)
    return batch


def _tensor(pixels: np.ndarray) -> "Tensor":
    """uint8 [H, W, 3] or bool [H, W] as float32 [C, H, W] in [0, 1]."""
    import torch

    values = np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
    return torch.from_numpy(values).to(torch.float32) / (1 if pixels.dtype == bool else 255)


def _steps(chosen: Sequence[int]) -> list[tuple[int, int]]:
    """Each chosen frame after the one chosen before it; the first after itself."""
    return list(zip([chosen[0], *chosen[:-1]], chosen, strict=True))


def _masks_between(item: StoredItem, chosen: Sequence[int]) -> list[np.ndarray] | None:
    """Where paint was laid between each chosen frame and the one before it."""
    masks = item.masks()
    return None if masks is None else [np.any(masks[before + 1 : k + 1], axis=0) for before, k in _steps(chosen)]


def _joined(captions: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(captions))
