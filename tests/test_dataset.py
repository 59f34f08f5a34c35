"""The dataset folder: whole items, the same bytes in any order, nothing wrong unnoticed."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from paintproc.verify import verify_dataset
from test_rasterize import random_strokes

from paintproc.dataset import (
    SPLITS,
    VALIDATION,
    Dataset,
    begin_dataset,
    finish_dataset,
    inspect_dataset,
    item_id,
    read_inputs,
    read_item,
    refuse_foreign,
    split_of,
    write_item,
)
from paintproc.errors import InputError, OutputError
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
    build(tmp_path / "d", range(12))
    return tmp_path / "d"


FACTS = {"settings": {"size": 16}, "inputs": {"count": 12}}
COUNTS = {"inputs": 12, "done": 12, "skipped": 0, "failed": 0, "sequences": 12}


def build(folder, numbers):
    begin_dataset(folder, FACTS)
    for number in numbers:
        write_item(folder, sequence(int(number), strokes=number % 2 == 0))
    lines = [{"input": f"{number}.png", "outcome": "done"} for number in range(12)]
    finish_dataset(folder, COUNTS, lines)


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


def test_a_split_without_sequences_is_empty(tmp_path):
    begin_dataset(tmp_path / "d", FACTS)
    there = write_item(tmp_path / "d", sequence(1)).parent.name
    finish_dataset(tmp_path / "d", COUNTS | {"sequences": 1})
    lengths = {split: len(list(Dataset(tmp_path / "d", split))) for split in SPLITS}
    assert lengths == {split: int(split == there) for split in SPLITS}
    with pytest.raises(InputError, match="has no split 'test'"):
        Dataset(tmp_path / "d", "test")
    (tmp_path / "d" / there / "metadata.jsonl").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        Dataset(tmp_path / "d", there)


def test_any_order_and_any_repetition_give_the_same_bytes(dataset, tmp_path):
    order = np.random.default_rng(0).permutation(12)
    for _ in range(2):
        build(tmp_path / "other", [*order, *order[:5]])
    assert contents(tmp_path / "other") == contents(dataset)


def test_eight_processes_write_the_same_dataset(dataset, tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests')\n"
        "from test_dataset import *\n"
        "build(pathlib.Path(sys.argv[1]), range(12))"
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
    with pytest.raises(InputError, match="no dataset folder"):
        Dataset(tmp_path)
    with pytest.raises(InputError, match="holds no sequence"):
        read_item(tmp_path)
    summary = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(summary | {"format": "another"}))
    with pytest.raises(InputError, match="its format is 'another'"):
        verify_dataset(dataset)


def test_unfinished_work_of_others_is_no_item(dataset):
    there = len([path for path in (dataset / "train").iterdir() if path.is_dir()])
    stray = dataset / "train" / ".x.0-1-2-3.paintproc-part"
    stray.mkdir()
    finish_dataset(dataset, COUNTS)
    assert len(Dataset(dataset)) == there and stray.exists()


def test_how_far_a_dataset_has_come(tmp_path):
    folder = tmp_path / "d"
    assert inspect_dataset(folder, FACTS) == "absent"
    for _ in range(2):
        begin_dataset(folder, FACTS)
        assert inspect_dataset(folder, FACTS) == "begun"
    with pytest.raises(InputError, match="begun and is not finished"):
        Dataset(folder)
    finish_dataset(folder, COUNTS)
    before = contents(folder)
    begin_dataset(folder, FACTS)
    assert inspect_dataset(folder, FACTS) == "finished" and contents(folder) == before


def test_another_dataset_is_not_mixed_in(dataset, tmp_path):
    other = {"settings": {"size": 17}, "inputs": {"count": 12}}
    with pytest.raises(OutputError, match=r"its settings.size is 16, not 17"):
        begin_dataset(dataset, other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for path in (tmp_path / "mine", tmp_path / "mine" / "letter.txt"):
        with pytest.raises(OutputError, match="no dataset folder"):
            begin_dataset(path, FACTS)
        with pytest.raises(OutputError, match="never overwritten"):
            refuse_foreign(path)
    (tmp_path / "mine" / "dataset.json").write_text("[]")
    with pytest.raises(OutputError, match="no dataset folder"):
        begin_dataset(tmp_path / "mine", FACTS)


@pytest.mark.parametrize("stray", ["letter.txt", "train/letter.txt", "train/{item}/letter.txt", "train/{item}/a/b.png"])
def test_what_is_not_ours_in_a_dataset_is_seen(dataset, stray):
    refuse_foreign(dataset)
    item = next(path for path in sorted((dataset / "train").iterdir()) if path.is_dir())
    path = dataset / stray.format(item=item.name)
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(OutputError, match="not ours"):
        refuse_foreign(dataset)


def test_lists_and_counts_agree(dataset):
    assert not verify_dataset(dataset)
    summary = json.loads((dataset / "dataset.json").read_text())
    for key, value, words in (("done", 11, "lists 12"), ("sequences", 13, "its splits"), ("inputs", 13, "add up")):
        (dataset / "dataset.json").write_text(json.dumps(summary | {"counts": COUNTS | {key: value}}))
        assert any(words in problem for problem in verify_dataset(dataset))


def test_failures_are_listed(tmp_path):
    begin_dataset(tmp_path / "d", FACTS)
    lines = [
        {"input": "a\u2028b.png", "outcome": "failed", "error": "no", "exit_code": 3},
        {"input": "b", "outcome": "done"},
    ]
    finish_dataset(tmp_path / "d", {"inputs": 2, "done": 1, "skipped": 0, "failed": 1, "sequences": 0}, lines)
    assert read_inputs(tmp_path / "d") == lines
    failures = (tmp_path / "d" / "failures.jsonl").read_text()
    assert json.loads(failures) == {"input": "a\u2028b.png", "error": "no", "exit_code": 3}
    assert not verify_dataset(tmp_path / "d")
    finish_dataset(tmp_path / "d", COUNTS)
    assert not (tmp_path / "d" / "failures.jsonl").exists()


def test_a_caption_with_odd_line_ends_is_one_line(tmp_path):
    begin_dataset(tmp_path / "d", FACTS)
    given = replace(sequence(3), captions=["blank", "a\u2028b\x85c", "d"])
    split = write_item(tmp_path / "d", given).parent.name
    finish_dataset(tmp_path / "d", COUNTS | {"sequences": 1})
    assert [s.captions for s in Dataset(tmp_path / "d", split)] == [given.captions]
