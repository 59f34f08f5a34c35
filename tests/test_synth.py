"""`paintproc synth` as its users run it: what is made, what is said, what is refused."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import COMMAND
from harness import SETTINGS, make_inputs, tree
from PIL import Image

from paintproc.config.plan import BLANK
from paintproc.config.synth import METHODS, SynthConfig, SynthLayersConfig, SynthStrokesConfig
from paintproc.dataset import Dataset
from paintproc.dataset.build import build_dataset
from paintproc.dataset.folder import read_inputs, read_summary
from paintproc.dataset.verify import verify_dataset
from paintproc.errors import InputError, OutputError, UsageError
from paintproc.jobs import Outcome
from paintproc.media import Picture, picture_from_pixels
from paintproc.process.captions import BLANK_STAGE
from paintproc.process.clock import visible_change
from paintproc.synth.build import synth_build
from paintproc.synth.sequences import make_sequence, methods, sequence_id, shape_picture
from paintproc.synth.sources import find_sources

SMALL = ("--size", 64, "--strokes", 20, "--num-frames", 4)


def lines_of(folder) -> dict[str, dict]:
    return {line["input"]: line for line in read_inputs(folder)}


def every_sequence(folder):
    return [
        sequence
        for split in ("train", "validation")
        if (folder / split).is_dir()
        for sequence in Dataset(folder, split)
    ]


@pytest.fixture
def picture(painting) -> Picture:
    return picture_from_pixels(painting)


@pytest.fixture
def inputs(tmp_path):
    return make_inputs(tmp_path / "in", 5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sampling", ["even-change", "even-time"])
def test_a_method_paints_the_picture(picture, method, sampling):
    config = SynthStrokesConfig(size=64, strokes=60, num_frames=6, frame_sampling=sampling)
    made = make_sequence(picture, config, method)
    assert len(made) == 6 and made.progress[0] == 0 and made.progress[-1] == 1
    first, last = made.frames[0].astype(float), made.frames[-1].astype(float)
    assert np.ptp(first, axis=(0, 1)).max() == 0, "the first canvas is blank"
    errors = [float(np.square(frame.astype(float) - picture.pixels).mean()) for frame in made.frames]
    assert errors[-1] < 0.25 * errors[0]
    changes = [float(np.abs(b.astype(float) - a).mean()) for a, b in zip(made.frames, made.frames[1:], strict=False)]
    assert min(changes) > 0
    assert made.strokes is not None and len(made.strokes) <= 60
    assert np.abs(last - picture.pixels).mean() < 40
    assert (made.info["method"], made.info["seed"], made.info["strokes"]) == (method, 0, len(made.strokes))
    named = {stage.name for stage in made.strokes.stages}
    assert made.stages[0] == BLANK_STAGE and set(made.stages[1:]) <= named
    # each stage says in its own words what was done, not its name alone
    assert not [caption for caption in made.captions if caption.partition(":")[0] in named]


@pytest.mark.parametrize("method", METHODS)
def test_even_changes_are_more_even(picture, method):
    """No frame brings as much that is new as the largest step of frames even in time does."""
    largest = []
    for sampling in ("even-change", "even-time"):
        config = SynthStrokesConfig(size=64, strokes=200, num_frames=8, frame_sampling=sampling)
        frames = make_sequence(picture, config, method).frames
        steps = [visible_change(before, after) for before, after in itertools.pairwise(frames)]
        largest.append(max(steps[1:] if method == "human" else steps))
    assert largest[0] < 0.95 * largest[1]


@pytest.mark.parametrize("order", ["near-to-far", "far-to-near"])
@pytest.mark.parametrize("render", ["paste", "strokes"])
def test_layers_place_the_picture(picture, order, render):
    config = SynthLayersConfig(size=64, strokes=80, num_frames=5, order=order, render=render)
    (method,) = methods(config)
    made = make_sequence(picture, config, method)
    blank = (np.array(BLANK) * 255 + 0.5).astype(np.uint8)
    assert (made.frames[0] == blank).all()
    errors = [float(np.square(frame.astype(float) - picture.pixels).mean()) for frame in made.frames]
    assert errors == sorted(errors, reverse=True) or render == "strokes" or order == "far-to-near"
    if render == "paste":
        assert (made.frames[-1] == picture.pixels).all() and made.strokes is None
    else:
        assert errors[-1] < 0.2 * errors[0] and 0 < len(made.strokes) <= 80
    assert made.progress[0] == 0 and made.progress[-1] == 1 and (np.diff(made.progress) > 0).all()
    assert made.stages[0] == BLANK_STAGE and len(set(made.stages[1:])) == 1
    verb = {"paste": "place the ", "strokes": "paint the "}[render]
    assert made.captions[0] == "the empty canvas" and all(caption.startswith(verb) for caption in made.captions[1:])


def test_what_is_placed_near_to_far_stays(picture):
    """A pasted pixel is the picture's, and stays; the nearest region is there before the farthest."""
    from paintproc.scene.find import find_scene

    scene = find_scene(picture.pixels)
    config = SynthLayersConfig(size=64, num_frames=6)
    made = make_sequence(picture, config, methods(config)[0], scene=scene)
    blank = (np.array(BLANK) * 255 + 0.5).astype(np.uint8)
    placed = [(frame != blank).any(2) for frame in made.frames]
    for before, after, frame in zip(placed, placed[1:], made.frames[1:], strict=False):
        assert (after | ~before).all()
        assert (frame[after] == picture.pixels[after]).all()
    near, far = scene.regions == len(scene) - 1, scene.regions == 0
    middle = placed[len(placed) // 2]
    assert middle[near].mean() > 0.9 > middle[far].mean()


def test_what_lies_behind_is_filled_in_far_to_near(picture):
    from paintproc.scene.find import find_scene
    from paintproc.synth.layers import find_segments, paste

    scene = find_scene(picture.pixels)
    unit = picture.pixels.astype(np.float32) / 255
    segments = find_segments(scene, "far-to-near", 3)
    canvases = paste(unit, scene, segments, "far-to-near")
    first = np.abs(canvases[1] - np.array(BLANK, np.float32)).max(2) > 1e-3
    beyond = first & ~segments.masks[0]
    assert beyond.any(), "the farthest region runs on behind what is nearer"
    assert not np.allclose(canvases[1][beyond], unit[beyond], atol=0.02), "nothing nearer shows"
    assert np.allclose(canvases[-1], unit)


def test_few_regions_are_placed_part_by_part(picture):
    from paintproc.scene.find import find_scene
    from paintproc.synth.layers import find_segments

    scene = find_scene(picture.pixels)
    whole, parts = (find_segments(scene, "far-to-near", least) for least in (1, len(scene) + 4))
    assert len(whole) == len(scene) and len(parts) >= len(scene) + 4
    for segments in (whole, parts):
        assert (segments.masks.sum(0) == 1).all(), "each pixel is placed once"
        assert (np.diff(segments.regions) >= 0).all()


@pytest.mark.parametrize(("shape", "size"), [("keep", (40, 60)), ("crop", (40, 40)), ("pad", (60, 60))])
def test_shapes(shape, size):
    pixels = np.random.default_rng(0).integers(0, 200, (40, 60, 3)).astype(np.uint8)
    shaped = shape_picture(pixels, shape)
    assert shaped.shape[:2] == size
    if shape == "pad":
        assert (shaped[:10] == 255).all() and (shaped[10:50] == pixels).all()
    if shape == "crop":
        assert (shaped == pixels[:, 10:50]).all()


def test_what_decides_a_sequence_is_in_its_id(picture):
    def name(**settings):
        return sequence_id("ab" * 32, SynthStrokesConfig(**settings), "fit", networks)

    from paintproc.scene.networks import SceneNetworks

    networks = SceneNetworks()
    assert name() == name(method=("fit",)) == name(device="cpu")
    other = [name(size=100), name(strokes=7), name(num_frames=9), name(seed=1), name(shape="pad")]
    assert len({name(), *other}) == 6
    assert sequence_id("cd" * 32, SynthStrokesConfig(), "fit", networks) != name()
    layered = [SynthLayersConfig(order=order) for order in ("near-to-far", "far-to-near")]
    assert len({sequence_id("ab" * 32, config, methods(config)[0], networks) for config in layered}) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"num_frames": 1},
        {"size": 3},
        {"strokes": 0},
        {"seed": -1},
        {"shape": "round"},
        {"device": "tpu"},
        {"method": ()},
    ],
)
def test_impossible_settings(settings):
    with pytest.raises(UsageError):
        SynthStrokesConfig(**settings)


