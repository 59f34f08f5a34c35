"""Read and write images and videos; the only file that uses Pillow and ffmpeg."""

import contextlib
import errno
import hashlib
import io
import itertools
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageDraw, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError

from paintproc.errors import InputError, MissingError, OutputError

PillowImage = Image.Image

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
"""The kinds of files that are read; their content decides, not their name."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".gif", ".bmp")
"""Endings by which images are found in folders."""
MAX_PIXELS = 2**27
"""Larger pictures are refused when their header is read, before memory is allocated."""
MAX_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as it was read: sRGB, upright, without alpha."""

    pixels: np.ndarray
    """uint8 [height, width, 3]"""
    sha256: str
    """Digest of the file's bytes; for arrays and images of Pillow, of size and pixels."""
    notes: tuple[str, ...]
    """What the reader decided, in sentences."""

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"Picture({height} x {width})"


def load_picture(source: str | Path | bytes, name: str | None = None, max_side: int | None = None) -> Picture:
    """Read an image file (or its bytes) into sRGB.

    Turned upright by EXIF, color profile converted to sRGB, transparency laid over white, 16-bit
    scaled to 8; of several frames or pages the first is taken, and noted. With `max_side` the
    longer side is shrunk to it (Lanczos). InputError, in one sentence, for what cannot be read.
    """
    name = name or ("standard input" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else _read(Path(source), name)
    if not data:
        raise InputError(f"{name} is empty.")
    refused = _refused_kind(data)
    if refused:
        raise InputError(f"{name} is {refused}, which is not read.", "Convert it to PNG or JPEG first.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels, notes = _decode(data, name, max_side)
    except UnidentifiedImageError:
        raise InputError(f"{name} is not an image of a known kind (PNG, JPEG, WebP, TIFF, GIF, BMP).") from None
    except Image.DecompressionBombError as error:
        raise _too_large(name, int("".join(filter(str.isdigit, str(error).split(" pixels")[0])))) from None
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{name} is damaged: {str(error).rstrip('.') or type(error).__name__}.") from error
    return Picture(pixels, hashlib.sha256(data).hexdigest(), tuple(notes))


def picture_size(data: bytes) -> tuple[int, int]:
    """Height and width in pixels by the header of an image file, before EXIF turns it. InputError without one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                return opened.height, opened.width
    except Exception as error:
        raise InputError(f"The size of an image cannot be read: {error}.") from error


def shrink_pixels(pixels: np.ndarray, max_side: int) -> np.ndarray:
    """`pixels`, uint8 [H, W, 3], with the longer side at most `max_side`."""
    return np.array(_shrunk(Image.fromarray(pixels), max_side))


def shrink_picture(picture: Picture, max_side: int | None) -> Picture:
    """The same picture with its longer side at most `max_side`."""
    if not max_side or max(picture.pixels.shape[:2]) <= max_side:
        return picture
    return replace(picture, pixels=np.array(_shrunk(Image.fromarray(picture.pixels), max_side)))


def picture_from_pixels(pixels: np.ndarray, max_side: int | None = None) -> Picture:
    """A picture from uint8 sRGB [H, W, 3]; InputError for any other array."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise InputError(f"An image array is uint8 [height, width, 3], not {pixels.dtype} {pixels.shape}.")
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    return Picture(np.array(_shrunk(Image.fromarray(pixels), max_side)), digest, ())


def picture_from_image(image: PillowImage, max_side: int | None = None) -> Picture:
    """A picture from an image of Pillow, converted as `load_picture` converts a file; of several frames the current
    one. InputError for what cannot be read.
    """
    name, notes = "the image", list[str]()
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(name, image.width * image.height)
    try:
        image.load()
        pixels = np.array(_to_srgb(ImageOps.exif_transpose(image), name, notes))
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{name} is damaged: {str(error).rstrip('.') or type(error).__name__}.") from error
    return replace(picture_from_pixels(pixels, max_side), notes=tuple(notes))


def check_file(path: Path, name: str) -> None:
    """InputError where `path`, which messages call `name`, is not a file of a size that is read."""
    try:
        path.stat()
        if path.is_dir():
            raise InputError(f"{name} is a folder, not an image.")
        if not path.is_file():
            raise InputError(f"{name} is not a regular file.", "Pipe it in with --image - instead.")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{name} is larger than 1 GiB.")
    except FileNotFoundError:
        if "://" in name:
            raise InputError(f"{name} is an address, which is not read.", "Download the file first.") from None
        raise InputError(f"{name} does not exist.") from None
    except OSError as error:
        raise _unreadable(name, error) from error


def _read(path: Path, name: str) -> bytes:
    check_file(path, name)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: OSError) -> InputError:
    return InputError(f"{name} cannot be read: {(error.strerror or str(error)).lower()}.")


def _refused_kind(data: bytes) -> str:
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


def _decode(data: bytes, name: str, max_side: int | None) -> tuple[np.ndarray, list[str]]:
    """Pixels of an image file as `load_picture` promises them, and its notes."""
    notes = []
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise _too_large(name, width * height)
        if opened.format == "TIFF" and _is_raw(opened):
            raise InputError(f"{name} is a camera's RAW file, which is not read.", "Convert it to PNG or JPEG first.")
        count = getattr(opened, "n_frames", 1)
        if count > 1 and opened.format != "MPO":
            opened.seek(0)
            notes.append(f"{name} has {count} {'pages' if opened.format == 'TIFF' else 'frames'}; the first is taken.")
        if max_side and opened.format == "JPEG" and max(opened.size) > 8 * max_side:
            opened.draft(opened.mode, (4 * max_side, 4 * max_side))
        opened.load()
        image: Image.Image = opened
        image = ImageOps.exif_transpose(image)
        image = _to_srgb(image, name, notes)
    return np.array(_shrunk(image, max_side)), notes


def _shrunk(image: Image.Image, max_side: int | None) -> Image.Image:
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


def _too_large(name: str, pixels: int) -> InputError:
    limit = MAX_PIXELS // 10**6
    return InputError(f"{name} has {pixels // 10**6} million pixels; at most {limit} are read.", "Shrink it first.")


def _is_raw(image: Image.Image) -> bool:
    """Whether a TIFF is a camera's: DNG has a version tag; NEF, ARW and PEF have sub-IFDs and a maker's name."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    return 50706 in tags or (330 in tags and 271 in tags)


def _to_srgb(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    """`image` as 8-bit sRGB without alpha; what was decided is added to `notes`."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = Image.fromarray(_eight_bit(np.asarray(image)))
    elif image.mode == "F":
        raise InputError(f"{name} is a floating-point image, which is not read.", "Convert it to 8 or 16 bit first.")
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode in ("P", "1"):
        image = image.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            image = converted or image
        except (ImageCms.PyCMSError, ValueError, OSError):
            notes.append(f"{name} has a color profile that does not fit it; it is read as sRGB.")
    image = image.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        image = white
    return image


def save_png(path: Path, pixels: np.ndarray, text: dict[str, str]) -> None:
    """Write uint8 [H, W, 3] with `text` as PNG text chunks."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        chunks.add_itxt(key, value)
    Image.fromarray(pixels).save(path, "PNG", pnginfo=chunks, compress_level=4)


def save_animation(path: Path, frames: Sequence[np.ndarray], kind: str, seconds: float, comment: str) -> None:
    """Write a looping `gif` or `webp`; the last frame is shown three times as long as the others."""
    each = round(1000 * seconds / (len(frames) + 2))
    images = [Image.fromarray(frame) for frame in frames]
    if kind == "gif":
        # one palette for all frames: with one each, flat areas flicker
        samples = [np.asarray(_shrunk(image, 128)) for image in images]
        palette = Image.fromarray(np.concatenate(samples)).quantize(256, Image.Quantize.MEDIANCUT)
        images = [image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for image in images]
    duration = [each] * (len(images) - 1) + [3 * each]
    exif = Image.Exif()
    exif[0x010E] = comment  # ImageDescription
    extra = {"quality": 85, "method": 4, "exif": exif} if kind == "webp" else {"comment": comment.encode()}
    images[0].save(path, kind.upper(), save_all=True, append_images=images[1:], duration=duration, loop=0, **extra)


def contact_sheet(frames: Sequence[np.ndarray], labels: Sequence[str]) -> np.ndarray:
    """All frames on one page, uint8 [H, W, 3], each with its label below it; up to eight in one row, more in rows of
    four.
    """
    columns = len(frames) if len(frames) <= 8 else 4
    height, width = frames[0].shape[:2]
    scale = min(1.0, 320 / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    cell, gap, line = max(size[0], 150), 12, 24
    rows = -(-len(frames) // columns)
    page = Image.new("RGB", (columns * (cell + gap) + gap, rows * (size[1] + line + gap) + gap), (250, 249, 246))
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=13)
    for k, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        x, y = gap + k % columns * (cell + gap), gap + k // columns * (size[1] + line + gap)
        page.paste(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS), (x, y))
        pen.text((x, y + size[1] + 5), label, fill=(70, 66, 60), font=font)
    return np.array(page)


def label(pixels: np.ndarray) -> np.ndarray:
    """`pixels`, uint8 [H, W, 3], with the words "synthetic process" in the lower left corner."""
    image = Image.fromarray(pixels)
    size = max(8, min(image.size) // 28)
    font = ImageFont.load_default(size=size)
    ImageDraw.Draw(image).text(
        (size // 2, image.height - size // 2), "synthetic process", (255, 255, 255), font, "ls",
        stroke_width=max(1, size // 9), stroke_fill=(40, 36, 32),
    )  # fmt: skip
    return np.array(image)


def save_video(path: Path, frames: Iterable[np.ndarray], count: int, fps: int, comment: str) -> None:
    """Write `count` frames, uint8 [H, W, 3], as H.264 in an MP4, and count them by decoding the file.

    Odd sizes are padded to even ones by repeating the last row or column. Equal frames give
    equal bytes. OutputError when the encoder fails or the file holds another number of frames.
    """
    stream = iter(frames)
    first = next(stream)
    height, width = first.shape[:2]
    even = height + height % 2, width + width % 2
    arguments = [
        "-thread_queue_size", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{even[1]}x{even[0]}",
        "-r", str(fps), "-i", "-",
        "-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd,format=yuv420p",
        "-c:v", "libx264", "-preset", "veryfast", "-crf", "17", "-threads", "2",
        "-x264-params", "sync-lookahead=0:sliced-threads=1",  # the same picture with a sixth less memory
        "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "iec61966-2-1",
        "-fflags", "+bitexact", "-flags:v", "+bitexact", "-movflags", "+faststart",
        "-metadata", f"comment={comment}", "-f", "mp4", str(path.resolve()),
    ]  # fmt: skip
    with _ffmpeg(arguments, stdin=subprocess.PIPE) as (process, log):
        assert process.stdin is not None
        try:
            for frame in itertools.chain([first], stream):
                if frame.shape[:2] != even:
                    frame = np.pad(frame, ((0, even[0] - height), (0, even[1] - width), (0, 0)), "edge")
                process.stdin.write(np.ascontiguousarray(frame).data)
            process.stdin.close()
        except OSError as error:
            # ffmpeg has ended, for which Windows has another number than EPIPE
            if error.errno not in (errno.EPIPE, errno.EINVAL):
                raise
        if process.wait() != 0:
            raise _video_error(path, log)
    if (found := count_frames(path)) != count:
        raise OutputError(f"The video {path.name} holds {found} frames instead of {count}.", "Is the disk full?")


def count_frames(path: Path) -> int:
    """Number of frames in a video, by decoding it; 0 when it cannot be read."""
    arguments = ["-i", str(path.resolve()), "-map", "0:v:0", "-f", "null", "-progress", "pipe:1", "-"]
    with _ffmpeg(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as (process, _):
        output, _ = process.communicate()
    counts = [line.removeprefix(b"frame=") for line in output.splitlines() if line.startswith(b"frame=")]
    return int(counts[-1]) if process.returncode == 0 and counts else 0


@contextlib.contextmanager
def _ffmpeg(arguments: list[str], **pipes: int) -> Iterator[tuple["subprocess.Popen[bytes]", io.BufferedRandom]]:
    """A running ffmpeg in a session of its own, and its log; it is ended with the block. MissingError without one."""
    import imageio_ffmpeg

    words = ["-v", "error", "-y", *arguments]
    if pipes.get("stdin") != subprocess.PIPE:
        words.insert(0, "-nostdin")
    with tempfile.TemporaryFile() as log:
        try:
            command = [imageio_ffmpeg.get_ffmpeg_exe(), *words]
            process = subprocess.Popen(command, stderr=log, start_new_session=True, **pipes)  # type: ignore[call-overload]
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise MissingError(
                f"ffmpeg cannot be started: {reason}.", "Name one in IMAGEIO_FFMPEG_EXE, or leave mp4 out of --format."
            ) from error
        try:
            yield process, log
        finally:
            if process.poll() is None:
                process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            process.wait()


def _video_error(path: Path, log: io.BufferedRandom) -> OutputError:
    """Why ffmpeg failed, from its log."""
    log.seek(0)
    text = log.read().decode(errors="replace").strip().splitlines()
    if any("No space left" in line for line in text):
        return OutputError(f"The disk is full; {path.name} was not written.", "Free some space and run it again.")
    return OutputError(f"The video {path.name} could not be encoded: {text[-1] if text else 'ffmpeg failed'}.")
