"""The clock, the sequence, and generate as a function."""

import itertools

import numpy as np
import pytest
from conftest import EXAMPLES
from PIL import Image

import paintproc
from paintproc.errors import InputError
from paintproc.process.captions import BLANK_STAGE, stages
from paintproc.process.clock import canvases, even_changes, stroke_ends, to_uint8
from paintproc.process.folder import film_frames, film_length
from paintproc.scene.values import Observation
from paintproc.sequence import PaintingSequence
from paintproc.strokes.fit import LEVELS, fit
from paintproc.strokes.rasterize import rasterize


def frames(count):
    return [np.zeros((4, 6, 3), np.uint8)] * count


@pytest.fixture
def strokes(painting):
    return fit(painting.astype(np.float32) / 255, 60)


def test_longer_strokes_take_longer(strokes):
    ends = stroke_ends(strokes)
    costs = np.diff(ends, prepend=0)
    assert (costs > 0).all()
    assert ends[-1] == 1
    assert np.corrcoef(costs, strokes.lengths())[0, 1] > 0.9


def test_canvases_run_from_the_ground_to_the_end(strokes, painting):
    size = painting.shape[:2]
    frames = list(canvases(strokes, size, np.linspace(0, 1, 9)))
    assert np.array_equal(frames[0], to_uint8(strokes.ground_canvas(*size)))
    whole = to_uint8(rasterize(strokes, size=size))
    assert np.abs(frames[-1].astype(int) - whole).max() <= 1


def spread(strokes, size, moments):
    """How uneven the changes between frames are: standard deviation over mean."""
    shown = [canvas.astype(int) for canvas in canvases(strokes, size, moments)]
    changes = [np.abs(a - b).mean() for a, b in itertools.pairwise(shown)]
    return np.std(changes) / np.mean(changes)


def test_even_changes_are_even(strokes, painting):
    size = painting.shape[:2]
    moments = even_changes(strokes, size, 8)
    assert (moments[0], moments[-1], len(moments)) == (0, 1, 8)
    assert (np.diff(moments) > 0).all()
    assert spread(strokes, size, moments) < 0.35 < 0.7 < spread(strokes, size, np.linspace(0, 1, 8))


@pytest.mark.parametrize("count", [4, 9])
def test_the_ground_is_one_step(painting, count):
    strokes = paintproc.generate(painting, paintproc.GenerateConfig(strokes=200, num_frames=2)).strokes
    ends = stroke_ends(strokes)
    ground = ends[np.array([stage.name == "ground" for stage in strokes.stages])[strokes.stage]].max()
    moments = even_changes(strokes, painting.shape[:2], count)
    assert (moments[1:-1] >= ground - 0.01).all()
    assert moments[1] < ground + 0.05


@pytest.mark.parametrize("count", [2, 3])
def test_even_changes_of_little(painting, count):
    flat = np.full_like(painting, 128).astype(np.float32) / 255
    for strokes in (fit(flat, 0), fit(flat, 1)):
        moments = even_changes(strokes, painting.shape[:2], count)
        assert len(moments) == count and (np.diff(moments) > 0).all()


def test_frames_at_changes_of_the_canvas(painting):
    config = paintproc.GenerateConfig(strokes=80, num_frames=6, frames_at="change", format=("frames",))
    sequence = paintproc.generate(painting, config)
    assert np.array_equal(sequence.progress, even_changes(sequence.strokes, painting.shape[:2], 6))


