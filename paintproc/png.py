"""Our own PNG files: pictures, masks and maps of labels, written and read without loss.

Files of users are read by `media.py`, which knows what people have. What is read here was written here, so that a file
of any other kind or size is an error.
"""

import io
import warnings
from collections.abc import Mapping

import numpy as np
from PIL import Image, PngImagePlugin

from paintproc.errors import InputError

MODES = {"RGB": np.uint8, "1": np.bool_, "I;16": np.uint16}
"""Modes of Pillow, and the type of the array for each."""
MOST_PIXELS = {np.uint8: 1 << 27, np.bool_: 1 << 30, np.uint16: 1 << 27}
"""Most pixels that are read, by the type of the array."""


def encode_png(values: np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a PNG with uint8 [H, W, 3], bool [H, W] or uint16 [H, W], and `text` in its text chunks.

    Equal arguments give equal bytes.
    """
    chunks = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        chunks.add_itxt(key, value)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG", pnginfo=chunks, compress_level=4)
    return out.getvalue()


def decode_png(data: bytes, kind: type, size: tuple[int, int] | None, name: str) -> tuple[np.ndarray, dict[str, str]]:
    """The values in a PNG of ours, uint8 [H, W, 3], bool [H, W] or uint16 [H, W] by `kind`, and its text chunks.

    InputError, about `name`, for another kind or size (height, width), or more than `MOST_PIXELS`, before memory is
    taken for its pixels. Without a `size` any is right.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # not by `Image.open`: its limit is lower than what masks of many frames need
            with PngImagePlugin.PngImageFile(io.BytesIO(data)) as image:
                if MODES.get(image.mode) is not kind or (size is not None and image.size != size[::-1]):
                    wanted = f"{np.dtype(kind)}" + (f" of {size[0]} x {size[1]} pixels" if size else "")
                    raise InputError(f"{name} is {image.mode} of {image.height} x {image.width} pixels, not {wanted}.")
                if image.width * image.height > MOST_PIXELS[kind]:
                    raise InputError(f"{name} has {image.width * image.height} pixels, which are too many.")
                image.load()
                text = {key: str(value) for key, value in getattr(image, "text", {}).items()}
                return np.array(image), text
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} is no PNG, or damaged: {str(error).rstrip('.') or type(error).__name__}.") from error
