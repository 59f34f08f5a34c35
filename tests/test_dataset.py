"""The dataset folder: whole items, the same bytes in any order, nothing wrong unnoticed."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_rasterize import random_strokes

from paintproc.dataset import (
    SPLITS,
    VALIDATION,
    Dataset,
    finish_dataset,
    item_id,
    read_item,
    split_of,
    verify_dataset,
    write_item,
)
from paintproc.errors import InputError
from paintproc.sequence import PaintingSequence


def sequence(number: int, source: int | None = None, strokes: bool = True) -> PaintingSequence:
    random = np.random.default_rng(number)
    digest = hashlib.sha256(str(number if source is None else source).encode()).hexdigest()
    return PaintingSequence(
        frames=list(random.integers(0, 256, (3, 16, 20, 3)).astype(np.uint8)),
        progress=np.array([0, 0.25, 1]),
        stages=["blank", "block-in", "detail"],
        captions=["blank", "a wall, grün", "done"],
        seconds=np.array([0, 900.0, 3600.0]),
        strokes=random_strokes(4, seed=number) if strokes else None,
        info={"id": item_id(digest, {"n": number}), "input": {"sha256": digest}, "method": "fit", "seed": number},
    )


@pytest.fixture
def dataset(tmp_path):
    for number in range(12):
        write_item(tmp_path / "d", sequence(number, strokes=number % 2 == 0))
    finish_dataset(tmp_path / "d", {"size": 16}, {"done": 12})
    return tmp_path / "d"


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_written_is_read(dataset):
    found = {s.info["id"]: s for split in SPLITS if (dataset / split).exists() for s in Dataset(dataset, split)}
    assert len(found) == 12
    for number in range(12):
        given = sequence(number, strokes=number % 2 == 0)
        read = found[given.info["id"]]
        assert all(np.array_equal(a, b) for a, b in zip(given.frames, read.frames, strict=True))
        assert np.array_equal(given.progress, read.progress) and np.array_equal(given.seconds, read.seconds)
        assert (given.stages, given.captions, given.info) == (read.stages, read.captions, read.info)
        assert (read.strokes is None) == (given.strokes is None)
    assert not verify_dataset(dataset)


def test_any_order_and_any_repetition_give_the_same_bytes(dataset, tmp_path):
    order = np.random.default_rng(0).permutation(12)
    for number in [*order, *order[:5]]:
        write_item(tmp_path / "other", sequence(int(number), strokes=number % 2 == 0))
    finish_dataset(tmp_path / "other", {"size": 16}, {"done": 12})
    finish_dataset(tmp_path / "other", {"size": 16}, {"done": 12})
    assert contents(tmp_path / "other") == contents(dataset)


def test_eight_processes_write_the_same_dataset(dataset, tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests')\n"
        "from test_dataset import *\n"
        "for n in range(12): write_item(pathlib.Path(sys.argv[1]), sequence(n, strokes=n % 2 == 0))\n"
        "finish_dataset(pathlib.Path(sys.argv[1]), {'size': 16}, {'done': 12})"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "other")]
    root = __import__("conftest").ROOT
    running = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * 8, errors
    assert contents(tmp_path / "other") == contents(dataset)


def test_all_sequences_of_a_painting_fall_on_one_side():
    sources = [hashlib.sha256(str(k).encode()).hexdigest() for k in range(4000)]
    share = np.mean([split_of(source) == "validation" for source in sources])
    assert abs(share - VALIDATION) < 0.012
    one, other = sequence(1, source=7), sequence(2, source=7)
    assert one.info["id"] != other.info["id"]
    assert split_of(one.info["input"]["sha256"]) == split_of(other.info["input"]["sha256"])


def test_ids_come_from_the_source_and_every_setting():
    ids = {item_id(source, {"size": size, "b": 1}) for source in "ab" for size in (1, 2)}
    assert len(ids) == 4
    assert item_id("a", {"size": 1, "b": 1}) == item_id("a", {"b": 1, "size": 1})


def damage_frame(item):
    path = item / "001.png"
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_frame, "001.png was changed"),
        (lambda item: (item / "002.png").unlink(), "002.png is missing"),
        (lambda item: (item / "more.png").write_bytes(b""), "more.png is not in the record"),
        (shutil.rmtree, "does not list the sequences"),
        (lambda item: (item / "sequence.json").unlink(), "is no sequence"),
        (lambda item: item.rename(item.with_name("0" * 16)), "says that its id is"),
        (lambda item: (item.parent / "metadata.jsonl").write_text("{}\n"), "does not list the sequences"),
        (lambda item: (item.parent / "stray.txt").write_text(""), "stray.txt is no sequence"),
    ],
)
def test_verify_notices(dataset, damage, words):
    item = next(path for path in sorted((dataset / "train").iterdir()) if path.is_dir())
    damage(item)
    assert any(words in problem for problem in verify_dataset(dataset))


def test_an_item_in_the_wrong_split(dataset):
    item = next(path for path in sorted((dataset / "train").iterdir()) if path.is_dir())
    (dataset / "validation").mkdir(exist_ok=True)
    item.rename(dataset / "validation" / item.name)
    assert any("belongs to another split" in problem for problem in verify_dataset(dataset))


def test_what_is_no_dataset_is_said_so(tmp_path, dataset):
    with pytest.raises(InputError, match="no finished dataset folder"):
        Dataset(tmp_path)
    with pytest.raises(InputError, match="holds no sequence"):
        read_item(tmp_path)
    summary = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(summary | {"format": "another"}))
    with pytest.raises(InputError, match="its format is 'another'"):
        verify_dataset(dataset)


def test_unfinished_work_of_others_is_no_item(dataset):
    (dataset / "train" / ".x.0-1-2.paintproc-part").mkdir()
    finish_dataset(dataset, {"size": 16}, {"done": 12})
    assert len(Dataset(dataset)) == len([p for p in (dataset / "train").iterdir() if p.is_dir()]) - 1