def test_canvases_do_not_depend_on_what_was_asked_before(strokes, painting):
    size = painting.shape[:2]
    fine = list(canvases(strokes, size, np.linspace(0, 1, 31)))
    coarse = list(canvases(strokes, size, np.linspace(0, 1, 7)))
    for a, b in zip(fine[::5], coarse, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


def test_strokes_grow(strokes, painting):
    size = painting.shape[:2]
    end = stroke_ends(strokes)[0]
    changed = [(f != to_uint8(strokes.ground_canvas(*size))).any(-1).sum()
               for f in canvases(strokes, size, np.linspace(0, 1, 6) * end)]  # fmt: skip
    assert changed[0] == 0
    assert changed == sorted(changed)
    assert 0 < changed[2] < changed[-1]


def test_stages_follow_the_plan(strokes):
    found = stages(strokes, np.linspace(0, 1, 40))
    order = [BLANK_STAGE, *(level.name for level in LEVELS)]
    assert found[0] == BLANK_STAGE == "blank"
    assert sorted(found, key=order.index) == found
    assert set(found) == set(order)


def test_generate_takes_arrays(painting):
    sequence = paintproc.generate(painting, paintproc.GenerateConfig(strokes=40, num_frames=5))
    assert len(sequence) == len(sequence.captions) == 5
    assert np.array_equal(sequence.target, painting)
    assert sequence.info["painted_end"]["psnr"] > 20
    with pytest.raises(InputError, match="uint8"):
        paintproc.generate(painting / 255)


def test_no_strokes_are_a_blank_canvas(painting):
    sequence = paintproc.generate(painting, paintproc.GenerateConfig(strokes=0))
    assert all(np.array_equal(frame, sequence.frames[0]) for frame in sequence.frames)


@pytest.mark.parametrize(("fps", "duration"), [(1, 1), (10, 0.2), (1, 3), (1, 4), (30, 1)])
def test_every_video_ends_with_the_finished_canvas(strokes, painting, fps, duration):
    last = np.full_like(painting, 7)
    film = list(film_frames(strokes, last, fps, duration))
    assert len(film) == film_length(fps, duration)
    assert (film[-1] == 7).all()
    assert np.array_equal(film[0], to_uint8(strokes.ground_canvas(*painting.shape[:2])))


def test_a_picture_is_shrunk_and_settings_are_remembered(tmp_path, painting):
    picture = paintproc.load_picture(str(EXAMPLES[0]))
    sequence = paintproc.generate(picture, paintproc.GenerateConfig(size=40, strokes=20, format=("sheet",)))
    assert max(sequence.frames[0].shape) == 40
    paintproc.save_sequence(sequence, tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["sequence.json", "sheet.png", "strokes.safetensors"]
    plain = PaintingSequence(frames=frames(2), progress=[0, 1], stages=["a"] * 2, captions=[""] * 2, seconds=[0, 1])
    paintproc.save_sequence(plain, tmp_path / "b", paintproc.GenerateConfig(format=("frames",)))
    assert (tmp_path / "b" / "frames" / "001.png").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": []}, "at least one"),
        ({"stages": ["a"]}, "stages"),
        ({"progress": [0, 0.6, 0.5]}, "forward"),
        ({"progress": [0, 0.6, 1.5]}, "forward"),
        ({"progress": [0, float("nan"), 1]}, "forward"),
        ({"progress": [0.1, 0.6, 1]}, "from 0 to 1, not from 0.1 to 1"),
        ({"progress": [0, 0.6, 0.9]}, "from 0 to 1, not from 0 to 0.9"),
        ({"seconds": [0, 1, float("nan")]}, "seconds"),
        ({"seconds": [0, 1, float("inf")]}, "seconds"),
        ({"seconds": [-1, 1, 2]}, "seconds"),
        ({"info": {"format": "mine"}}, "'format'"),
        ({"info": {"seed": 1, "frames": []}}, "'frames'"),
        ({"frames": [np.zeros((4, 6))] * 3}, "uint8"),
        ({"frames": [*frames(2), np.zeros((4, 7, 3), np.uint8)]}, "one size"),
        ({"target": np.zeros((5, 6, 3), np.uint8)}, "target"),
    ],
)
def test_a_sequence_is_checked_once(changes, words):
    values = {
        "frames": frames(3), "progress": [0, 0.5, 1], "stages": ["a"] * 3, "captions": [""] * 3, "seconds": [0, 1, 2],
    }  # fmt: skip
    assert len(PaintingSequence(**values)) == 3
    with pytest.raises(ValueError, match=words):
        PaintingSequence(**(values | changes))


def test_one_frame_is_a_sequence():
    one = PaintingSequence(frames=frames(1), progress=[0], stages=["a"], captions=[""], seconds=[0])
    assert (len(one), repr(one)) == (1, "PaintingSequence(1 frame 4 x 6)")


def test_values_say_what_they_are_in_one_line(painting):
    sequence = paintproc.generate(painting, paintproc.GenerateConfig(strokes=20, num_frames=4))
    assert repr(sequence) == "PaintingSequence(4 frames 50 x 64, human, 20 strokes)"
    count, parts = len(sequence.scene), len(np.unique(sequence.scene.parts))
    assert repr(sequence.scene) == f"Scene({count} regions, {parts} parts, 50 x 64, builtin)"
    masks = np.zeros((3, 5, 6), bool)
    assert repr(Observation(masks, np.ones(3), None, 0.0, "some")) == "Observation(3 masks, no depth, some)"
    depth = np.zeros((5, 6), np.float32)
    assert repr(Observation(masks, np.ones(3), depth, 0.5, "a")) == "Observation(3 masks, depth trusted 0.5, a)"


def test_an_image_of_pillow_is_a_picture_too(painting):
    config = paintproc.GenerateConfig(strokes=20, num_frames=3, size=40)
    both = [paintproc.generate(image, config, canvas=image) for image in (painting, Image.fromarray(painting))]
    assert both[0].info == both[1].info
    assert all(np.array_equal(a, b) for a, b in zip(both[0].frames, both[1].frames, strict=True))


def test_an_output_that_exists_is_refused_in_words_of_python_too(tmp_path):
    plain = PaintingSequence(frames=frames(2), progress=[0, 1], stages=["a"] * 2, captions=[""] * 2, seconds=[0, 1])
    config = paintproc.GenerateConfig(format=("frames",))
    paintproc.save_sequence(plain, tmp_path / "a", config)
    with pytest.raises(paintproc.PaintprocError, match=r"overwrite=True"):
        paintproc.save_sequence(plain, tmp_path / "a", config)
    paintproc.save_sequence(plain, tmp_path / "a", config, overwrite=True)


def test_famous_paintings(paintings):
    """A stratified handful of the larger set, at a size that CI can afford."""
    files = sorted((paintings / "famous").glob("*.jpg"))[::40]
    assert files
    for path in files:
        info = paintproc.generate(path, paintproc.GenerateConfig(size=256, strokes=800)).info
        assert info["painted_end"]["psnr"] > 22, path.name