def test_methods_are_told_once_and_in_one_order():
    assert SynthStrokesConfig(method=("human", "fit", "human")).method == ("fit", "human")
    assert methods(SynthConfig()) == ()


def test_a_dataset_from_the_command_line(paintproc, tmp_path, inputs):
    done = paintproc("synth", "strokes", "in", "-o", "out", *SMALL, "--workers", 2)
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    assert "5 inputs: 5 done, 0 skipped, 0 failed; 20 sequences" in done.stderr
    assert not verify_dataset(tmp_path / "out")
    found = every_sequence(tmp_path / "out")
    assert {sequence.info["method"] for sequence in found} == set(METHODS) and len(found) == 20
    assert {sequence.info["source"] for sequence in found} == {path.name for path in inputs.iterdir()}
    sides = [{s.info["source"] for s in Dataset(tmp_path / "out", split)} for split in ("train", "validation")
             if (tmp_path / "out" / split).is_dir()]  # fmt: skip
    assert len(set.union(*sides)) == sum(map(len, sides)), "a painting falls on one side"
    before = tree(tmp_path / "out")
    again = paintproc("synth", "strokes", "in", "-o", "out", *SMALL)
    assert again.returncode == 0 and "complete already" in again.stderr
    assert tree(tmp_path / "out") == before
    for more, words in ((("--seed", 1), "settings.seed is 0, not 1"), (("--method", "fit"), "settings.method")):
        other = paintproc("synth", "strokes", "in", "-o", "out", *SMALL, *more)
        assert other.returncode == 7 and words in other.stderr
    (inputs / "new.png").write_bytes((inputs / "000.png").read_bytes() + b" ")
    other = paintproc("synth", "strokes", "in", "-o", "out", *SMALL)
    assert other.returncode == 7 and "other inputs: 5 of them, and 6 are named. Pass --extend" in other.stderr
    assert tree(tmp_path / "out") == before


