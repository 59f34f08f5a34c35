"""The torch view of a dataset: the same tensors however they are read, and one seed, one order."""

import numpy as np
import pytest
from test_dataset import build, contents, dataset  # noqa: F401

from paintproc.dataset import Dataset
from paintproc.errors import InputError, MissingError, UsageError

torch = pytest.importorskip("torch", reason="needs the extra `models`")

from paintproc.dataset.frames import Augment  # noqa: E402
from paintproc.dataset.shards import pack_dataset  # noqa: E402

ALL = Augment(flip=True, crop=0.7, moments=True)


def epoch(place, workers=0, start=0, number=0, **how):
    frames = Dataset(place).frames(**({"num_frames": 3, "size": 12, "augment": ALL, "seed": 4} | how))
    return list(frames.loader(2, workers=workers, epoch=number, start=start))


def samples(batches):
    return {name: [batch[key][k] for key in batch] for batch in batches for k, name in enumerate(batch["id"])}


def same(one, other):
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, other, strict=True))


def ids(batches):
    return [name for batch in batches for name in batch["id"]]


def test_the_same_seed_gives_the_same_tensors(dataset, tmp_path):  # noqa: F811
    pack_dataset(dataset, tmp_path / "packed", 12_000)
    first = epoch(dataset)
    for other in (epoch(dataset, workers=2), epoch(tmp_path / "packed"), epoch(tmp_path / "packed", workers=1)):
        found, wanted = samples(other), samples(first)
        assert found.keys() == wanted.keys() and all(same(found[name], wanted[name]) for name in found)
    assert ids(epoch(dataset, workers=2)) == ids(first), "one order, whatever the workers"
    split = Dataset(dataset)
    assert sorted(ids(first)) == sorted(split.line(number)["id"] for number in range(len(split)))


def test_another_seed_or_epoch_gives_others(dataset):  # noqa: F811
    first = epoch(dataset)
    for other in (epoch(dataset, seed=5), epoch(dataset, number=1)):
        assert ids(other) != ids(first)
        pairs = zip(samples(first).items(), sorted(samples(other).items()), strict=True)
        assert any(not same(a, samples(other)[name]) for (name, a), _ in pairs)


def test_an_epoch_is_gone_on_with(dataset):  # noqa: F811
    whole = epoch(dataset)
    rest = epoch(dataset, start=4)
    assert ids(rest) == ids(whole)[4:]
    assert all(same(samples(rest)[name], samples(whole)[name]) for name in ids(rest))


def test_processes_share_an_epoch(dataset):  # noqa: F811
    frames = Dataset(dataset).frames(3)
    parts = [frames.order(2, rank=rank, ranks=3) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    assert len({key for part in parts for key in part}) == sum(map(len, parts)) == len(frames) // 3 * 3


def test_tensors_are_what_the_files_hold(dataset):  # noqa: F811
    split = Dataset(dataset)
    for number in range(len(split)):
        given, read = split.frames(3)[number], split[number]
        frames = (given["frames"] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(frames, np.stack(list(read.frames)))
        assert given["frames"].dtype == torch.float32 and 0 <= given["frames"].min() <= given["frames"].max() <= 1
        assert np.array_equal(given["masks"][:, 0].bool().numpy(), np.stack(read.masks))
        assert np.array_equal((given["picture"] * 255).round().permute(1, 2, 0).numpy(), read.target)
        assert given["progress"].tolist() == read.progress.tolist() and given["seconds"].tolist() == [0, 900, 3600]
        assert (given["captions"], given["prompt"], given["method"]) == (read.captions, "", "fit")


def test_frames_left_out_are_accounted_for(dataset):  # noqa: F811
    split = Dataset(dataset)
    given, read = split.frames(2)[0], split[0]
    assert given["captions"] == [read.captions[0], "; ".join(read.captions[1:])]
    assert np.array_equal(given["masks"][1, 0].bool().numpy(), read.masks[1] | read.masks[2])
    more = split.frames(5)[0]
    assert len(more["frames"]) == 5 and torch.equal(more["frames"][0], given["frames"][0])


def test_all_of_a_sequence_is_changed_alike(dataset, monkeypatch):  # noqa: F811
    """A mirrored sequence is the unmirrored one, mirrored: frames, picture and masks."""
    split = Dataset(dataset)
    mirrored = 0
    for number in range(len(split)):
        plain = split.frames(3, seed=1)[number]
        given = split.frames(3, augment=Augment(flip=True), seed=1)[number]
        flipped = not torch.equal(plain["frames"], given["frames"])
        mirrored += flipped
        for key in ("frames", "picture", "masks"):
            assert torch.equal(given[key], plain[key].flip(-1) if flipped else plain[key])
    assert 0 < mirrored < len(split)


def test_sizes(dataset):  # noqa: F811
    split = Dataset(dataset)
    assert split.frames(3, size=8)[0]["frames"].shape == (3, 3, 8, 8)
    tall = split.frames(3, size=(24, 10))[0]
    assert tall["frames"].shape == (3, 3, 24, 10) and tall["masks"].shape == (3, 1, 24, 10)
    # the middle square, as it is
    middle = split.frames(3, size=16)[0]["picture"]
    assert torch.equal(middle, split.frames(3)[0]["picture"][:, :, 2:18])


@pytest.mark.parametrize(
    "how", [{"num_frames": 1}, {"num_frames": 3, "augment": Augment(crop=0.5)}], ids=["one frame", "crop without size"]
)
def test_impossible_views(dataset, how):  # noqa: F811
    with pytest.raises(UsageError):
        Dataset(dataset).frames(**how)


def test_impossible_crops():
    for part in (0, -1, 1.5):
        with pytest.raises(UsageError):
            Augment(crop=part)


def test_batches_of_different_sizes_are_refused():
    from paintproc.dataset.frames import collate

    with pytest.raises(InputError, match="different sizes"):
        collate([{"frames": torch.zeros(1, 3, 4, 5)}, {"frames": torch.zeros(1, 3, 5, 4)}])
    assert collate([{"masks": None}, {"masks": torch.zeros(1)}])["masks"] == [None, torch.zeros(1)]


def test_without_torch_it_is_said_so(dataset, monkeypatch):  # noqa: F811
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingError, match=r"pip install 'paintproc\[models\]'"):
        Dataset(dataset).frames()


def test_folder_and_shards_give_one_order(dataset, tmp_path):  # noqa: F811
    pack_dataset(dataset, tmp_path / "packed", 12_000)
    assert ids(epoch(tmp_path / "packed")) == ids(epoch(dataset))


def test_a_part_that_there_is_not_is_refused(dataset):  # noqa: F811
    for wrong in ({"rank": 2, "ranks": 2}, {"rank": -1}, {"start": -1}):
        with pytest.raises(UsageError):
            Dataset(dataset).frames().order(**wrong)


def test_any_size_fits_any_canvas():
    """Products of sizes may be larger than the canvas by a bit, which Pillow refuses."""
    from paintproc.dataset.frames import Frames

    for side in range(16, 130):
        for size in (64, 100, 128, 224):
            item = type("Item", (), {"layout": type("Layout", (), {"size": (side, side + 7)})})()
            frames = Frames([], 2, size)
            view = frames._view(item, np.random.default_rng(0))
            assert view.apply(np.zeros((side, side + 7, 3), np.uint8)).shape == (size, size, 3)
