"""Strokes as OpenRaster: a layer for each region of each stage, for painting programs."""

import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

from paintproc.process.clock import to_uint8
from paintproc.strokes.rasterize import rasterize
from paintproc.strokes.values import Strokes

MIMETYPE = b"image/openraster"
VERSION = "0.0.3"
THUMBNAIL = 256
"""The longer side of the thumbnail is at most this many pixels."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One run of strokes of one stage and region, cropped to what can be seen."""

    stage: str
    region: str
    x: int
    y: int
    png: bytes


def save_openraster(path: Path, strokes: Strokes, size: tuple[int, int], comment: str) -> None:
    """Write `strokes` as layers, `size` = (height, width) pixels.

    A group a stage, in it a layer a region, and the ground at the bottom. Strokes that follow
    each other with equal stage and region are one layer; what comes back after something else
    gets a layer (or group) of its own, with a number. Runs that leave nothing to see have none.
    `comment` stands in the image element and in the flattened picture. Equal strokes give equal
    bytes. ValueError for a size that is not positive, OSError where `path` cannot be written.
    """
    height, width = size
    if min(height, width) < 1:
        raise ValueError(f"a size is (height, width) in pixels and positive, got {size}")
    comment = _plain(comment)
    layers = _layers(strokes, size)
    merged = to_uint8(rasterize(strokes, size=size))
    scale = min(1.0, THUMBNAIL / max(size))
    small = max(1, round(width * scale)), max(1, round(height * scale))
    members = [
        ("stack.xml", _stack_xml(layers, size, comment)),
        ("data/ground.png", _png(_opaque(to_uint8(strokes.ground_canvas(height, width))))),
        *((_source(k), layer.png) for k, layer in enumerate(layers)),
        ("Thumbnails/thumbnail.png", _png(_opaque(cv2.resize(merged, small, interpolation=cv2.INTER_AREA)))),
        ("mergedimage.png", _with_text(_png(_opaque(merged)), "Comment", comment)),
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_member("mimetype"), MIMETYPE, zipfile.ZIP_STORED)
        for name, data in members:
            archive.writestr(_member(name), data, zipfile.ZIP_DEFLATED, 6)


def layer_pixels(strokes: Strokes, size: tuple[int, int]) -> np.ndarray:
    """What `strokes` cover, without the ground: uint8 sRGB and straight alpha [height, width, 4].

    Painting is linear in the canvas, so black and white canvases tell opacity and color apart.
    """
    black = rasterize(strokes, np.zeros((*size, 3), np.float32))
    white = rasterize(strokes, np.ones((*size, 3), np.float32))
    alpha = np.clip(1 - (white - black).mean(2, keepdims=True), 0, 1)
    color = np.divide(black, alpha, out=np.zeros_like(black), where=alpha > 0)
    pixels = to_uint8(np.concatenate([color, alpha], 2))
    pixels[pixels[..., 3] == 0] = 0
    return pixels


def _layers(strokes: Strokes, size: tuple[int, int]) -> list[Layer]:
    """The layers in painting order."""
    layers = []
    keys = np.stack([strokes.stage, strokes.region], 1)
    change = np.flatnonzero((np.diff(keys, axis=0) != 0).any(1)) + 1
    for run in np.split(np.arange(len(strokes)), change):
        pixels = layer_pixels(strokes[run], size)
        seen = pixels[..., 3] > 0
        if not seen.any():
            continue
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        cropped = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        stage, region = keys[run[0]]
        names = strokes.stages[stage].name, strokes.regions[region]
        layers.append(Layer(*names, int(columns[0]), int(rows[0]), _png(cropped)))
    return layers


def _stack_xml(layers: Sequence[Layer], size: tuple[int, int], comment: str) -> bytes:
    """The tree of layers; an element's first child lies on top, so painting order is reversed."""
    height, width = size
    image = ElementTree.Element(
        "image", {"version": VERSION, "w": str(width), "h": str(height), "name": "painting", "comment": comment}
    )
    groups = [list(group) for _, group in groupby(enumerate(layers), key=lambda item: item[1].stage)]
    tree = []
    for name, group in zip(_numbered([group[0][1].stage for group in groups]), groups, strict=True):
        stack = ElementTree.Element("stack", _attributes(name))
        names = _numbered([layer.region for _, layer in group])
        for region, (k, layer) in reversed(list(zip(names, group, strict=True))):
            place = {"src": _source(k), "x": str(layer.x), "y": str(layer.y)}
            ElementTree.SubElement(stack, "layer", _attributes(region) | place)
        tree.append(stack)
    root = ElementTree.SubElement(image, "stack")
    root.extend(reversed(tree))
    ElementTree.SubElement(root, "layer", _attributes("ground") | {"src": "data/ground.png", "x": "0", "y": "0"})
    ElementTree.indent(image, " ")
    return ElementTree.tostring(image, "UTF-8", xml_declaration=True) + b"\n"


def _attributes(name: str) -> dict[str, str]:
    return {"name": _plain(name), "composite-op": "svg:src-over", "opacity": "1.0", "visibility": "visible"}


def _numbered(names: list[str]) -> list[str]:
    """The same names; those that occur several times with a number each, in painting order."""
    total, so_far, result = Counter(names), Counter[str](), []
    for name in names:
        so_far[name] += 1
        result.append(f"{name} {so_far[name]}" if total[name] > 1 else name)
    return result


def _source(k: int) -> str:
    return f"data/layer{k:04d}.png"


def _plain(text: str) -> str:
    """`text` without the characters that XML cannot hold, each as a replacement character."""

    def allowed(code: int) -> bool:
        return code in (9, 10, 13) or 0x20 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or code > 0xFFFF

    return "".join(character if allowed(ord(character)) else "\ufffd" for character in text)


def _opaque(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] as uint8 [H, W, 4], alpha 255."""
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA)


def _png(pixels: np.ndarray) -> bytes:
    """uint8 RGBA [H, W, 4] as PNG."""
    swapped = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGBA2BGRA)
    return cv2.imencode(".png", swapped, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()


def _with_text(png: bytes, key: str, text: str) -> bytes:
    """The PNG with an iTXt chunk after its header (8 bytes of signature, 25 of IHDR)."""
    body = b"iTXt" + key.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


def _member(name: str) -> zipfile.ZipInfo:
    """A member's head without the time and the machine it was written on."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, 0o644 << 16
    return info
