"""A truth table of pixels, and files that are refused, each made here."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from paintproc.errors import InputError, Interrupted, OutputError
from paintproc.media import (
    contact_sheet,
    count_frames,
    load_picture,
    picture_from_image,
    picture_from_pixels,
    save_animation,
    save_png,
    save_video,
)


def chart() -> np.ndarray:
    """Four colored quarters on 40 x 60 pixels: no symmetry, so any wrong turn shows."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:] = (200, 30, 40), (20, 180, 60)
    pixels[20:, :30], pixels[20:, 30:] = (30, 60, 190), (220, 210, 90)
    return pixels


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def load(data: bytes, **options) -> np.ndarray:
    return load_picture(data, "test", **options).pixels


def png(width: int, height: int, depth: int, color: int, rows: bytes = b"") -> bytes:
    """A PNG by hand: Pillow writes neither 16-bit RGB nor headers without pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_plain_color(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(load(encoded(Image.fromarray(chart()), kind, **options)), chart())


def test_jpeg():
    assert np.abs(load(encoded(Image.fromarray(chart()), "JPEG", quality=95)).astype(int) - chart()).mean() < 3


TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[::-1],
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: p.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(TURNS[orientation](chart()))
    assert np.array_equal(load(encoded(Image.fromarray(stored), exif=exif)), chart())


def test_transparency_is_laid_over_white():
    pixels = np.dstack([chart(), np.full((40, 60), 255, np.uint8)])
    pixels[:, :10, 3] = 0
    pixels[:, 10:20, 3] = 128
    loaded = load(encoded(Image.fromarray(pixels))).astype(float)
    assert (loaded[:, :10] == 255).all()
    half = chart()[:, 10:20] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(loaded[:, 10:20] - half).max() <= 1
    assert np.array_equal(loaded[:, 20:], chart()[:, 20:])


def test_gray_with_alpha_and_palette_with_transparency():
    gray = np.zeros((8, 8, 2), np.uint8)
    gray[..., 0], gray[:4, :, 1] = 90, 255
    loaded = load(encoded(Image.fromarray(gray, "LA")))
    assert (loaded[:4] == 90).all()
    assert (loaded[4:] == 255).all()
    palette = Image.fromarray(chart()).convert("P", palette=Image.Palette.ADAPTIVE)
    transparent = palette.getpixel((0, 0))
    loaded = load(encoded(palette, transparency=transparent))
    assert (loaded[5, 5] == 255).all()
    assert np.array_equal(loaded[:, 30:], chart()[:, 30:])


def test_gray_bilevel_and_palette():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(load(encoded(Image.fromarray(gray)))[..., 1], gray)
    assert np.array_equal(load(encoded(Image.fromarray(gray > 99)))[..., 2], (gray > 99) * 255)
    palette = Image.fromarray(chart()).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(load(encoded(palette)), chart())


def test_sixteen_bit_gray_keeps_its_levels():
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    for kind in ("PNG", "TIFF"):
        loaded = load(encoded(Image.fromarray(ramp), kind))[..., 0]
        assert np.abs(loaded - ramp / 257).max() <= 0.51
        assert len(np.unique(loaded)) == 256


def test_sixteen_bit_color():
    levels = (chart().astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    assert np.array_equal(load(png(60, 40, 16, 2, rows)), chart())


def test_cmyk():
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:4, :, 0] = 255  # cyan above
    inks[4:, :, 3] = 128  # half black below
    for kind in ("TIFF", "JPEG"):
        loaded = load(encoded(Image.fromarray(inks, "CMYK"), kind)).astype(int)
        assert np.abs(loaded[1, 1] - (0, 255, 255)).max() <= 6
        assert np.abs(loaded[6, 6] - 127).max() <= 6


def test_color_profile_is_converted_to_srgb():
    # a profile whose red and blue primaries change places: converting swaps the channels
    source = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    data = bytearray(source.tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    places = {bytes(data[132 + 12 * k : 136 + 12 * k]): 136 + 12 * k for k in range(count)}
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    data[red : red + 8], data[blue : blue + 8] = data[blue : blue + 8], data[red : red + 8]
    loaded = load(encoded(Image.fromarray(chart()), icc_profile=bytes(data))).astype(int)
    assert np.abs(loaded - chart()[..., ::-1]).max() <= 2
    plain = load(encoded(Image.fromarray(chart()), icc_profile=source.tobytes())).astype(int)
    assert np.abs(plain - chart()).max() <= 1


def test_a_profile_that_does_not_fit_is_said():
    gray_profile = b"not a profile at all"
    picture = load_picture(encoded(Image.fromarray(chart()), icc_profile=gray_profile), "odd.png")
    assert np.array_equal(picture.pixels, chart())
    assert "profile" in picture.notes[0]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_is_taken_and_said(kind):
    frames = [Image.new("RGB", (9, 7), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = load_picture(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options), "many")
    assert np.abs(picture.pixels.astype(int) - (255, 0, 0)).max() <= 1
    assert picture.notes == (f"many has 3 {'pages' if kind == 'TIFF' else 'frames'}; the first is taken.",)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 20_000), (20_000, 1), (7, 333)])
def test_extreme_shapes(width, height):
    data = encoded(Image.new("RGB", (width, height), (9, 8, 7)))
    assert load(data).shape == (height, width, 3)
    shrunk = load(data, max_side=100)
    assert max(shrunk.shape[:2]) == min(100, max(width, height))
    assert (shrunk == (9, 8, 7)).all()


def test_shrinking_never_enlarges():
    assert load(encoded(Image.fromarray(chart())), max_side=500).shape == (40, 60, 3)
    assert picture_from_pixels(chart(), 30).pixels.shape == (20, 30, 3)


def test_a_huge_header_is_refused_before_allocation():
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="900 million"):
        load(png(30_000, 30_000, 8, 2))
    with pytest.raises(InputError, match="144 million"):
        load(png(12_000, 12_000, 8, 2))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def many_scans(count: int, side: int = 64) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are `count`."""
    data = encoded(Image.new("RGB", (side, side), (90, 120, 60)), "JPEG", progressive=True)
    scans = data.count(b"\xff\xda")
    last = data[data.rindex(b"\xff\xc4", 0, data.rindex(b"\xff\xda")) : -2]
    return data[:-2] + (count - scans) * last + data[-2:]


