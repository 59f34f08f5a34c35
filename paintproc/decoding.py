"""Decoding one image file with Pillow: into 8-bit sRGB, upright, without alpha, within bounds of time and memory."""

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from paintproc.errors import InputError
from paintproc.headers import MOST_PAGES, Facts, TimedBytes, count_pages, count_scans, refuse_costly, webp_size
from paintproc.stopping import check_stopped

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
"""The kinds of files that are read; their content decides, not their name."""
MAX_PIXELS = 2**27
"""Larger pictures are refused when their header is read, before memory is allocated."""
STRIP = 2**22
"""Pixels that are converted to sRGB at once."""


def decode(data: bytes, name: str, max_side: int | None) -> tuple[np.ndarray, list[str]]:
    """Pixels of an image file as `load_picture` promises them, and its notes."""
    notes = []
    size = webp_size(data)
    if size and size[0] * size[1] > MAX_PIXELS:
        raise too_large(name, size[0] * size[1])
    if size:
        refuse_costly(data, name, Facts("WEBP", *size))
    source: Any = TimedBytes(data, name)
    with Image.open(source, formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise too_large(name, width * height)
        is_tiff = opened.format == "TIFF"
        if is_tiff and _is_raw(opened):
            raise InputError(f"{name} is a camera's RAW file, which is not read.", "Convert it to PNG or JPEG first.")
        drafted = bool(max_side and opened.format == "JPEG" and max(opened.size) > 8 * max_side)
        facts = _facts(opened, data, name, drafted)
        refuse_costly(data, name, facts)
        count = count_pages(data) if is_tiff else getattr(opened, "n_frames", 1)
        if count > 1 and opened.format != "MPO":
            if not is_tiff:
                opened.seek(0)
            number = f"{MOST_PAGES} or more" if is_tiff and count == MOST_PAGES else count
            notes.append(f"{name} has {number} {'pages' if is_tiff else 'frames'}; the first is taken.")
        if drafted and max_side:
            opened.draft(opened.mode, (4 * max_side, 4 * max_side))
        with _without_stderr() if is_tiff else contextlib.nullcontext():
            opened.load()
        # only now the header is read to its end
        refuse_costly(data, name, replace(facts, turned=_is_turned(opened)))
        ImageOps.exif_transpose(opened, in_place=True)
        image = to_srgb(opened, name, notes)
        return np.array(shrunk(image, max_side)), notes


def _facts(opened: Image.Image, data: bytes, name: str, drafted: bool) -> Facts:
    """What the header of an open image says that decides the cost of decoding it."""
    tags: Any = opened.tag_v2 if opened.format == "TIFF" else {}  # type: ignore[attr-defined]
    rows = tags.get(323 if 322 in tags else 278, opened.height)
    scans, samples = 0, 3.0
    if opened.format in ("JPEG", "MPO"):
        scans = count_scans(data, name)
        layers = [(across, down) for _, across, down, _ in opened.layer]  # type: ignore[attr-defined]
        largest = max(across for across, _ in layers) * max(down for _, down in layers)
        samples = sum(across * down for across, down in layers) / max(1, largest)
    elif tags.get(259) in (6, 7):
        # its pieces are JPEGs; these two bytes begin a scan
        scans = data.count(b"\xff\xda") // max(1, len(tags.get(273) or tags.get(324) or ()))
    return Facts(
        kind="JPEG" if opened.format == "MPO" else str(opened.format),
        width=opened.width,
        height=opened.height,
        mode=opened.mode,
        plain=opened.mode == "RGB" and not {"transparency", "icc_profile"} & set(opened.info),
        # asked of a PNG without such data, Pillow would decode it
        turned=(opened.format != "PNG" or "exif" in opened.info) and _is_turned(opened),
        scans=scans,
        samples=samples,
        drafted=drafted,
        bits=sum(tags.get(258, (8,))),
        strip=min(opened.height, rows if isinstance(rows, int) else opened.height),
    )


def _is_turned(image: Image.Image) -> bool:
    return image.getexif().get(0x0112, 1) != 1


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Let nothing reach standard error in the block: libtiff writes there, and no setting of Pillow's stops it."""
    try:
        kept = os.dup(2)
    except OSError:
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def shrunk(image: Image.Image, max_side: int | None) -> Image.Image:
    """`image` with its longer side at most `max_side`."""
    if not max_side or max(image.size) <= max_side:
        return image
    scale = max_side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _eight_bit(values: np.ndarray) -> np.ndarray:
    """16-bit values rounded to 8-bit ones, in strips of rows to save memory."""
    result = np.empty(values.shape, np.uint8)
    for y in range(0, len(values), 256):
        result[y : y + 256] = np.clip(np.rint(values[y : y + 256] / np.float32(257)), 0, 255)
    return result


def too_large(name: str, pixels: int) -> InputError:
    limit = MAX_PIXELS // 10**6
    return InputError(f"{name} has {pixels // 10**6} million pixels; at most {limit} are read.", "Shrink it first.")


def _is_raw(image: Image.Image) -> bool:
    """Whether a TIFF is a camera's: DNG has a version tag; NEF, ARW and PEF have sub-IFDs and a maker's name."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    return 50706 in tags or (330 in tags and 271 in tags)


def to_srgb(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """`image` as 8-bit sRGB without alpha; what was decided is added to `notes`. In strips of rows, to save memory."""
    if image.mode == "F":
        raise InputError(f"{name} is a floating-point image, which is not read.", "Convert it to 8 or 16 bit first.")
    profile = image.info.get("icc_profile")
    if image.mode == "RGB" and not profile and "transparency" not in image.info:
        return image
    result = Image.new("RGB", image.size)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        check_stopped()
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        colors, alpha = _without_alpha(strip)
        if profile:
            try:
                if top == 0:
                    transform = ImageCms.buildTransform(
                        ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                        ImageCms.createProfile("sRGB"),
                        colors.mode,
                        "RGB",
                    )
                colors = ImageCms.applyTransform(colors, transform) or colors
            except (ImageCms.PyCMSError, ValueError, OSError):
                notes.append(f"{name} has a color profile that does not fit it; it is read as sRGB.")
                profile = None
        if alpha is None:
            result.paste(colors.convert("RGB"), (0, top))
        else:
            result.paste("white", (0, top, image.width, top + strip.height))
            result.paste(colors.convert("RGB"), (0, top), alpha)
    return result


def _without_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """An image of 8 bits a channel without its alpha, and the alpha where it has one."""
    if image.mode.startswith("I"):
        image = Image.fromarray(_eight_bit(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return image.convert("RGB"), image.getchannel("A")
    return (image.convert("RGB") if image.mode in ("P", "1") else image), None