def test_packed_unpacked_verified(paintproc, tmp_path, inputs):
    paintproc("synth", "layers", "in", "-o", "out", *SMALL)
    packed = paintproc("dataset", "pack", "out", "-o", "packed", "--json")
    assert packed.returncode == 0 and sum(json.loads(line)["sequences"] for line in packed.stdout.splitlines()) == 5
    assert paintproc("dataset", "unpack", "packed", "-o", "again").returncode == 0
    assert tree(tmp_path / "again") == tree(tmp_path / "out")
    for folder in ("out", "packed"):
        done = paintproc("dataset", "verify", folder)
        assert done.returncode == 0 and "All is well: 5 inputs" in done.stderr
    shards = paintproc("synth", "layers", "in", "-o", "shards", *SMALL, "--layout", "shards")
    assert shards.returncode == 0 and tree(tmp_path / "shards") == tree(tmp_path / "packed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "in", "out", "packed", "shards"]
    (tmp_path / "again" / "inputs.jsonl").unlink()
    for words in (("pack", "out", "-o", "packed"), ("unpack", "packed", "-o", "again")):
        assert paintproc("dataset", *words).returncode == 7
        assert paintproc("dataset", *words, "--overwrite").returncode == 0
    assert tree(tmp_path / "shards") == tree(tmp_path / "packed") and tree(tmp_path / "again") == tree(tmp_path / "out")
    refused = paintproc("dataset", "pack", "out", "-o", "in", "--overwrite")
    assert refused.returncode == 7 and "no dataset; it is never overwritten" in refused.stderr
    again = paintproc("synth", "layers", "in", "-o", "shards", *SMALL, "--layout", "shards")
    assert again.returncode == 0 and "complete already" in again.stderr
    mixed = paintproc("synth", "layers", "in", "-o", "out", *SMALL, "--layout", "shards")
    assert mixed.returncode == 7 and "is a dataset folder" in mixed.stderr
    (next((tmp_path / "out" / "train").glob("*/001.png"))).write_bytes(b"")
    wrong = paintproc("dataset", "verify", "out", "--json")
    assert wrong.returncode == 6 and "001.png was changed" in wrong.stderr
    assert len(json.loads(wrong.stdout)["problems"]) == 1


def test_every_input_is_accounted_for(paintproc, tmp_path, inputs):
    shutil.copy(inputs / "000.png", inputs / "same.png")
    (inputs / "torn.png").write_bytes((inputs / "000.png").read_bytes()[:90])
    Image.new("RGB", (40, 9)).save(inputs / "thin.png")
    done = paintproc("synth", "strokes", "in", "missing.png", "-o", "out", *SETTINGS)
    assert done.returncode == 6 and "2 inputs failed; they are listed in out/failures.jsonl" in done.stderr
    lines = lines_of(tmp_path / "out")
    assert lines["in/same.png"]["reason"] == "the same picture as in/000.png"
    assert "shorter than 16 pixels" in lines["in/thin.png"]["reason"]
    assert lines["in/torn.png"]["exit_code"] == 3 and "damaged" in lines["in/torn.png"]["error"]
    assert "does not exist" in lines["missing.png"]["error"]
    counts = read_summary(tmp_path / "out")["counts"]
    assert counts == {"inputs": 9, "done": 5, "skipped": 2, "failed": 2, "sequences": 5}
    assert not verify_dataset(tmp_path / "out")
    again = paintproc("synth", "strokes", "in", "missing.png", "-o", "out", *SETTINGS, "--json")
    assert again.returncode == 6 and "complete already" in again.stderr
    *said, last = map(json.loads, again.stdout.splitlines())
    assert {line["input"]: line for line in said} == lines and len(said) == 9
    assert last["counts"] == counts


def test_too_many_failures_stop(paintproc, tmp_path, inputs):
    for k in range(6):
        (inputs / f"00-{k}.png").write_bytes(b"no picture" + bytes([k]))
    done = paintproc("synth", "strokes", "in", "-o", "out", *SETTINGS, "--max-bad", 2, "--workers", 1)
    assert done.returncode == 6 and "More than 2 inputs failed" in done.stderr
    assert "counts" not in json.loads((tmp_path / "out" / "dataset.json").read_text())


def test_captions_and_licences_travel(paintproc, tmp_path, inputs):
    row = {"file_name": "001.jpg", "text": "a hill", "license": "CC0", "origin": "museum"}
    (inputs / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    paintproc("synth", "strokes", "in", "-o", "out", *SETTINGS)
    found = {s.info["source"]: s.info for s in every_sequence(tmp_path / "out")}
    assert [found["001.jpg"][key] for key in ("prompt", "license", "origin")] == ["a hill", "CC0", "museum"]
    assert "prompt" not in found["000.png"]
    split = tmp_path / "out" / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in split.read_text().splitlines()]
    assert {row["source"]: row["prompt"] for row in rows}["000.png"] is None


def test_a_dry_run_writes_nothing(paintproc, tmp_path, inputs):
    done = paintproc("synth", "strokes", "in", "missing.png", "-o", "out", *SMALL, "--dry-run", "--json")
    assert done.returncode == 0 and not (tmp_path / "out").exists()
    *said, found = map(json.loads, done.stdout.splitlines())
    assert all(line["dry_run"] for line in (*said, found))
    assert {line["input"]: line["outcome"] for line in said} == {
        **{f"in/{path.name}": "todo" for path in inputs.iterdir()}, "missing.png": "failed",
    }  # fmt: skip
    assert (found["pictures"], found["sequences"], found["broken"], found["skipped"]) == (5, 20, 1, 0)
    assert 20 * 4 * 1000 < found["bytes"] < 20 * 4 * 30_000 and found["seconds"] > 0
    assert "would paint 5 pictures into out: 20 sequences" in done.stderr


def test_a_disk_that_is_too_small_is_seen_before(tmp_path, inputs, monkeypatch):
    from paintproc.dataset import growing
    from paintproc.synth import estimate

    config = SynthStrokesConfig(size=64, strokes=20, num_frames=4, method=("fit",))
    job = synth_build(tmp_path / "out", config, find_sources([str(inputs)]))
    each = (4 * 64 * 48 * estimate.BYTES_A_PIXEL + estimate.BYTES_AN_ITEM) * growing.RESERVE
    monkeypatch.setattr(growing, "free_bytes", lambda job: 5 * each - 100)
    with pytest.raises(OutputError, match="GB are free"):
        build_dataset(job)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dataset.json"]
    monkeypatch.setattr(growing, "free_bytes", lambda job: 5 * each + 100)
    build_dataset(job)
    # what is there already needs no room
    shutil.rmtree(next((tmp_path / "out").glob("*/*/sequence.json")).parent)
    monkeypatch.setattr(growing, "free_bytes", lambda job: each + 100)
    build_dataset(job)
    assert not verify_dataset(tmp_path / "out")


def test_a_part_needs_room_for_its_own_inputs(tmp_path, inputs, monkeypatch):
    from paintproc.dataset import growing
    from paintproc.synth import estimate

    config = SynthStrokesConfig(size=64, strokes=20, num_frames=4, method=("fit",))
    first, second = (
        synth_build(tmp_path / "out", config, find_sources([str(inputs)]), shard=(index, 2)) for index in (0, 1)
    )
    # the first has three inputs, the second two
    build_dataset(first)
    each = (4 * 64 * 48 * estimate.BYTES_A_PIXEL + estimate.BYTES_AN_ITEM) * growing.RESERVE
    monkeypatch.setattr(growing, "free_bytes", lambda job: 2 * each - 100)
    with pytest.raises(OutputError, match="GB are free"):
        build_dataset(second)
    monkeypatch.setattr(growing, "free_bytes", lambda job: 2 * each + 100)
    assert build_dataset(second).counts["sequences"] == 5


def test_what_was_deleted_is_made_again(paintproc, tmp_path, inputs):
    common = ("synth", "strokes", "in", "-o", "out", *SETTINGS)
    paintproc(*common)
    before = tree(tmp_path / "out")
    item = next((tmp_path / "out").glob("train/*/sequence.json")).parent
    record = item / "sequence.json"
    harms = {
        "a frame is missing": (item / "001.png").unlink,
        "the record is missing": record.unlink,
        "the record is torn": lambda: record.write_bytes(record.read_bytes()[:50]),
        "the item is missing": lambda: shutil.rmtree(item),
    }
    for what, harm in harms.items():
        harm()
        done = paintproc(*common)
        assert done.returncode == 0 and "1 sequences made" in done.stderr, (what, done.stderr)
        assert tree(tmp_path / "out") == before, what


def test_a_part_that_lost_a_sequence_must_make_it_again(paintproc, tmp_path, inputs):
    common = ("synth", "strokes", "in", "-o", "out", *SETTINGS, "--num-shards", 2, "--layout", "shards")
    paintproc(*common, "--shard-index", 0)
    shutil.rmtree(next(tmp_path.glob(".out.*.building/train/*/sequence.json")).parent)
    done = paintproc(*common, "--shard-index", 1)
    assert done.returncode == 0 and "finished when all parts are" in done.stderr
    assert not (tmp_path / "out").exists()
    assert paintproc(*common, "--shard-index", 0).returncode == 0
    assert read_summary(tmp_path / "out")["counts"]["sequences"] == 5
    (tmp_path / "out" / "train-00000.tar").unlink()
    done = paintproc(*common, "--shard-index", 0)
    assert done.returncode == 7 and "train-00000.tar is missing" in done.stderr


def test_an_input_that_fails_half_way_leaves_nothing(tmp_path, inputs, monkeypatch):
    """And one that was another file before leaves nothing of that."""
    from paintproc import building
    from paintproc.synth import items

    config = SynthStrokesConfig(size=64, strokes=20, num_frames=4, method=("fit", "learn-to-paint"))
    sources = find_sources([str(inputs)])
    job = synth_build(tmp_path / "out", config, sources)
    names = {source.name for source in sources}
    make = items.make_sequence

    def failing(picture, config, method, networks, scene, facts):
        if method == "learn-to-paint" and facts["source"] == "002.gif":
            raise MemoryError
        return make(picture, config, method, networks, scene, facts)

    def in_this_process(tasks, work, engine, **_):
        for task in tasks:
            try:
                yield Outcome(task, work(task))
            except MemoryError:
                yield Outcome(task, error="out of memory", exit_code=5)

    monkeypatch.setattr(building, "run_jobs", in_this_process)
    monkeypatch.setattr(items, "make_sequence", failing)
    report = build_dataset(job)
    assert (report.failed, report.counts["sequences"]) == (1, 8)
    assert not verify_dataset(tmp_path / "out")
    monkeypatch.setattr(items, "make_sequence", make)
    report = build_dataset(job)
    assert (report.failed, report.counts["sequences"], report.worked_on) == (0, 10, 1)
    assert not verify_dataset(tmp_path / "out") and set(lines_of(tmp_path / "out")) == names


def problems_of(dataset: Path) -> list[str]:
    """What is wrong with a dataset, also where nothing of it can be read."""
    try:
        return verify_dataset(dataset)
    except InputError as error:
        return [str(error)]


def test_verify_speaks_of_damage_of_any_kind(paintproc, tmp_path, inputs):
    """Whatever a file of a dataset is replaced with: a sentence, no bug; the next run says so or mends it."""
    common = ("synth", "strokes", "in", "-o", "out", *SETTINGS)
    paintproc(*common)
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "out", whole)
    item = next((tmp_path / "out").glob("train/*/sequence.json")).parent
    record = json.loads((item / "sequence.json").read_text())
    damages = [(tmp_path / "out" / "train" / "metadata.jsonl", b"\xff")]
    damages += [
        (tmp_path / "out" / "inputs.jsonl", text)
        for text in (b"[1]\n", b"{}\n", b"7\n", b'{"input": "a", "outcome": "failed"}\n')
    ]
    summary = json.loads((tmp_path / "out" / "dataset.json").read_text())
    damages += [
        (tmp_path / "out" / "dataset.json", json.dumps(summary | {key: 7}).encode()) for key in ("counts", "splits")
    ]
    damages += [
        (item / "sequence.json", json.dumps(record | {key: None}).encode())
        for key in ("input", "id", "frames", "files")
    ]
    damages += [(tmp_path / "out" / "failures.jsonl", b"rubbish\n"), (item / "sequence.json", b"[]")]
    other = (tmp_path / "out" / "inputs.jsonl").read_text().replace(item.name, "0" * 16)
    damages += [(tmp_path / "out" / "inputs.jsonl", other.encode())]
    for number, (path, text) in enumerate(damages):
        path.write_bytes(text)
        assert problems_of(tmp_path / "out"), (path.name, text[:90])
        # the commands take a second each: every fourth damage is shown to them
        commands = (("dataset", "verify", "out"), common, ("dataset", "pack", "out", "-o", "packed"))
        for words in commands if number % 4 == 0 else ():
            done = paintproc(*words)
            assert "bug" not in done.stderr and "Traceback" not in done.stderr, (path.name, text[:90], done.stderr)
            if words[1] == "verify":
                assert done.returncode in (3, 6), (path.name, text[:90])
        shutil.rmtree(tmp_path / "out")
        shutil.rmtree(tmp_path / "packed", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "out")


