"""The value `Strokes`: checks at construction, files, and SVG."""

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import resvg_py
from conftest import EXAMPLES
from PIL import Image

from paintproc.config.generate import GenerateConfig
from paintproc.errors import InputError
from paintproc.media import load_picture
from paintproc.metrics.frames import psnr
from paintproc.process.clock import to_uint8
from paintproc.strokes.fit import fit
from paintproc.strokes.rasterize import rasterize
from paintproc.strokes.svg import strokes_to_svg
from paintproc.strokes.values import Strokes, concatenate, load_strokes, strokes_to_bytes


def some(count: int = 5, **changes) -> Strokes:
    random = np.random.default_rng(1)
    values = {
        "points": random.random((count, 3, 2)),
        "radius": random.uniform(0.01, 0.1, (count, 2)),
        "color": random.random((count, 2, 3)),
        "alpha": random.uniform(0.5, 1, (count, 2)),
        "stage": np.arange(count) % 2,
        "stages": ("a", "b"),
        "aspect": 1.5,
        "brushes": (np.ones((1, 1)), random.random((3, 4))),
        "brush": np.arange(count) % 2,
        "ground": random.random((20, 30, 3)),
    }
    return Strokes(**(values | changes))


WRONG = {
    "points": np.zeros((5, 3, 3)),
    "radius": np.full((5, 2), -1.0),
    "color": np.full((5, 2, 3), 1.5),
    "alpha": np.full((5, 2), np.nan),
    "brush": np.full(5, 2),
    "stage": np.full(5, -1),
    "ground": np.zeros(4),
    "aspect": 0.0,
    "brushes": (np.full((2, 2), 2.0),),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused(name):
    with pytest.raises(ValueError, match="brush" if name == "brushes" else name):
        some(**{name: WRONG[name]})


def test_canvas_sizes():
    assert some(aspect=1.5).canvas_size(300) == (200, 300)
    assert some(aspect=0.5).canvas_size(300) == (300, 150)
    assert some(aspect=400.0).canvas_size(100) == (1, 100)


def test_parts_and_wholes():
    strokes = some(6)
    whole = concatenate([strokes[:2], strokes[2:]])
    assert np.array_equal(whole.points, strokes.points)
    assert len(strokes[np.array([4, 1])]) == 2
    with pytest.raises(ValueError, match="joined"):
        concatenate([strokes, some(2, stages=("a", "c"))])


def test_lengths():
    line = some(1, points=np.array([[(0, 0), (0.3, 0.4), (0.6, 0.8)]]))
    assert line.lengths() == pytest.approx([1.0])
    t = np.linspace(0, 1, 2000)[:, None, None]
    strokes = some(50)
    curves = (1 - t) ** 2 * strokes.points[:, 0] + 2 * t * (1 - t) * strokes.points[:, 1] + t**2 * strokes.points[:, 2]
    true = np.linalg.norm(np.diff(curves, axis=0), axis=2).sum(0)
    assert strokes.lengths() == pytest.approx(true, rel=0.01)


def test_a_file_brings_everything_back(tmp_path):
    strokes = some()
    path = tmp_path / "a.safetensors"
    path.write_bytes(strokes_to_bytes(strokes, {"why": "test"}))
    loaded = load_strokes(path)
    for name in ("points", "radius", "color", "alpha", "brush", "stage", "region", "ground"):
        assert np.array_equal(getattr(loaded, name), getattr(strokes, name))
    assert (loaded.stages, loaded.regions, loaded.aspect) == (strokes.stages, strokes.regions, 1.5)
    assert np.array_equal(loaded.brushes[1], strokes.brushes[1])
    assert strokes_to_bytes(loaded, {"why": "test"}) == path.read_bytes()


def test_damaged_files_are_refused(tmp_path):
    whole = strokes_to_bytes(some())
    path = tmp_path / "a.safetensors"
    random = np.random.default_rng(0)
    damaged = [b"", b"text", whole[:50], whole[:-3], whole + b"x", b"\xff" * 8 + whole[8:]]
    damaged.append(whole.replace(b"paintproc-strokes-1", b"paintproc-strokes-9"))
    for _ in range(60):
        mutated = bytearray(whole)
        mutated[random.integers(0, 600)] ^= 1 << random.integers(0, 8)
        damaged.append(bytes(mutated))
    refused = 0
    for blob in damaged:
        path.write_bytes(blob)
        try:
            load_strokes(path)
        except InputError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused >= 30
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError):
            load_strokes(wrong)


def draw_svg(svg: str) -> np.ndarray:
    """The picture by an independent renderer."""
    return np.array(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGB"))


@pytest.mark.parametrize("path", EXAMPLES[::2], ids=lambda path: path.stem)
def test_svg_looks_like_the_last_frame(path):
    """At the defaults of `generate`; docs/sequence-folder.md states this bound."""
    target = load_picture(path, max_side=512).pixels
    strokes = fit(target.astype(np.float32) / 255, GenerateConfig().stroke_count(*target.shape[:2]))
    last = to_uint8(rasterize(strokes, size=target.shape[:2]))
    drawn = draw_svg(strokes_to_svg(strokes, 512))
    assert drawn.shape == last.shape
    assert psnr(drawn, last) > 29
    shuffled = strokes[np.random.default_rng(0).permutation(len(strokes))]
    assert psnr(draw_svg(strokes_to_svg(shuffled, 512)), last) < 29


def test_svg_is_one_path_a_stroke_in_order():
    strokes = some(40, radius=np.repeat([[0.05, 0.052], [0.02, 0.08]], 20, axis=0), stage=np.arange(40) // 20)
    root = ET.fromstring(strokes_to_svg(strokes, 500, "a <comment> & more"))
    space = "{http://www.w3.org/2000/svg}"
    stages = root.findall(f"{space}g")
    assert [group.get("class") for group in stages] == ["a", "b"]
    assert [group[0].get("class") for group in stages] == ["picture", "picture"]
    lines, outlines = (group.findall(f".//{space}path") for group in stages)
    assert len(lines) == len(outlines) == 20
    assert all(path.get("fill") == "none" and path.get("stroke-width") for path in lines)
    assert all(path.get("stroke") is None for path in outlines)
    starts = [re.match(r"M([\d.]+) ([\d.]+)Q", path.get("d")).groups() for path in lines]
    assert np.allclose(np.array(starts, float), strokes.points[:20, 0] * 500, atol=0.01)


def test_svg_of_a_begun_canvas_and_of_dots():
    strokes = some(4, points=np.full((4, 3, 2), 0.3), brush=np.zeros(4, int))
    ours = to_uint8(rasterize(strokes, size=(200, 300)))
    assert psnr(draw_svg(strokes_to_svg(strokes, 300)), ours) > 25
    assert psnr(draw_svg(strokes_to_svg(some(0), 300)), to_uint8(some(0).ground_canvas(200, 300))) > 25
