"""The scene without networks: a partition, an order, what lies behind."""

import cv2
import numpy as np
import pytest
from conftest import EXAMPLES

from paintproc.media import load_picture
from paintproc.process.captions import color_word, name_regions
from paintproc.scene.find import find_scene
from paintproc.scene.layers import fill, find_layers
from paintproc.scene.picture import scene_picture
from paintproc.scene.regions import MOST_REGIONS, enlarge
from paintproc.scene.values import Scene


def landscape() -> np.ndarray:
    """Sky, hills, a meadow, and a red ball in front of them, with some noise."""
    y, x = np.mgrid[:180, :240]
    picture = np.zeros((180, 240, 3))
    picture[:] = (150, 190, 235)
    picture[y > 70 + 12 * np.sin(x / 30)] = (90, 110, 150)
    picture[y > 110] = (110, 160, 60)
    picture[(x - 120) ** 2 + (y - 110) ** 2 < 32**2] = (200, 40, 30)
    noise = np.random.default_rng(0).normal(0, 4, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_a_plain_landscape_is_put_far_to_near():
    scene = find_scene(landscape())
    sky, hills, meadow, ball = (int(scene.regions[y, x]) for y, x in ((20, 40), (95, 20), (160, 40), (110, 120)))
    assert len({sky, hills, meadow, ball}) == 4
    assert sky < hills < meadow
    assert ball > hills
    assert scene.weight[ball] == 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_have_5_to_15_regions_with_parts(path):
    picture = load_picture(path, max_side=300).pixels
    scene = find_scene(picture)
    assert 5 <= len(scene) <= MOST_REGIONS <= 15
    assert scene.regions.shape == picture.shape[:2]
    assert len(np.unique(scene.parts)) > len(scene)
    assert scene.area().sum() == pytest.approx(1)
    again = find_scene(picture)
    assert np.array_equal(scene.regions, again.regions)


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (9, 9), (40, 30)])
def test_any_size_and_a_flat_picture(shape):
    scene = find_scene(np.full((*shape, 3), 120, np.uint8))
    assert scene.regions.shape == shape
    assert scene.weight.max() == 1


@pytest.mark.parametrize("size", [(12, 16), (13, 16), (60, 41), (120, 160)])
def test_parts_are_enlarged_as_opencv_enlarges_each_mask(size):
    parts = np.random.default_rng(4).integers(0, 9, (12, 16)).astype(np.int32)
    parts[2:9, 3:12] = 4  # part 7 has holes, part 12 lies in two corners
    parts[0, 0] = parts[-1, -1] = 12
    masks = [cv2.resize((parts == k).astype(np.float32), size[::-1]) for k in range(13)]
    found = enlarge(parts, *size)
    best = np.max(masks, axis=0)
    assert np.take_along_axis(np.stack(masks), found[None], 0)[0] == pytest.approx(best, abs=1e-5)
    assert set(np.unique(found)) == set(np.unique(parts))


def test_scenes_are_checked():
    regions = np.array([[0, 0, 1]], np.int32)
    good = {"regions": regions, "parts": np.array([[0, 1, 2]], np.int32), "depth": np.array([0.0, 1.0])}
    good |= {"weight": np.ones(2), "method": "test"}
    assert len(Scene(**good)) == 2
    for wrong in (
        {"parts": np.array([[0, 1, 1]], np.int32)},
        {"depth": np.array([1.0, 0.0])},
        {"depth": np.zeros(3), "weight": np.ones(3)},
        {"parts": np.zeros((2, 2), np.int32)},
    ):
        with pytest.raises(ValueError, match=r"part|depth|map"):
            Scene(**(good | wrong))


def test_nothing_nearer_shows_in_a_layer():
    picture = landscape().astype(np.float32) / 255
    scene = find_scene(landscape())
    ball = int(scene.regions[110, 120])
    layers = find_layers(picture, scene, np.full(3, 0.5, np.float32), behind=0.2)
    before = cv2.resize(layers[ball - 1], (240, 180))
    inside = cv2.erode((scene.regions == ball).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    red = before[inside][:, 0] - before[inside][:, 2]
    assert red.max() < 0.25
    assert np.median(picture[inside][:, 0] - picture[inside][:, 2]) > 0.5
    assert np.abs(cv2.resize(layers[-1], (240, 180)) - picture).mean() < 0.03


def test_fill_keeps_what_is_known_and_is_smooth_elsewhere():
    y, x = np.mgrid[:40, :60] / 60.0
    ramp = np.stack([x, y, 0.5 + 0 * x], -1).astype(np.float32)
    known = np.ones((40, 60), np.float32)
    known[10:25, 20:35] = 0
    filled = fill(np.where(known[..., None] > 0, ramp, 9).astype(np.float32), known)
    assert np.allclose(filled[known > 0], ramp[known > 0], atol=1e-5)
    assert np.abs(filled - ramp).max() < 0.1


@pytest.mark.parametrize(
    ("color", "word"),
    [
        ((10, 10, 10), "black"), ((252, 252, 252), "white"), ((128, 128, 128), "gray"), ((60, 60, 62), "dark gray"),
        ((200, 30, 30), "red"), ((90, 50, 25), "dark brown"), ((230, 220, 60), "pale yellow"), ((40, 120, 40), "green"),
        ((30, 60, 160), "blue"), ((240, 160, 170), "pink"), ((220, 130, 30), "orange"),
    ],
)  # fmt: skip
def test_color_words(color, word):
    lab = cv2.cvtColor(np.float32([[color]]) / 255, cv2.COLOR_RGB2LAB)[0, 0]
    assert color_word(lab).removeprefix("dark ").removeprefix("pale ") == word.removeprefix("dark ").removeprefix(
        "pale "
    )


def test_names_are_unique_and_say_place_and_color():
    names = name_regions(landscape(), find_scene(landscape()))
    assert len(set(names)) == len(names)
    assert any("red" in name and "center" in name for name in names)
    assert any("blue" in name and ("top" in name or "upper" in name) for name in names)


def test_the_picture_of_a_scene_shows_all_of_it():
    scene = find_scene(landscape())
    page = scene_picture(landscape(), scene)
    assert page.shape == (180, 480, 3)
    grays = {int(v) for v in page[:, 240:, 0].ravel()}
    assert grays >= {int(40 + 200 * depth) for depth in scene.depth}
