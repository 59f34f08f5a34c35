"""OpenRaster files read back: their structure, and what their layers add up to."""

import io
import zipfile
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from paintproc.process.openraster import layer_pixels, save_openraster
from paintproc.strokes.brushes import ROUND, dry_brush
from paintproc.strokes.rasterize import rasterize
from paintproc.strokes.values import Strokes

SIZE = 60, 80
STAGES = ("block-in", "detail")
REGIONS = ("sky", "tree")


def strokes_of(stage, region, each=9, **options):
    """Random strokes, `each` for every pair of a stage and a region."""
    random = np.random.default_rng(5)
    count = each * len(stage)
    values = {
        "points": random.uniform(0, 1, (count, 1, 2)) + random.normal(0, 0.1, (count, 3, 2)),
        "radius": random.uniform(0.01, 0.12, (count, 2)),
        "color": random.uniform(0, 1, (count, 2, 3)),
        "alpha": random.uniform(0.2, 1, (count, 2)),
        "brush": random.integers(0, 2, count),
        "stage": np.repeat(stage, each),
        "region": np.repeat(region, each),
        "brushes": (ROUND, dry_brush()),
        "stages": STAGES,
        "regions": REGIONS,
        "ground": np.array([0.7, 0.6, 0.4], np.float32),
        "aspect": 4 / 3,
    }
    return Strokes(**(values | options))


@pytest.fixture
def strokes():
    return strokes_of([0, 0, 0, 1, 1], [0, 1, 0, 0, 1])


def tree_of(path):
    with zipfile.ZipFile(path) as archive:
        return ElementTree.fromstring(archive.read("stack.xml"))


def pixels_of(path, name):
    with zipfile.ZipFile(path) as archive, Image.open(io.BytesIO(archive.read(name))) as image:
        return np.array(image)


def composite(path):
    """The picture by the rules: the last child of a stack lies at the bottom, source over."""
    image = tree_of(path)
    canvas = np.zeros((int(image.get("h")), int(image.get("w")), 4))

    def paint(stack):
        for child in reversed(stack):
            assert child.get("composite-op") == "svg:src-over"
            assert float(child.get("opacity")) == 1
            if child.tag == "stack":
                paint(child)
                continue
            layer = pixels_of(path, child.get("src")) / 255.0
            x, y = int(child.get("x")), int(child.get("y"))
            under = canvas[y : y + layer.shape[0], x : x + layer.shape[1]]
            alpha = layer[..., 3:]
            under[..., :3] = layer[..., :3] * alpha + under[..., :3] * (1 - alpha)
            under[..., 3:] = alpha + under[..., 3:] * (1 - alpha)

    paint(image.find("stack"))
    assert canvas[..., 3].min() == 1
    return canvas[..., :3]


def assert_adds_up(path, strokes, size=SIZE):
    difference = np.abs(composite(path) - rasterize(strokes, size=size)) * 255
    assert difference.mean() < 1.5
    assert (difference.max(2) < 4).mean() > 0.995


def test_first_member_is_the_type_as_it_is(tmp_path, strokes):
    save_openraster(tmp_path / "a.ora", strokes, SIZE, "")
    with zipfile.ZipFile(tmp_path / "a.ora") as archive:
        first = archive.infolist()[0]
        assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
        assert archive.read("mimetype") == b"image/openraster"
        assert archive.namelist()[1] == "stack.xml"
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    # readers look for it at a fixed place
    assert (tmp_path / "a.ora").read_bytes()[30:54] == b"mimetypeimage/openraster"


def test_tree_of_layers(tmp_path, strokes):
    save_openraster(tmp_path / "a.ora", strokes, SIZE, "paintproc 1, seed 2")
    image = tree_of(tmp_path / "a.ora")
    assert image.tag == "image"
    assert (image.get("version"), image.get("w"), image.get("h")) == ("0.0.3", "80", "60")
    assert image.get("name")
    assert image.get("comment") == "paintproc 1, seed 2"
    assert [child.tag for child in image] == ["stack"]
    assert [(child.tag, child.get("name")) for child in image[0]] == [
        ("stack", "detail"), ("stack", "block-in"), ("layer", "ground"),
    ]  # fmt: skip
    assert [child.get("name") for child in image[0][0]] == ["tree", "sky"]
    assert [child.get("name") for child in image[0][1]] == ["sky 2", "tree", "sky 1"]


def test_layers_lie_on_the_canvas_and_are_cropped(tmp_path, strokes):
    save_openraster(tmp_path / "a.ora", strokes, SIZE, "")
    with zipfile.ZipFile(tmp_path / "a.ora") as archive:
        names = set(archive.namelist())
    layers = list(tree_of(tmp_path / "a.ora").iter("layer"))
    sources = [layer.get("src") for layer in layers]
    assert len(set(sources)) == 6
    assert names == {"mimetype", "stack.xml", "Thumbnails/thumbnail.png", "mergedimage.png", *sources}
    for layer in layers:
        pixels, x, y = pixels_of(tmp_path / "a.ora", layer.get("src")), int(layer.get("x")), int(layer.get("y"))
        assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 4)
        assert x >= 0 and y >= 0 and y + pixels.shape[0] <= SIZE[0] and x + pixels.shape[1] <= SIZE[1]
        alpha = pixels[..., 3]
        assert alpha[0].any() and alpha[-1].any() and alpha[:, 0].any() and alpha[:, -1].any()