def tiff_pages(count: int) -> bytes:
    """A TIFF of so many pages of one pixel."""
    tags = [(256, 3, 1), (257, 3, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 3, 1), (279, 4, 1)]
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, kind, 1, n) for tag, kind, n in tags)
    pages = b"".join(
        body + struct.pack("<I", 10 + (k + 1) * (len(body) + 4) if k < count - 1 else 0) for k in range(count)
    )
    return b"II*\0" + struct.pack("<I", 10) + b"\x80\0" + pages


def bounded(data: bytes) -> tuple[str, float]:
    """What `load` says of a file in a process of its own, whose memory is bounded, and the processor time it takes."""
    code = (
        "import resource, sys, time; from paintproc.media import load_picture\n"
        "from paintproc.errors import InputError; from paintproc.jobs.local import limit_memory\n"
        "data = sys.stdin.buffer.read()\n"
        "own = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); limit_memory(own + 10**9)\n"
        "begun = time.process_time()\n"
        "try: said = load_picture(data, 'test', max_side=100).pixels.shape\n"
        "except InputError as error: said = error\n"
        "print(said); print(time.process_time() - begun)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    said, seconds = done.stdout.decode().splitlines()
    return said, float(seconds)


def chunk_flood() -> bytes:
    whole = png(4, 4, 8, 2, 4 * (b"\0" + bytes(12)))
    empty = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return whole[:33] + 400_000 * empty + whole[33:]


COSTLY = {
    "scans": (lambda: many_scans(1000, 1000), "JPEG of more than 100 scans"),
    "webp": (lambda: encoded(Image.new("RGB", (16383, 8191)), "WEBP", lossless=True, method=0), "MB of memory"),
    "tall": (lambda: encoded(Image.new("L", (1, 134_000)), compress_level=1), "1 x 134000 pixels"),
    "wide": (lambda: encoded(Image.new("L", (134_000_000, 1)), compress_level=1), "134000000 x 1 pixels"),
    "alpha": (lambda: encoded(Image.new("LA", (11500, 11500)), compress_level=1), "MB of memory"),
    "pages": (lambda: tiff_pages(60_000), "(1, 1, 3)"),
    "large": (lambda: encoded(Image.new("L", (10_000, 10_000)), compress_level=1), "(100, 100, 3)"),
    "chunks": (chunk_flood, "(4, 4, 3)"),
}
"""Files that took minutes or gigabytes, and what is said of them."""


@pytest.mark.parametrize("kind", COSTLY)
def test_a_costly_file_is_refused_or_read_within_bounds(kind):
    make, words = COSTLY[kind]
    said, seconds = bounded(make())
    assert words in said
    assert seconds < 10


def test_usual_files_are_within_the_bounds(tmp_path):
    """Ten scans are usual, and a phone adds a film behind its picture."""
    scans = many_scans(100)
    film = scans.count(b"\xff\xda") * b"\xff\xda\0\2"
    assert load(scans + film).shape == (64, 64, 3)
    with pytest.raises(InputError, match="scans"):
        load(many_scans(101))
    for count, words in ((3, "has 3 pages"), (1000, "has 1000 or more pages"), (1200, "has 1000 or more pages")):
        assert words in load_picture(tiff_pages(count), "test").notes[0]
    assert load_picture(tiff_pages(1), "test").notes == ()


def test_a_decoder_is_stopped_by_time_and_by_signals(monkeypatch):
    from paintproc import headers, stopping

    data = chunk_flood()
    monkeypatch.setattr(headers, "MAX_SECONDS", 0.1)
    with pytest.raises(InputError, match=r"takes longer than 0\.1 s"):
        load(data)
    monkeypatch.setattr(stopping, "_state", stopping._State())
    stopping._record(15, None)
    with pytest.raises(Interrupted):
        load(encoded(Image.fromarray(chart())))


def test_strips_of_rows_are_converted_as_the_whole(monkeypatch):
    from paintproc import decoding

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 40, 4)).astype(np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    files = [encoded(Image.fromarray(pixels), icc_profile=profile), encoded(Image.fromarray(pixels, "CMYK"), "TIFF")]
    files += [encoded(Image.fromarray(pixels[..., :2], "LA")), encoded(Image.fromarray(pixels).quantize(16))]
    whole = [load(data) for data in files]
    monkeypatch.setattr(decoding, "STRIP", 40 * 7)
    assert all(np.array_equal(load(data), pixels) for data, pixels in zip(files, whole, strict=True))


@pytest.mark.parametrize("muted", [True, False])
def test_libtiff_is_silent(tmp_path, muted):
    """Its messages would reach the user, whatever the options."""
    data = bytearray(encoded(Image.fromarray(chart()), "TIFF", compression="tiff_lzw"))
    data[20:60] = bytes(40)
    (tmp_path / "bad.tiff").write_bytes(data)
    code = "import contextlib\nfrom paintproc import decoding, media\n"
    if not muted:
        code += "decoding._without_stderr = contextlib.nullcontext\n"
    code += f"with contextlib.suppress(Exception): media.load_picture({str(tmp_path / 'bad.tiff')!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stderr == "") == muted


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"quality": 50}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}], ids=str
)
def test_the_size_of_a_webp_is_read_before_it_is_opened(options):
    from paintproc.headers import webp_size

    assert webp_size(encoded(Image.fromarray(chart()), "WEBP", **options)) == (60, 40)
    assert webp_size(encoded(Image.fromarray(chart()))) is None