def test_nothing_else_is_removed(paintproc, tmp_path, inputs):
    """A folder that is called like the one in which shards grow, and holds something else."""
    common = ("synth", "strokes", "in", "-o", "out", *SETTINGS, "--layout", "shards", "--time-limit", 0)
    paintproc(*common)
    (growing,) = tmp_path.glob(".out.*.building")
    others = paintproc(*common[:-2], "--seed", 5, "--time-limit", 0).stderr
    assert f"{growing} holds an unfinished dataset of other settings" in " ".join(others.split())
    assert "of other settings" in paintproc(*common[:-2]).stderr
    assert not growing.exists()
    growing.mkdir()
    (growing / "letter.txt").write_text("dear")
    assert paintproc(*common[:-2]).returncode == 0
    assert (growing / "letter.txt").read_text() == "dear"


def test_overwriting_what_a_link_names(paintproc, tmp_path, inputs):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/data")
    common = ("synth", "strokes", "in", "-o", "link", *SETTINGS, "--overwrite")
    for seed in (1, 2):
        assert paintproc(*common, "--seed", seed).returncode == 0
        assert (tmp_path / "link").is_symlink()
        assert [path.name for path in (tmp_path / "real").iterdir()] == ["data"]
        assert read_summary(tmp_path / "real" / "data")["settings"]["seed"] == seed
    here = paintproc(
        "synth", "strokes", "../../in", "-o", ".", *SETTINGS, "--overwrite", cwd=tmp_path / "real" / "data"
    )
    assert here.returncode == 7 and "current folder" in here.stderr


