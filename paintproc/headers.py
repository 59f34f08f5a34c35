"""What the bytes of an image file say before it is decoded: which kinds are not read, and what would cost too much.

A decoder runs in this process, and most of its work cannot be broken off. So what it will take is judged beforehand.
"""

import re
import struct
import time
from dataclasses import dataclass

from paintproc.errors import InputError
from paintproc.stopping import check_stopped

MAX_SIDE = 2**16
"""Pixels of a side. Pillow keeps a pointer for each row, and numpy a view."""
MAX_MEMORY = 900 * 10**6
"""Bytes that reading a picture may take, the file included."""
MAX_SCANS = 100
"""Scans of a progressive JPEG; each costs a pass over all pixels. Ten are usual."""
MAX_SECONDS = 8.0
"""Processor time that reading a picture may take."""
MOST_SEGMENTS = 50_000
"""Parts of a JPEG file that are looked at to count its scans."""
MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""What begins a part of a JPEG file, or ends it. Compressed data do not hold it."""
MOST_PAGES = 1000
"""Pages of a TIFF that are counted."""
NATIVE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Bytes of a pixel as Pillow keeps it, by mode; 4 for all others."""
WEBP_BYTES = 12
"""Bytes of a pixel that the decoder of WebP needs beside the result: two canvases and a copy."""


class TimedBytes:
    """The bytes of a file, as a file to read from, by which Pillow is stopped: by a signal, or after `MAX_SECONDS`."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name, self.place = data, name, 0
        self.end = time.thread_time() + MAX_SECONDS

    def read(self, size: int | None = -1) -> bytes:
        check_stopped()
        if time.thread_time() > self.end:
            raise InputError(
                f"{self.name} takes longer than {MAX_SECONDS:g} s to be read.", "Convert it to PNG or JPEG first."
            )
        begin = self.place
        end = len(self.data) if size is None or size < 0 else min(len(self.data), begin + size)
        self.place = max(begin, end)
        return self.data[begin:end]

    def seek(self, place: int, whence: int = 0) -> int:
        self.place = max(0, place + (0, self.place, len(self.data))[whence])
        return self.place

    def tell(self) -> int:
        return self.place

    def getvalue(self) -> bytes:
        return self.data

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Facts:
    """What a header says that decides the cost of decoding.

    plain    whether the pixels are taken as they are: RGB without profile or transparency
    turned   whether EXIF turns the picture
    scans    scans of a JPEG, or of a piece of a TIFF that is one
    samples  samples of a pixel in a JPEG, 1.5 or 3 for most; the coefficients of several scans are kept
    drafted  whether a JPEG is decoded at half its size or less
    bits     bits of a pixel in a TIFF
    strip    rows that a TIFF decodes at once
    """

    kind: str
    width: int
    height: int
    mode: str = "RGB"
    plain: bool = True
    turned: bool = False
    scans: int = 0
    samples: float = 3.0
    drafted: bool = False
    bits: int = 24
    strip: int = 0


def refuse_costly(data: bytes, name: str, facts: Facts) -> None:
    """InputError for an image file whose decoding would take too much time or memory."""
    width, height = facts.width, facts.height
    if max(width, height) > MAX_SIDE:
        raise InputError(
            f"{name} is {width} x {height} pixels; a side of at most {MAX_SIDE} is read.", "Cut it into parts first."
        )
    if facts.scans > MAX_SCANS:
        raise InputError(
            f"{name} is a JPEG of more than {MAX_SCANS} scans, which is not read.", "Save it anew as JPEG or PNG."
        )
    needed = len(data) + memory_needed(facts)
    if needed > MAX_MEMORY:
        raise InputError(
            f"{name} would take {needed // 10**6} MB of memory: {width * height // 10**6} million pixels in a "
            f"{facts.kind} of this kind; at most {MAX_MEMORY // 10**6} MB are taken.",
            "Shrink it first.",
        )


def memory_needed(facts: Facts) -> int:
    """Bytes that Pillow and we need at once to decode a picture, without those of the file; estimated rather high."""
    native = NATIVE.get(facts.mode, 4)
    if facts.drafted:
        native = 1
    steps = [native, native + (0 if facts.plain or facts.drafted else 4), 2 * native if facts.turned else 0]
    each: float = max(steps)
    if facts.kind == "JPEG" and facts.scans > 1:
        each += 2 * facts.samples
    if facts.kind == "WEBP":
        each += WEBP_BYTES
    needed = round(each * facts.width * facts.height)
    if facts.kind == "TIFF":
        needed += facts.bits * facts.width * facts.strip // 8
    return needed


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP file; None for other files. Its decoder allocates memory as soon as it is opened."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            sides = int.from_bytes(data[21:25], "little")
            return 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
        case b"VP8 ":
            sides = int.from_bytes(data[26:30], "little")
            return sides & 0x3FFF, sides >> 16 & 0x3FFF
    return None


def count_scans(data: bytes, name: str) -> int:
    """Scans of the first image in a JPEG file; after more than `MAX_SCANS` no more are counted."""
    scans, place = 0, 2
    for _ in range(MOST_SEGMENTS):
        found = MARKER.search(data, place)
        if found is None or found[0] == b"\xff\xd9" or scans > MAX_SCANS:
            return scans
        scans += found[0] == b"\xff\xda"
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise InputError(f"{name} is a JPEG of more than {MOST_SEGMENTS} parts, which is not read.", "Save it anew.")


def count_pages(data: bytes) -> int:
    """Pages of a TIFF, at most `MOST_PAGES`."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    place_of, entries, each, link = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    pages, seen = 0, set[int]()
    at = 8 if big else 4
    try:
        while pages < MOST_PAGES:
            (place,) = struct.unpack_from(order + place_of, data, at)
            if place == 0 or place in seen:
                break
            seen.add(place)
            (count,) = struct.unpack_from(order + entries, data, place)
            at = place + struct.calcsize("=" + entries) + count * each
            if at + link > len(data):
                break
            pages += 1
    except struct.error:
        pass
    return max(1, pages)


def refused_kind(data: bytes) -> str:
    """The name of a common kind of file that is not read; empty for all others."""
    head = data[:4096]
    if head[4:8] == b"ftyp":
        brands = head[8:32]
        if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")) and b"avif" not in brands:
            return "a HEIC image"
        if b"avif" in brands or b"avis" in brands:
            return "an AVIF image"
        return "a camera's RAW file" if b"crx " in brands else "a video"
    kinds = {
        b"%PDF": "a PDF", b"8BPS": "a Photoshop file", b"%!PS": "a PostScript file",
        b"\xc5\xd0\xd3\xc6": "a PostScript file", b"FUJIFILMCCD-RAW": "a camera's RAW file",
        b"IIU\x00": "a camera's RAW file", b"IIRO": "a camera's RAW file", b"IIRS": "a camera's RAW file",
        b"MMOR": "a camera's RAW file", b"\xff\x0a": "a JPEG XL image", b"\x00\x00\x00\x0cJXL ": "a JPEG XL image",
        b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 image", b"\xff\x4f\xff\x51": "a JPEG 2000 image",
        b"\x1a\x45\xdf\xa3": "a video", b"gimp xcf": "a GIMP file",
    }  # fmt: skip
    for magic, kind in kinds.items():
        if head.startswith(magic):
            return kind
    if head[:4] in (b"II*\x00", b"MM\x00*") and head[8:10] == b"CR":
        return "a camera's RAW file"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype svg")) and b"<svg" in text:
        return "an SVG drawing"
    return ""