TIFF_HEAD = b"II*\0\x08\0\0\0"
REFUSED = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0avifmif1",
    "video": b"\0\0\0\x18ftypisom\0\0\0\0isommp42",
    "PDF": b"%PDF-1.7\n",
    "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "RAW": b"II*\0\x10\0\0\0CR\x02\0",
    "Photoshop": b"8BPS\0\x01",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_kinds_are_refused_by_name(kind):
    with pytest.raises(InputError, match=kind):
        load(REFUSED[kind] + bytes(100))


def test_a_dng_is_refused_as_raw():
    from PIL import TiffImagePlugin

    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706] = b"\x01\x04\0\0"
    with pytest.raises(InputError, match="RAW"):
        load(encoded(Image.fromarray(chart()), "TIFF", tiffinfo=tags))


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "empty"), (b"just some text", "not an image"), (b"\x89PNG\r\n\x1a\n", "damaged|not an image")],
)
def test_no_image(data, words):
    with pytest.raises(InputError, match=words):
        load(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_truncated_files_are_damaged(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    for part in (0.3, 0.6, 0.9):
        with pytest.raises(InputError, match=r"damaged|not an image"):
            load(whole[: int(len(whole) * part)])


def test_content_decides_not_the_name(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(Image.fromarray(chart())))
    assert np.array_equal(load_picture(path).pixels, chart())


@pytest.mark.parametrize(("make", "words"), [("missing", "does not exist"), ("folder", "folder"), ("pipe", "regular")])
def test_paths_that_are_no_files(tmp_path, make, words):
    import os

    path = tmp_path / "it"
    if make == "folder":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    with pytest.raises(InputError, match=words):
        load_picture(path)


def frames(count: int, height: int, width: int) -> list[np.ndarray]:
    return [np.full((height, width, 3), (k * 20 % 256, 99, 200), np.uint8) for k in range(count)]


@pytest.mark.parametrize("size", [(64, 64), (65, 33), (1, 1), (31, 2)])
def test_video_of_any_size_holds_every_frame(tmp_path, size):
    path = tmp_path / "a.mp4"
    save_video(path, iter(frames(9, *size)), 9, 30, "a comment")
    assert count_frames(path) == 9
    assert b"a comment" in path.read_bytes()


def test_video_is_the_same_every_time(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        save_video(tmp_path / name, frames(12, 48, 40), 12, 25, "x")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_video_colors_survive(tmp_path):
    import subprocess

    import imageio_ffmpeg

    target = np.zeros((64, 64, 3), np.uint8)
    target[:] = (200, 60, 30)
    save_video(tmp_path / "a.mp4", [target] * 3, 3, 30, "x")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.mp4"]
    raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
    assert np.abs(np.frombuffer(raw, np.uint8).reshape(3, 64, 64, 3).astype(int) - target).max() <= 4


def test_a_video_that_lost_frames_is_refused(tmp_path):
    with pytest.raises(OutputError, match="5 frames instead of 9"):
        save_video(tmp_path / "a.mp4", frames(5, 16, 16), 9, 30, "x")


def test_a_video_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(OutputError, match="encoded"):
        save_video(tmp_path / "no" / "a.mp4", frames(5, 16, 16), 5, 30, "x")
    assert count_frames(tmp_path / "nothing.mp4") == 0


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_animations_hold_all_frames(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    save_animation(path, frames(6, 20, 30), kind, 2.0, "said so")
    with Image.open(path) as image:
        assert b"said so" in path.read_bytes()
        assert (image.n_frames, image.size, image.info["loop"]) == (6, (30, 20), 0)


def test_png_carries_its_text(tmp_path):
    save_png(tmp_path / "a.png", chart(), {"Comment": "synthetic"})
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["Comment"] == "synthetic"
        assert np.array_equal(np.array(image), chart())


def test_the_sheet_shows_every_frame():
    page = contact_sheet([np.full((40, 60, 3), 10 * k, np.uint8) for k in range(6)], [f"frame {k}" for k in range(6)])
    assert all((page == 10 * k).all(-1).sum() >= 40 * 60 for k in range(1, 6))


def test_an_image_of_pillow_is_read_like_its_file():
    """Turned by EXIF, its profile converted, transparency on white, 16 bits as 8."""
    turned = Image.Exif()
    turned[0x0112] = 6
    gray = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    rgba = np.dstack([chart(), np.linspace(0, 255, 2400).reshape(40, 60).astype(np.uint8)])
    files = {
        "turned": encoded(Image.fromarray(chart()), exif=turned),
        "transparent": encoded(Image.fromarray(rgba)),
        "palette": encoded(Image.fromarray(rgba).quantize(8), transparency=0),
        "16 bit": encoded(Image.fromarray(chart()[..., 0].astype(np.uint16) * 257)),
        "ink": encoded(Image.fromarray(chart()).convert("CMYK"), "TIFF"),
        "wrong profile": encoded(Image.fromarray(chart()), icc_profile=gray),
    }
    for name, data in files.items():
        from_file, from_image = load_picture(data, "the image"), picture_from_image(Image.open(io.BytesIO(data)))
        assert np.array_equal(from_file.pixels, from_image.pixels), name
        assert from_image.notes == from_file.notes, name
        assert from_image.sha256 == picture_from_pixels(from_image.pixels).sha256
    assert repr(picture_from_image(Image.fromarray(chart()), 30)) == "Picture(20 x 30)"
    with pytest.raises(InputError, match="floating-point"):
        picture_from_image(Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(InputError, match="million pixels"):
        picture_from_image(Image.new("1", (20_000, 10_000)))
    with pytest.raises(InputError, match="damaged"):
        picture_from_image(Image.open(io.BytesIO(files["transparent"][:-60])))