def test_a_time_limit_stops_and_the_next_run_goes_on(paintproc, tmp_path, inputs):
    done = paintproc("synth", "strokes", "in", "-o", "out", *SETTINGS, "--time-limit", 0)
    assert done.returncode == 75 and "time limit" in done.stderr
    assert paintproc("synth", "strokes", "in", "-o", "out", *SETTINGS).returncode == 0
    assert not verify_dataset(tmp_path / "out")


def test_shards_of_the_work(paintproc, tmp_path, inputs):
    common = ("synth", "strokes", "in", "-o", "out", *SETTINGS)
    slurm = os.environ | {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_COUNT": "2"}
    done = paintproc(*common, env=slurm)
    assert done.returncode == 0 and "part 1 of 2" in done.stderr and "finished when all parts are" in done.stderr
    assert "counts" not in json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert paintproc(*common, "--shard-index", 0, "--num-shards", 2).returncode == 0
    assert read_summary(tmp_path / "out")["counts"]["done"] == 5
    assert not (tmp_path / "out" / "parts").exists()
    for wrong in (("--shard-index", 2, "--num-shards", 2), ("--shard-index", 1), ("--num-shards", 3)):
        assert paintproc(*common, *wrong).returncode == 2


def test_overwrite_replaces_ours_alone(paintproc, tmp_path, inputs):
    common = ("synth", "strokes", "in", "-o", "out", *SETTINGS, "--overwrite")
    assert paintproc(*common).returncode == 0
    before = tree(tmp_path / "out")
    assert paintproc(*common, "--seed", 3).returncode == 0
    assert tree(tmp_path / "out") != before and not verify_dataset(tmp_path / "out")
    (tmp_path / "out" / "letter.txt").write_text("mine")
    refused = paintproc(*common)
    assert refused.returncode == 7 and "letter.txt, which is not ours" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["paintngs"], "paintngs does not exist."),
        (["paintngs/", "x.png"], "No input can be read. The first: paintngs does not exist."),
        (["https://example.org/a.png"], "Download the pictures first"),
    ],
)
def test_nothing_found_is_no_dataset(paintproc, tmp_path, names, words):
    done = paintproc("synth", "strokes", *names, "-o", "out", *SMALL)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_lists_of_inputs(paintproc, tmp_path, inputs):
    listed = "".join(f"in/{path.name}\0" for path in sorted(inputs.iterdir())[:2])
    done = paintproc("synth", "strokes", "--images-from", "-", "--null", "-o", "out", *SETTINGS, "--json", input=listed)
    assert done.returncode == 0, done.stderr
    *said, last = map(json.loads, done.stdout.splitlines())
    assert last["counts"]["done"] == 2 and [line["outcome"] for line in said] == ["done", "done"]
    assert set(lines_of(tmp_path / "out")) == {"in/000.png", "in/001.jpg"}


