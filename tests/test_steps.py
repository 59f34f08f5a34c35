"""The tutorial sheet: which steps, which colors, and that nothing leaves the page."""

import cv2
import numpy as np
import pytest

from paintproc.process.steps import GAP, MARGIN, PAGE, WIDTH, added_colors, choose_steps, steps_sheet
from paintproc.sequence import PaintingSequence

CELL = (WIDTH - 2 * MARGIN - GAP) // 2


def sequence_of(count, height=24, width=32, stages=3, caption="block in the sky"):
    """Frames that fill row after row with noise, over `stages` stages of equal length."""
    random = np.random.default_rng(3)
    noise = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    frames = []
    for k in range(count):
        frame = np.full((height, width, 3), 200, np.uint8)
        part = round(height * width * k / max(1, count - 1))
        frame.reshape(-1, 3)[:part] = noise.reshape(-1, 3)[:part]
        frames.append(frame)
    progress = np.linspace(0, 1, count) if count > 1 else np.zeros(1)
    names = [f"stage {min(stages - 1, k * stages // count)}" for k in range(count)]
    return PaintingSequence(frames, progress, names, [caption] * count, progress * 3600)


def lightness(colors):
    return cv2.cvtColor(colors[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0, :, 0]


@pytest.mark.parametrize(("count", "steps"), [(1, 0), (2, 1), (5, 4), (16, 8), (40, 8)])
def test_number_of_steps(count, steps):
    chosen = choose_steps(sequence_of(count))
    assert len(chosen) == steps
    assert chosen == sorted(set(chosen))
    assert 0 not in chosen
    assert not steps or chosen[-1] == count - 1


def test_every_stage_ends_in_a_step():
    sequence = sequence_of(40, stages=5)
    ends = [k for k in range(40) if k == 39 or sequence.stages[k] != sequence.stages[k + 1]]
    assert set(ends) <= set(choose_steps(sequence))


def test_more_stages_than_steps():
    chosen = choose_steps(sequence_of(40, stages=20))
    assert len(chosen) == 8
    assert chosen[-1] == 39


def test_longest_gaps_are_filled():
    chosen = choose_steps(sequence_of(41, stages=1))
    assert max(np.diff([0, *chosen])) <= 10


def test_frames_that_hardly_differ_are_left_out():
    sequence = sequence_of(6)
    frames = [frame for frame in sequence.frames for _ in range(4)]
    progress = np.linspace(0, 1, 24)
    doubled = PaintingSequence(frames, progress, ["all"] * 24, ["a"] * 24, progress)
    chosen = choose_steps(doubled)
    assert len(chosen) == 5
    shown = [frames[0], *(frames[k] for k in chosen)]
    assert all(np.abs(a.astype(int) - b).mean() >= 1 for i, a in enumerate(shown) for b in shown[:i])


def test_nothing_painted():
    frames = [np.full((8, 8, 3), 90, np.uint8)] * 5
    sequence = PaintingSequence(frames, np.linspace(0, 1, 5), ["a"] * 5, ["b"] * 5, np.zeros(5))
    assert choose_steps(sequence) == []
    assert steps_sheet(sequence).shape[1] == WIDTH


def test_red_area_gives_a_red_swatch(painting):
    before = np.full_like(painting, 128)
    after = painting.copy()
    after[5:20, 5:20] = (255, 0, 0)
    colors = added_colors(before, after)
    assert 5 <= len(colors) <= 6
    assert np.abs(colors.astype(int) - [255, 0, 0]).max(1).min() <= 4
    assert (np.diff(lightness(colors)) >= -1e-3).all()


def test_swatches_are_what_was_added():
    before = np.zeros((30, 40, 3), np.uint8)
    before[:] = np.random.default_rng(1).integers(0, 256, 3)
    after = before.copy()
    after[:10], after[10:20] = (200, 40, 30), (20, 30, 90)
    assert added_colors(before, after).tolist() == [[20, 30, 90], [200, 40, 30]]
    assert len(added_colors(after, after)) == 0
    after[20:] += 1
    assert len(added_colors(before, after)) == 2


def test_swatches_are_sorted_by_lightness():
    after = np.random.default_rng(2).integers(0, 256, (50, 50, 3)).astype(np.uint8)
    colors = added_colors(np.full_like(after, 128), after)
    assert len(colors) == 6
    assert (np.diff(lightness(colors)) >= -1e-3).all()


def test_swatches_are_on_the_page():
    frames = [np.full((60, 80, 3), 128, np.uint8), np.full((60, 80, 3), 128, np.uint8)]
    frames[1][:, :40] = (255, 0, 0)
    sequence = PaintingSequence(frames, np.array([0, 1]), ["a", "b"], ["c", "d"], np.array([0, 60]))
    page = steps_sheet(sequence)
    aside = page[:, MARGIN + 570 :]
    assert (aside == (255, 0, 0)).all(2).sum() > 500


@pytest.mark.parametrize("caption", ["a word and " * 18, "w" * 200, "\n".join(["line"] * 40)])
@pytest.mark.parametrize("count", [3, 16])
def test_long_captions_stay_on_the_page(caption, count):
    sequence = sequence_of(count, caption=caption)
    stages = tuple(name + " and everything else that is on the canvas" * 3 for name in sequence.stages)
    page = steps_sheet(
        PaintingSequence(sequence.frames, sequence.progress, stages, sequence.captions, sequence.seconds)
    )
    assert (page[:, WIDTH - MARGIN + 3 :] == PAGE).all()
    assert (page[:, : MARGIN - 3] == PAGE).all()
    assert (page[-MARGIN + 8 :] == PAGE).all()
    if count == 16:
        between = page[MARGIN + 70 : -MARGIN - 30, MARGIN + CELL + 3 : MARGIN + CELL + GAP - 3]
        assert (between == PAGE).all()
    assert (page != PAGE).any()


def test_longer_captions_need_a_higher_page():
    short, long = (steps_sheet(sequence_of(16, caption=text)) for text in ("a", "a word and " * 40))
    assert short.shape[0] < long.shape[0]


def test_page_is_the_same_again():
    page = steps_sheet(sequence_of(16))
    assert (page.dtype, page.shape[1:]) == (np.uint8, (WIDTH, 3))
    assert page.shape[0] > page.shape[1]
    assert page.tobytes() == steps_sheet(sequence_of(16)).tobytes()


@pytest.mark.parametrize("size", [(5, 5), (40, 600), (600, 40), (1, 1), (3, 2000)])
def test_odd_sizes(size):
    for count in (1, 2, 9):
        assert steps_sheet(sequence_of(count, *size)).shape[1] == WIDTH
