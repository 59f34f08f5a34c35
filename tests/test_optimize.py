"""The one optimizer: descents, bounds, births, own aims; and drawings that change where strokes are laid."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import paintproc
from paintproc.config.plan import PlannedStage, read_plan
from paintproc.process.clock import DrawnFrames, canvases, stroke_ends, to_uint8
from paintproc.process.paint import paint, paint_batch
from paintproc.scene.find import find_scene
from paintproc.strokes.adam import Adam, Bounds
from paintproc.strokes.brushes import ROUND, dry_brush
from paintproc.strokes.fit import fit, fit_batch
from paintproc.strokes.ops import compiling
from paintproc.strokes.ops.arrays import Brushes, StrokeArrays
from paintproc.strokes.ops.in_turn import lay_in_turn
from paintproc.strokes.optimize import OwnAims, Work
from paintproc.strokes.rasterize import rasterize


def some_strokes(count: int, side: float, seed: int = 0) -> StrokeArrays:
    random = np.random.default_rng(seed)
    strokes = StrokeArrays.empty(count)
    strokes.points[:] = random.uniform(0, side, (count, 1, 2)) + random.normal(0, side / 8, (count, 3, 2))
    strokes.radius[:] = random.uniform(side / 40, side / 10, (count, 2))
    strokes.color[:], strokes.alpha[:] = random.random((count, 2, 3)), random.uniform(0.5, 0.95, (count, 2))
    return strokes


def test_adam_finds_the_least_value_within_bounds():
    """Of sum (x - wanted)^2 / 2, whose gradient is x - wanted; values beyond a bound end on it."""
    random = np.random.default_rng(1)
    wanted, strokes = StrokeArrays(random.normal(size=(5, 16)).astype(np.float32)), StrokeArrays.zeros(5)
    bounds = Bounds.empty(5)
    bounds.rate.packed[:], bounds.low.packed[:], bounds.high.packed[:] = 0.02, -0.5, 0.5
    adam = Adam(5)
    for step in range(400):
        adam.step(strokes, StrokeArrays(strokes.packed - wanted.packed), bounds, 1 - step / 401)
    assert strokes.packed == pytest.approx(np.clip(wanted.packed, -0.5, 0.5), abs=2e-3)
    assert np.abs(wanted.packed).max() > 0.6


def test_part_of_an_adam_is_the_same_adam():
    whole, part = Adam(4), None
    part = whole.after(1)
    bounds = Bounds.empty(3)
    bounds.rate.packed[:], bounds.low.packed[:], bounds.high.packed[:] = 1, -9, 9
    part.step(StrokeArrays.zeros(3), StrokeArrays(np.ones((3, 16), np.float32)), bounds)
    assert whole.age.tolist() == [0, 1, 1, 1]
    assert (whole.mean[1:] > 0).all() and (whole.mean[0] == 0).all()


def test_a_batch_paints_each_picture_as_if_alone(painting):
    unit = painting.astype(np.float32) / 255
    pictures = [unit, np.ascontiguousarray(unit[:, ::-1]), np.ascontiguousarray(unit[:40])]
    for alone, together in zip([fit(p, 40) for p in pictures], fit_batch(pictures, 40), strict=True):
        assert np.array_equal(alone.points, together.points) and np.array_equal(alone.color, together.color)
    plan, scenes = read_plan("human"), [find_scene(to_uint8(p)) for p in pictures]
    one = paint(pictures[1], 40, plan, scenes[1])
    assert np.array_equal(one.points, paint_batch(pictures, 40, plan, scenes)[1].points)


@pytest.mark.parametrize("height, width", [(311, 208), (517, 346), (300, 517), (261, 262)])
def test_own_aims_and_their_canvas_have_one_size(height, width):
    """The sizes are rounded: a canvas of 257 rows beside aims of 256 was read beyond its end."""
    random = np.random.default_rng(0)
    picture = (255 * np.kron(random.random((5, 4, 3)), np.ones((120, 140, 1))))[:height, :width].astype(np.uint8)
    strokes = paint(picture.astype(np.float32) / 255, 60, read_plan("human"), find_scene(picture))
    assert len(strokes) > 30
    small, large = np.zeros((20, 20, 3), np.float32), np.zeros((1, 21, 20, 3), np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        lay_in_turn(some_strokes(2, 20), Brushes.round(2), small, large, np.zeros(2, np.int32))


def test_own_aims_on_a_smaller_canvas_pull_the_same_way():
    random = np.random.default_rng(3)
    import cv2

    aim, canvas = (cv2.GaussianBlur(random.random((96, 120, 3)).astype(np.float32), (0, 0), 6) for _ in range(2))
    strokes, brushes, none = some_strokes(40, 120), Brushes.round(40), np.zeros(40, np.int32)
    full = OwnAims(aim[None], canvas, none, 1.0).gradients(strokes, brushes)
    half = [cv2.resize(picture, (60, 48), interpolation=cv2.INTER_AREA) for picture in (aim, canvas)]
    less = OwnAims(half[0][None], half[1], none, 0.5).gradients(strokes, brushes)
    for columns in (slice(0, 6), slice(8, 14), slice(14, 16)):
        a, b = full[:, columns].ravel(), less[:, columns].ravel()
        assert np.corrcoef(a, b)[0, 1] > 0.9
        assert 0.7 < np.abs(b).sum() / np.abs(a).sum() < 1.4


def test_every_stage_gets_its_share_of_what_is_left():
    stages = [PlannedStage(name, share=share) for name, share in (("a", 0.2), ("b", 0.0), ("c", 0.6))]
    work = Work(np.zeros((8, 8, 3), np.float32), np.ones(3, np.float32), stages, 40, 0)
    assert [work.share(k) for k in range(3)] == [10, 0, 40]
    work.add(some_strokes(7, 8), 0)
    assert work.share(2) == 33


def test_a_film_is_what_rasterizing_each_moment_gives(painting):
    strokes = paintproc.generate(painting, paintproc.GenerateConfig(strokes=120, num_frames=2)).strokes
    ends, size, moments = stroke_ends(strokes), painting.shape[:2], np.linspace(0, 1, 37)
    starts = np.concatenate([[0], ends[:-1]])
    before = None
    for moment, frame in zip(moments, canvases(strokes, size, moments), strict=True):
        reveal = np.where(ends <= moment + 1e-9, 1, np.clip((moment - starts) / (ends - starts), 0, 1))
        whole = to_uint8(rasterize(strokes, size=size, reveal=reveal))
        # the strokes before are drawn as float32 once more: a value between two gray levels may round either way
        assert np.abs(whole.astype(int) - frame).max() <= 1
        assert before is None or frame is not before
        before = frame
    assert not np.array_equal(frame, to_uint8(strokes.ground_canvas(*size)))


def test_brushes_are_gathered_in_their_order():
    brushes = Brushes.gather(np.array([1, 0]), (ROUND, dry_brush()))
    assert brushes.shapes[0].tolist() == [0, 1, 1, 1]
    assert brushes.shapes[1].tolist() == [1, *dry_brush().shape, 0]
    assert np.array_equal(brushes.data[1:].reshape(dry_brush().shape), dry_brush())


def test_machine_code_is_kept_by_the_source_of_all_kernels(tmp_path):
    """A kernel inlines pieces from other files: a change there must not leave its machine code as it was."""
    import shutil

    package = Path(paintproc.__file__).parent
    shutil.copytree(package, tmp_path / "paintproc", ignore=shutil.ignore_patterns("__pycache__"))
    script = "from paintproc.strokes.ops.compiling import kernel_folder; print(kernel_folder())"

    def folder() -> str:
        environment = {"PATH": "", "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
        )
        return done.stdout

    before = folder()
    assert folder() == before
    with (tmp_path / "paintproc" / "strokes" / "ops" / "kernels.py").open("a") as file:
        file.write("# another line\n")
    assert folder() != before


def test_what_is_compiled_ahead_is_what_is_called():
    """One signature: a second would be compiled when strokes are laid, and the first for nothing."""
    script = (
        "import numpy as np\n"
        "from paintproc.strokes.ops import arrays, in_turn\n"
        "in_turn.compile_now()\n"
        "canvas = np.zeros((20, 30, 3), np.float32)\n"
        "strokes, brushes = arrays.StrokeArrays.zeros(3), arrays.Brushes.round(3)\n"
        "in_turn.lay_in_turn(strokes, brushes, canvas, canvas[None], np.zeros(3, np.int32))\n"
        "print(len(in_turn.lay_tiles.signatures))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(("processors", "compiled", "started"), [(2, False, 1), (1, False, 0), (2, True, 0)])
def test_another_process_compiles_where_that_saves_time(monkeypatch, processors, compiled, started):
    runs = []
    monkeypatch.setattr(compiling, "thread_count", lambda: processors)
    monkeypatch.setattr(compiling, "is_compiled", lambda kernel: compiled)
    monkeypatch.setattr(compiling.subprocess, "Popen", lambda command, **streams: runs.append(command))
    compiling.compile_in_background()
    monkeypatch.undo()
    assert len(runs) == started
    for command in runs:
        assert subprocess.run(command, check=True, capture_output=True).stderr == b""


def doubled(number):
    return 2 * number


def test_a_kernel_counts_as_compiled_where_its_machine_code_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "kernel_folder", lambda: tmp_path)
    assert not compiling.is_compiled(compiling.kernel(doubled))
    assert compiling.kernel(doubled)(4) == 8
    assert compiling.is_compiled(compiling.kernel(doubled))


def test_frames_drawn_when_asked_for_are_the_same(painting):
    strokes = paintproc.generate(painting, paintproc.GenerateConfig(strokes=80, num_frames=2)).strokes
    size, moments = painting.shape[:2], np.linspace(0, 1, 6)
    every, lazy = list(canvases(strokes, size, moments)), DrawnFrames(strokes, size, moments)
    assert len(lazy) == 6
    for k in (5, 0, 3, 3, -1, 2, 4):
        assert np.array_equal(lazy[k], every[k])
    assert all(np.array_equal(a, b) for a, b in zip(lazy, every, strict=True))
    assert [np.array_equal(frame, every[k]) for k, frame in zip((1, 3), lazy[1:4:2], strict=True)] == [True, True]
    other = np.zeros_like(every[0])
    assert np.array_equal(DrawnFrames(strokes, size, moments, other)[-1], other)
    with pytest.raises(IndexError):
        lazy[6]


def test_large_frames_are_not_kept(painting, monkeypatch, tmp_path):
    """The files of a sequence do not depend on whether its frames are kept in memory."""
    from paintproc.process import generate as module

    config = paintproc.GenerateConfig(strokes=60, num_frames=4, duration=0.5, format=("frames", "sheet", "mp4"))
    paintproc.save_sequence(paintproc.generate(painting, config), tmp_path / "kept", config)
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    sequence = paintproc.generate(painting, config)
    assert isinstance(sequence.frames, DrawnFrames)
    paintproc.save_sequence(sequence, tmp_path / "drawn", config)
    for file in (tmp_path / "kept").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "drawn" / file.relative_to(tmp_path / "kept")).read_bytes()


def test_a_large_picture_is_optimised_at_the_size_its_strokes_need():
    """A picture of 2048 pixels has no more work than its strokes need, and keeps its shape."""
    random = np.random.default_rng(0)
    target = np.kron(random.random((16, 20, 3)), np.ones((100, 101, 1))).astype(np.float32)
    work = Work(target, np.ones(3, np.float32), [PlannedStage("all", share=1)], 400, 0)
    assert 0.9 * 512 * 512 < work.target.size / 3 <= 1.01 * 512 * 512
    strokes = fit(target, 40)
    assert strokes.aspect == 2020 / 1600
    assert strokes.canvas_size(2020) == (1600, 2020)
    assert np.abs(rasterize(strokes, size=(160, 202)).mean((0, 1)) - target.mean((0, 1))).max() < 0.05