def test_nothing_is_painted_with_torch(inputs, tmp_path):
    """Neither the command nor what its workers load imports torch."""
    code = (
        "import sys; from pathlib import Path\n"
        "from paintproc.synth.items import Task, paint_source\n"
        "from paintproc.synth.sources import find_sources; from paintproc.scene.networks import SceneNetworks\n"
        "from paintproc.config.synth import SynthStrokesConfig\n"
        "config = SynthStrokesConfig(size=64, strokes=20, num_frames=4)\n"
        "source = find_sources([sys.argv[1]])[0]\n"
        "paint_source(Task(source, config, SceneNetworks(), Path(sys.argv[2])))\n"
        "import paintproc.cli.synth\n"
        "import paintproc.synth.build\n"
        "print([name for name in ('torch', 'torchvision', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, inputs, tmp_path / "out"], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_json_speaks_while_the_work_goes_on(tmp_path, inputs):
    """Each input has its line before the next is done."""
    words = [COMMAND, "synth", "strokes", inputs, "-o", tmp_path / "out", *SETTINGS, "--workers", "1", "--json"]
    with subprocess.Popen(
        list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        first = json.loads(process.stdout.readline())
        made = len(list((tmp_path / "out").glob("*/*/sequence.json")))
        rest = [json.loads(line) for line in process.stdout]
    assert first["outcome"] == "done" and made < 5
    assert sorted(line["input"] for line in (first, *rest[:-1])) == sorted(path.name for path in inputs.iterdir())
    assert rest[-1]["state"] == "finished" and process.returncode == 0


def test_a_finished_dataset_is_extended(paintproc, tmp_path, inputs):
    common = ("-o", "out", *SETTINGS)
    paintproc("synth", "strokes", "in", *common)
    make_inputs(tmp_path / "more", 8)
    (tmp_path / "more" / "torn.png").write_bytes(b"no picture")
    done = paintproc("synth", "strokes", "more", *common, "--extend")
    assert done.returncode == 6 and "14 inputs: 13 done, 0 skipped, 1 failed; 8 sequences" in done.stderr, done.stderr
    assert not verify_dataset(tmp_path / "out")
    before = tree(tmp_path / "out")
    # each of the two commands knows its own inputs
    for name, code in (("in", 0), ("more", 6)):
        again = paintproc("synth", "strokes", name, *common, *(["--extend"] if name == "in" else []))
        assert again.returncode == code and "complete already" in again.stderr
    assert tree(tmp_path / "out") == before
    other = paintproc("synth", "strokes", "more", *common, "--seed", 3, "--extend")
    assert other.returncode == 7 and "settings.seed" in other.stderr


def test_an_empty_file_is_no_dataset(paintproc, tmp_path):
    (tmp_path / "a.png").touch()
    done = paintproc("synth", "strokes", "a.png", "-o", "out", *SETTINGS)
    assert (done.returncode, done.stderr) == (3, "paintproc: a.png is empty.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_killed_run_goes_on_from_its_journal(tmp_path, inputs):
    """What was finished before is not looked at again, also where the last line of the journal is torn."""
    config = SynthStrokesConfig(size=64, strokes=20, num_frames=4, method=("fit",))

    class Killed(BaseException):
        pass

    def stop(line, new):
        raise Killed

    with pytest.raises(Killed):
        build_dataset(synth_build(tmp_path / "out", config, find_sources([str(inputs)])), tell=stop)
    (journal,) = (tmp_path / "out" / "parts").iterdir()
    journal.write_text(journal.read_text() + '{"place": 3, "inp\n')
    told = []
    report = build_dataset(
        synth_build(tmp_path / "out", config, find_sources([str(inputs)])), tell=lambda *line: told.append(line)
    )
    assert (report.worked_on, report.counts["done"]) == (4, 5)
    assert [new for _, new in told].count(False) == 1
    assert not verify_dataset(tmp_path / "out") and not (tmp_path / "out" / "parts").exists()


def test_a_part_does_not_read_what_others_made(tmp_path, inputs, monkeypatch):
    from paintproc.dataset import folder, items

    config = SynthStrokesConfig(size=64, strokes=20, num_frames=4, method=("fit",))
    parts = [synth_build(tmp_path / "out", config, find_sources([str(inputs)]), shard=(k, 3)) for k in range(3)]
    build_dataset(parts[0])
    read = []
    for module in (folder, items):
        monkeypatch.setattr(module, "read_record", lambda path: read.append(path))
    assert build_dataset(parts[1]).counts is None
    assert not read
    monkeypatch.undo()
    assert build_dataset(parts[2]).counts["done"] == 5


def test_the_picture_is_kept_beside_what_was_painted(tmp_path, inputs):
    from paintproc.scene.find import find_scene

    config = SynthStrokesConfig(size=64, strokes=20, num_frames=4, method=("fit", "human"))
    build_dataset(synth_build(tmp_path / "out", config, find_sources([str(inputs)])))
    found = every_sequence(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*/pictures/*.png"))) == 5
    for read in found:
        assert not np.array_equal(read.frames[-1], read.target)
        assert (read.scene is None) == (read.info["method"] == "fit")
        if read.scene is not None:
            assert np.array_equal(read.scene.regions, find_scene(read.target).regions)
        assert not read.masks[0].any()
        for mask, before, after in zip(read.masks[1:], read.frames, read.frames[1:], strict=False):
            changed = (np.abs(before.astype(int) - after) > 24).any(2)
            assert mask[changed].all(), "what changed was painted"


def small_build(folder, inputs, **how):
    config = SynthStrokesConfig(size=64, strokes=20, num_frames=4, method=("fit",))
    return synth_build(folder, config, find_sources([str(inputs)]), **how)


def test_overwriting_that_fails_says_so(tmp_path, inputs, monkeypatch):
    """Also where what is there has the same settings, and is finished or lacks a shard."""
    from paintproc.dataset import growing

    for layout in ("folder", "shards"):
        out = tmp_path / layout
        build_dataset(small_build(out, inputs, layout=layout))
        if layout == "shards":
            next(out.glob("*.tar")).unlink()
        before = tree(out)
        with monkeypatch.context() as patch:
            patch.setattr(growing, "free_bytes", lambda job: 0)
            with pytest.raises(OutputError, match="GB are free"):
                build_dataset(small_build(out, inputs, layout=layout, overwrite=True))
        assert tree(out) == before
        build_dataset(small_build(out, inputs, layout=layout, overwrite=True))
        assert not verify_dataset(out)


def test_extending_needs_a_finished_dataset_and_room(tmp_path, inputs, monkeypatch):
    from paintproc.dataset import growing

    more = make_inputs(tmp_path / "more", 7)
    build_dataset(small_build(tmp_path / "out", inputs, shard=(0, 2)))
    with pytest.raises(OutputError, match="is not finished, so it is not extended"):
        build_dataset(small_build(tmp_path / "out", more, extend=True))
    build_dataset(small_build(tmp_path / "out", inputs, shard=(1, 2)))
    before = tree(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(growing, "free_bytes", lambda job: 0)
        with pytest.raises(OutputError, match="GB are free"):
            build_dataset(small_build(tmp_path / "out", more, extend=True))
    assert tree(tmp_path / "out") == before
    # by two processes, each with its part
    for index in (0, 1):
        report = build_dataset(small_build(tmp_path / "out", more, extend=True, shard=(index, 2)))
    assert report.counts["inputs"] == 12 and report.counts["sequences"] == 7
    assert not verify_dataset(tmp_path / "out")


def test_two_that_extend_at_once(tmp_path, inputs, monkeypatch):
    """One of them does it, the other is told; nothing that was finished is lost."""
    from paintproc.dataset import build as building

    out, one, two = tmp_path / "out", make_inputs(tmp_path / "one", 6), make_inputs(tmp_path / "two", 8)
    build_dataset(small_build(out, inputs))
    summary = (out / "dataset.json").read_text()
    begin = building.begin

    def begin_late(job):
        batches = begin(job)
        if job.names == [path.name for path in sorted(one.iterdir())]:
            # the other has read the summary before this one wrote it
            (out / "dataset.json").write_text(summary)
            build_dataset(small_build(out, two, extend=True))
        return batches

    monkeypatch.setattr(building, "begin", begin_late)
    with pytest.raises(OutputError, match="was extended by another command at the same time"):
        build_dataset(small_build(out, one, extend=True))
    monkeypatch.undo()
    assert read_summary(out)["counts"]["inputs"] == 13 and not verify_dataset(out)
    assert build_dataset(small_build(out, one, extend=True)).counts["inputs"] == 19
    assert not verify_dataset(out)


def test_what_was_split_off_is_not_built_on(tmp_path, inputs):
    from paintproc.dataset.rewrite import split_dataset

    build_dataset(small_build(tmp_path / "out", inputs))
    parts = split_dataset(tmp_path / "out", tmp_path / "parts", 2)
    part = tmp_path / "parts" / min(parts)
    before = tree(part)
    with pytest.raises(OutputError, match="was split off"):
        build_dataset(small_build(part, inputs, extend=True))
    assert tree(part) == before and not verify_dataset(part)


def test_shards_that_were_packed_meanwhile(tmp_path, inputs, monkeypatch):
    """A part that ends after another process has packed everything says so, and leaves nothing."""
    from paintproc.dataset import build as building

    out, hidden = tmp_path / "out", tmp_path / "hidden"
    for index in (0, 1):
        report = build_dataset(small_build(out, inputs, layout="shards", shard=(index, 2)))
    out.rename(hidden)
    begin = building.begin

    def begin_early(job):
        batches = begin(job)
        hidden.rename(out)
        return batches

    monkeypatch.setattr(building, "begin", begin_early)
    assert build_dataset(small_build(out, inputs, layout="shards", shard=(0, 2))).counts == report.counts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
