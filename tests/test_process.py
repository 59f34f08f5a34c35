"""The clock, the sequence, and generate as a function."""

import numpy as np
import pytest

import paintproc
from paintproc.errors import InputError
from paintproc.process.clock import canvases, stage_at, stroke_ends, to_uint8
from paintproc.sequence import PaintingSequence
from paintproc.strokes.fit import fit
from paintproc.strokes.rasterize import rasterize


@pytest.fixture
def strokes(painting):
    return fit(painting.astype(np.float32) / 255, 60)


def test_longer_strokes_take_longer(strokes):
    ends = stroke_ends(strokes)
    costs = np.diff(ends, prepend=0)
    assert (costs > 0).all()
    assert ends[-1] == pytest.approx(1)
    assert np.array_equal(np.argsort(costs, kind="stable"), np.argsort(strokes.lengths(), kind="stable"))


def test_canvases_run_from_the_ground_to_the_end(strokes, painting):
    size = painting.shape[:2]
    frames = list(canvases(strokes, size, np.linspace(0, 1, 9)))
    assert np.array_equal(frames[0], to_uint8(strokes.ground_canvas(*size)))
    whole = to_uint8(rasterize(strokes, size=size))
    assert np.abs(frames[-1].astype(int) - whole).max() <= 1


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
    stages = [stage_at(strokes, moment) for moment in np.linspace(0, 1, 40)]
    order = ["ground", "block-in", "development", "detail"]
    assert sorted(stages, key=order.index) == stages
    assert set(stages) == set(order)


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


def frames(count):
    return [np.zeros((4, 6, 3), np.uint8)] * count


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": []}, "at least one"),
        ({"stages": ["a"]}, "stages"),
        ({"progress": [0, 0.6, 0.5]}, "forward"),
        ({"progress": [0, 0.6, 1.5]}, "forward"),
        ({"frames": [np.zeros((4, 6))] * 3}, "uint8"),
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


def test_famous_paintings(paintings):
    """A stratified handful of the larger set, at a size that CI can afford."""
    files = sorted(paintings.glob("*.jpg"))[::40]
    for path in files:
        info = paintproc.generate(path, paintproc.GenerateConfig(size=256, strokes=800)).info
        assert info["painted_end"]["psnr"] > 22, path.name
