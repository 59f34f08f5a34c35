"""The dataset folder: whole items, the same bytes in any order, nothing wrong unnoticed."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from test_rasterize import random_strokes

from paintproc.dataset import Dataset
from paintproc.dataset.folder import begin_dataset, finish_dataset, inspect_dataset, read_inputs, refuse_foreign
from paintproc.dataset.items import open_item, write_item
from paintproc.dataset.layout import SPLITS, VALIDATION, item_id, split_of
from paintproc.dataset.verify import verify_dataset
from paintproc.errors import InputError, OutputError
from paintproc.scene.values import Scene
from paintproc.sequence import PaintingSequence, Provenance


def sequence(number: int, source: int | None = None, strokes: bool = True) -> PaintingSequence:
    random = np.random.default_rng(number)
    digest = hashlib.sha256(str(number if source is None else source).encode()).hexdigest()
    # the picture and its scene are the source's, the same for all sequences made from it
    of_source = np.random.default_rng(int(digest[:8], 16))
    masks = random.random((3, 16, 20)) < 0.5
    masks[0] = False
    parts = of_source.integers(0, 6, (16, 20))
    parts[0, :6] = np.arange(6)
    return PaintingSequence(
        frames=list(random.integers(0, 256, (3, 16, 20, 3)).astype(np.uint8)),
        progress=np.array([0, 0.25, 1]),
        stages=["blank", "block-in", "detail"],
        captions=["blank", "a wall, grün", "done"],
        seconds=np.array([0, 900.0, 3600.0]),
        strokes=random_strokes(4, seed=number) if strokes else None,
        masks=list(masks),
        scene=Scene(parts // 2, parts, np.array([0, 0.25, 1]), np.array([0.5, 1, 0]), "builtin"),
        target=of_source.integers(0, 256, (16, 20, 3)).astype(np.uint8),
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
        assert np.array_equal(given.masks, read.masks) and np.array_equal(given.target, read.target)
        for name in ("regions", "parts", "depth", "weight"):
            assert np.array_equal(getattr(given.scene, name), getattr(read.scene, name)), name
        assert read.scene.method == "builtin"
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


def first_item(dataset):
    return min((dataset / "train").glob("[0-9a-f]*/sequence.json")).parent


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
        (lambda item: min((item.parent / "pictures").iterdir()).write_bytes(b""), "was changed"),
        (lambda item: min((item.parent / "scenes").iterdir()).unlink(), "is missing"),
        (lambda item: (item.parent / "pictures" / f"{'0' * 64}.png").write_bytes(b""), "was changed"),
        (lambda item: (item.parent / "pictures" / "a.png").write_bytes(b""), "no picture and no scene"),
    ],
)
def test_verify_notices(dataset, damage, words):
    item = first_item(dataset)
    damage(item)
    assert any(words in problem for problem in verify_dataset(dataset))


def test_an_item_in_the_wrong_split(dataset):
    item = first_item(dataset)
    (dataset / "validation").mkdir(exist_ok=True)
    item.rename(dataset / "validation" / item.name)
    assert any("belongs to another split" in problem for problem in verify_dataset(dataset))


def test_what_is_no_dataset_is_said_so(tmp_path, dataset):
    with pytest.raises(InputError, match="no dataset folder"):
        Dataset(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        open_item(tmp_path)
    summary = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(summary | {"format": "another"}))
    with pytest.raises(InputError, match="its format is 'another'"):
        verify_dataset(dataset)


def test_unfinished_work_of_others_is_no_item(dataset):
    there = len(list((dataset / "train").glob("*/sequence.json")))
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
    item = first_item(dataset)
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


def test_a_picture_is_kept_once(tmp_path):
    begin_dataset(tmp_path / "d", FACTS)
    items = [write_item(tmp_path / "d", sequence(number, source=7)) for number in (1, 2, 3)]
    split = items[0].parent
    assert [len(list((split / part).iterdir())) for part in ("pictures", "scenes")] == [1, 1]
    lines = [{"input": "a", "outcome": "done", "sha256": "0" * 64, "sequences": [item.name for item in items[:2]]}]
    counts = {"inputs": 1, "done": 1, "skipped": 0, "failed": 0, "sequences": 2}
    write_item(tmp_path / "d", sequence(4, source=8))
    assert finish_dataset(tmp_path / "d", counts, lines) == set()
    # what no input names is gone, and so is the picture that only this needed
    assert not verify_dataset(tmp_path / "d")
    assert len(list((tmp_path / "d").glob("*/pictures/*.png"))) == 1


def test_a_record_is_read_without_its_frames(dataset, monkeypatch):
    from paintproc.dataset import items

    opened = []
    decode = items.decode_png
    monkeypatch.setattr(items, "decode_png", lambda *given: opened.append(given[3]) or decode(*given))
    split = Dataset(dataset)
    item = split.item(0)
    assert item.layout.captions[0] == "blank" and item.layout.size == (16, 20) and not opened
    read = split[0]
    assert len(read) == 3 and read.shape == (16, 20, 3) and repr(read)
    assert not [name for name in opened if name.endswith(("000.png", "001.png", "002.png"))]
    assert read.frames[1].shape == (16, 20, 3) and [frame.shape for frame in read.frames[1:]] == [(16, 20, 3)] * 2
    assert len([name for name in opened if name.endswith("001.png")]) == 2, "frames are not kept"


def test_a_frame_of_another_size_is_refused(dataset):
    from paintproc.png import encode_png

    item = first_item(dataset)
    (item / "001.png").write_bytes(encode_png(np.zeros((16, 21, 3), np.uint8)))
    frames = open_item(item).sequence().frames
    assert frames[0].shape == (16, 20, 3)
    with pytest.raises(InputError, match=r"001.png is RGB of 16 x 21 pixels, not uint8 of 16 x 20"):
        frames[1]


def test_where_a_sequence_comes_from():
    provenance = sequence(5).provenance
    assert (provenance.method, provenance.seed, provenance.prompt) == ("fit", 5, None)
    info = sequence(5).info
    for wrong in ({"id": "x"}, {"input": {}}, {"input": 3}, {"prompt": 7}, {"seed": "5"}):
        with pytest.raises(ValueError, match=r"its|the sha256"):
            Provenance.of(info | wrong)


def hostile(record, **changes):
    return json.dumps(record | changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: {"frames": [{**frame, "file": "../../../dataset.json"} for frame in r["frames"]]},
        lambda r: {"frames": [{**r["frames"][0], "file": "/etc/passwd"}, *r["frames"][1:]]},
        lambda r: {"files": r["files"] | {"../x": "0" * 64}},
        lambda r: {"files": {name: digest for name, digest in r["files"].items() if name != "000.png"}},
        lambda r: {"picture_file": "pictures/../../../../etc/passwd"},
        lambda r: {"picture_file": r["scene_file"]},
        lambda r: {"picture_file": 7},
        lambda r: {"size": "ab"},
        lambda r: {"frames": []},
    ],
)
def test_a_record_that_leads_elsewhere_is_refused(dataset, change):
    path = first_item(dataset) / "sequence.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | change(record)))
    assert any(path.parent.name in problem for problem in verify_dataset(dataset))
    with pytest.raises(InputError, match="holds no sequence"):
        open_item(path.parent)


@pytest.mark.parametrize("name", ["001.png", "sequence.json", "../pictures"])
def test_links_are_not_followed(dataset, tmp_path, name):
    item = first_item(dataset)
    path = min(item.parent.glob("pictures/*")) if name == "../pictures" else item / name
    secret = tmp_path / "secret"
    path.rename(secret)
    path.symlink_to(secret)
    assert any("link" in problem or "no picture" in problem for problem in verify_dataset(dataset))
    from paintproc.dataset.shards import pack_dataset

    with pytest.raises(InputError):
        pack_dataset(dataset, tmp_path / "packed")
    with pytest.raises(InputError, match="link"):
        read = [Dataset(dataset)[k] for k in range(len(Dataset(dataset)))]
        [frame for each in read for frame in each.frames]


def test_the_work_of_others_is_not_removed(tmp_path):
    """A folder that is named like an item, and holds something else, stays where it is."""
    begin_dataset(tmp_path / "d", FACTS)
    item = write_item(tmp_path / "d", sequence(1))
    lines = [{"input": "a", "outcome": "done", "sha256": "0" * 64, "sequences": [item.name]}]
    other = item.with_name("deadbeefdeadbeef")
    other.mkdir()
    (other / "thesis.txt").write_text("all of it")
    counts = {"inputs": 1, "done": 1, "skipped": 0, "failed": 0, "sequences": 1}
    with pytest.raises(OutputError, match=r"deadbeefdeadbeef/thesis.txt, which is not ours"):
        finish_dataset(tmp_path / "d", counts, lines)
    assert (other / "thesis.txt").read_text() == "all of it"


def test_a_missing_sequence_is_named_and_nothing_written(tmp_path):
    begin_dataset(tmp_path / "d", FACTS)
    item = write_item(tmp_path / "d", sequence(1))
    lines = [{"input": "a", "outcome": "done", "sha256": "0" * 64, "sequences": [item.name, "0" * 16]}]
    before = contents(tmp_path / "d")
    assert finish_dataset(tmp_path / "d", COUNTS, lines) == {"0" * 16}
    assert contents(tmp_path / "d") == before


def as_format_1(folder):
    """Turn a dataset into one of the older format, as it was written then."""
    for record in folder.glob("*/*/sequence.json"):
        found = json.loads(record.read_text())
        for key in ("size", "picture_file", "scene_file"):
            found.pop(key, None)
        found["files"].pop("masks.png")
        (record.parent / "masks.png").unlink()
        record.write_text(json.dumps(found))
    for part in [*folder.glob("*/pictures"), *folder.glob("*/scenes")]:
        shutil.rmtree(part)
    summary = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(summary | {"format": "paintproc-dataset-1"}))
    finish_dataset(folder, COUNTS, read_inputs(folder))


def test_the_older_format_is_read_and_written_anew(dataset, tmp_path):
    from paintproc.dataset.rewrite import merge_datasets, upgrade_dataset

    with pytest.raises(InputError, match="is of the current format"):
        upgrade_dataset(dataset, tmp_path / "new", lambda record: None)
    given = {read.info["id"]: read for read in map(sequence, range(12))}
    as_format_1(dataset)
    assert not verify_dataset(dataset)
    read = Dataset(dataset)[0]
    assert read.target is None and read.masks is None and read.scene is None and read.shape == (16, 20, 3)
    with pytest.raises(OutputError, match=r"older format.*paintproc dataset upgrade"):
        begin_dataset(dataset, FACTS)
    with pytest.raises(InputError, match="older format"):
        merge_datasets([dataset, dataset], tmp_path / "merged")
    found = upgrade_dataset(
        dataset, tmp_path / "new", lambda record: given[record["id"]].target if record["seed"] % 2 else None
    )
    assert found == 6 and not verify_dataset(tmp_path / "new")
    for number in range(len(Dataset(tmp_path / "new"))):
        read = Dataset(tmp_path / "new")[number]
        assert (read.target is None) == (read.info["seed"] % 2 == 0)
        assert np.array_equal(read.frames[2], given[read.info["id"]].frames[2])


def test_merged_and_split(dataset, tmp_path):
    from paintproc.dataset.rewrite import merge_datasets, split_dataset

    found = split_dataset(dataset, tmp_path / "parts", 3)
    folders = [tmp_path / "parts" / name for name in found]
    assert len(folders) > 1 and all(not verify_dataset(folder) for folder in folders)
    assert sum(counts["sequences"] for counts in found.values()) in (0, 12)
    merge_datasets([dataset, dataset], tmp_path / "twice")
    assert len(Dataset(tmp_path / "twice")) == len(Dataset(dataset)) and not verify_dataset(tmp_path / "twice")
    # another sequence of the same id
    other = sequence(3)
    shutil.copytree(dataset, tmp_path / "other")
    item = next((tmp_path / "other").glob(f"*/{other.info['id']}"))
    shutil.rmtree(item)
    write_item(tmp_path / "other", replace(other, captions=["another", "way", "of it"]))
    finish_dataset(tmp_path / "other", COUNTS, read_inputs(dataset))
    with pytest.raises(InputError, match="holds another sequence"):
        merge_datasets([dataset, tmp_path / "other"], tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_folders_that_are_links_are_refused(dataset, tmp_path):
    split = first_item(dataset).parent
    (split / "pictures").rename(tmp_path / "elsewhere")
    (split / "pictures").symlink_to(tmp_path / "elsewhere")
    there = contents(tmp_path / "elsewhere")
    assert any("pictures is a link" in problem for problem in verify_dataset(dataset))
    with pytest.raises(OutputError, match="is a link"):
        begin_dataset(dataset, FACTS)
    with pytest.raises(InputError, match="is a link"):
        Dataset(dataset)[0]
    assert contents(tmp_path / "elsewhere") == there


def test_masks_of_many_frames_are_read():
    from paintproc.png import decode_png, encode_png

    masks = np.zeros((180_000, 1000), bool)
    masks[-1, -1] = True
    assert np.array_equal(decode_png(encode_png(masks), np.bool_, masks.shape, "masks")[0], masks)
    with pytest.raises(InputError, match="not bool of 9 x 9"):
        decode_png(encode_png(masks), np.bool_, (9, 9), "masks")


def test_of_two_lines_about_an_input_the_one_that_says_more_counts(tmp_path):
    from paintproc.dataset.lines import batch_name, known_lines

    batch = {"count": 3, "sha256": "0"}
    failed = {"input": "a", "outcome": "failed", "error": "its process ended"}
    said = [failed | {"exit_code": 1}, failed | {"exit_code": 3}, {"input": "a", "outcome": "skipped"}]
    for order in ((0, 1, 2), (2, 1, 0)):
        folder = tmp_path / str(order[0])
        (folder / "parts").mkdir(parents=True)
        for number, k in enumerate(order):
            lines = [said[k] | {"place": 0}, *([said[min(k, 1)] | {"place": 1}])]
            path = folder / "parts" / f"00000-of-00001.{batch_name(batch)}.{number:08x}.jsonl"
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        known = known_lines(folder, [batch])
        assert known[0]["outcome"] == "skipped" and known[1]["exit_code"] == 3 and len(known) == 2