def test_layers_add_up_to_the_picture(tmp_path, strokes):
    save_openraster(tmp_path / "a.ora", strokes, SIZE, "")
    assert_adds_up(tmp_path / "a.ora", strokes)
    with pytest.raises(AssertionError):
        assert_adds_up(tmp_path / "a.ora", strokes[: len(strokes) - 9])


def test_ground_canvas(tmp_path, strokes, painting):
    strokes = replace(strokes, ground=painting.astype(np.float32) / 255)
    save_openraster(tmp_path / "a.ora", strokes, SIZE, "")
    assert_adds_up(tmp_path / "a.ora", strokes)


def test_stage_that_comes_back_is_another_group(tmp_path):
    strokes = strokes_of([0, 1, 0], [0, 0, 0])
    save_openraster(tmp_path / "a.ora", strokes, SIZE, "")
    names = [child.get("name") for child in tree_of(tmp_path / "a.ora")[0]]
    assert names == ["block-in 2", "detail", "block-in 1", "ground"]
    assert_adds_up(tmp_path / "a.ora", strokes)


def test_merged_image_and_thumbnail(tmp_path, strokes):
    size = 300, 400
    save_openraster(tmp_path / "a.ora", strokes, size, "who & what – when")
    merged = pixels_of(tmp_path / "a.ora", "mergedimage.png")
    picture = rasterize(strokes, size=size) * 255
    assert merged.shape == (*size, 4)
    assert np.abs(merged[..., :3] - picture).max() < 0.51
    assert pixels_of(tmp_path / "a.ora", "Thumbnails/thumbnail.png").shape == (192, 256, 4)
    with zipfile.ZipFile(tmp_path / "a.ora") as archive, Image.open(io.BytesIO(archive.read("mergedimage.png"))) as png:
        png.load()
        assert png.text["Comment"] == "who & what – when"


def test_equal_strokes_equal_bytes(tmp_path, strokes):
    for name in "ab":
        save_openraster(tmp_path / name, strokes, SIZE, "comment")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    save_openraster(tmp_path / "b", strokes[1:], SIZE, "comment")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_names_are_safe(tmp_path):
    odd = "<&\"'> ]]> -- é 木"
    strokes = strokes_of([0, 1], [0, 1], stages=(odd, "b"), regions=("a\x00\ud800", odd))
    save_openraster(tmp_path / "a.ora", strokes, SIZE, odd + "\x0b\n")
    image = tree_of(tmp_path / "a.ora")
    assert image.get("comment") == odd + "\ufffd\n"
    assert image[0][0][0].get("name") == odd
    assert (image[0][1].get("name"), image[0][1][0].get("name")) == (odd, "a\ufffd\ufffd")


def test_no_strokes(tmp_path, strokes):
    save_openraster(tmp_path / "a.ora", strokes[:0], SIZE, "")
    assert [child.get("name") for child in tree_of(tmp_path / "a.ora")[0]] == ["ground"]
    assert_adds_up(tmp_path / "a.ora", strokes[:0])


def test_what_cannot_be_seen_has_no_layer(tmp_path):
    strokes = strokes_of([0, 1], [0, 0])
    points = strokes.points.copy()
    points[9:] += 5
    strokes = replace(strokes, points=points)
    save_openraster(tmp_path / "a.ora", strokes, SIZE, "")
    assert [child.get("name") for child in tree_of(tmp_path / "a.ora")[0]] == ["block-in", "ground"]
    assert_adds_up(tmp_path / "a.ora", strokes)


def test_one_pixel(tmp_path, strokes):
    save_openraster(tmp_path / "a.ora", strokes, (1, 1), "")
    assert composite(tmp_path / "a.ora").shape == (1, 1, 3)


def test_size_that_is_none(tmp_path, strokes):
    with pytest.raises(ValueError, match="positive"):
        save_openraster(tmp_path / "a.ora", strokes, (0, 4), "")


def test_layer_has_the_color_and_opacity_of_its_stroke():
    stroke = strokes_of([0], [0], each=1, points=[[[0, 0.4], [0.5, 0.4], [1, 0.4]]], radius=[[0.2, 0.2]],
                        color=[[[0.8, 0.2, 0.4]] * 2], alpha=[[0.5, 0.5]], brush=[0])  # fmt: skip
    pixels = layer_pixels(stroke, SIZE)
    assert np.abs(pixels[32, 40].astype(int) - [204, 51, 102, 128]).max() <= 1
    assert not pixels[0, 0].any()
