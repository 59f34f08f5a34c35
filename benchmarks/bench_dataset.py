"""An epoch of tensors from a dataset: `Dataset.frames` from folder and shards, against reading PNGs with `datasets`.

PAINTPROC_PAINTINGS=... python benchmarks/bench_dataset.py

Both give 8 of 24 frames and the picture at 128 x 128, as float tensors, in batches of 4; `datasets` (Hugging Face's
imagefolder, which decodes all images of a row) is left out where it is not installed. The ways take turns.
"""

import importlib.util
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from bench_synth import write_pictures
from common import COMMAND, save

SEQUENCES, FRAMES, CHOSEN, SIZE, BATCH, TURNS = 60, 24, 8, 128, 4, 3


def of_ours(place: Path, workers: int) -> int:
    from paintproc.dataset import Dataset

    loader = Dataset(place).frames(CHOSEN, SIZE).loader(BATCH, workers=workers)
    return sum(len(batch["id"]) for batch in loader if batch["frames"].shape[1:] == (CHOSEN, 3, SIZE, SIZE))


def of_datasets(place: Path, workers: int) -> int:
    import datasets
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    rows = datasets.load_dataset("imagefolder", data_dir=str(place / "train"), split="train")
    chosen = np.rint(np.linspace(0, FRAMES - 1, CHOSEN)).astype(int)

    def tensor(image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.LANCZOS))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255

    def sample(batch: dict) -> dict:
        return {
            "frames": [torch.stack([tensor(images[k]) for k in chosen]) for images in batch["images"]],
            "picture": [tensor(image) for image in batch["picture"]],
        }

    rows.set_transform(sample)
    loader = torch.utils.data.DataLoader(rows, BATCH, shuffle=True, num_workers=workers)
    return sum(len(batch["frames"]) for batch in loader if batch["frames"].shape[1:] == (CHOSEN, 3, SIZE, SIZE))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        write_pictures(scratch / "pictures", SEQUENCES, 256)
        words = ["--method", "fit", "--strokes", "200", "--size", "256", "--num-frames", str(FRAMES), "-q"]
        out, packed = scratch / "out", scratch / "packed"
        subprocess.run([COMMAND, "synth", "strokes", scratch / "pictures", "-o", out, *words], check=True)
        subprocess.run([COMMAND, "dataset", "pack", out, "-o", packed], check=True)
        ways = {"folder": (of_ours, out), "shards": (of_ours, packed)}
        if importlib.util.find_spec("datasets"):
            ways["datasets"] = (of_datasets, out)
        times: dict[str, list[float]] = {f"{name}, {workers} workers": [] for name in ways for workers in (0, 2)}
        for _ in range(TURNS + 1):
            for name, (read, place) in ways.items():
                for workers in (0, 2):
                    begun = time.perf_counter()
                    count = read(place, workers)
                    times[f"{name}, {workers} workers"].append(time.perf_counter() - begun)
        found = {name: round(statistics.median(taken[1:]), 2) for name, taken in times.items()}
        save("dataset", {"sequences": count, "frames": FRAMES, "chosen": CHOSEN, "size": SIZE, "epoch_seconds": found})


if __name__ == "__main__":
    main()
