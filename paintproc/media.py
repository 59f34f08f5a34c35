"""Read and write images and videos, by Pillow and ffmpeg."""

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
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from paintproc.decoding import FORMATS, MAX_PIXELS, decode, shrunk, to_srgb, too_large
from paintproc.errors import InputError, MissingError, OutputError
from paintproc.headers import TimedBytes, refused_kind
from paintproc.png import encode_png

PillowImage = Image.Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".gif", ".bmp")
"""Endings by which images are found in folders."""
MAX_BYTES = 2**29


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
    refused = refused_kind(data)
    if refused:
        raise InputError(f"{name} is {refused}, which is not read.", "Convert it to PNG or JPEG first.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels, notes = decode(data, name, max_side)
    except UnidentifiedImageError:
        raise InputError(f"{name} is not an image of a known kind (PNG, JPEG, WebP, TIFF, GIF, BMP).") from None
    except Image.DecompressionBombError as error:
        raise too_large(name, int("".join(filter(str.isdigit, str(error).split(" pixels")[0])))) from None
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
            source: Any = TimedBytes(data, "an image")
            with Image.open(source, formats=FORMATS) as opened:
                return opened.height, opened.width
    except Exception as error:
        raise InputError(f"The size of an image cannot be read: {error}.") from error


def shrink_pixels(pixels: np.ndarray, max_side: int) -> np.ndarray:
    """`pixels`, uint8 [H, W, 3], with the longer side at most `max_side`."""
    return np.array(shrunk(Image.fromarray(pixels), max_side))


def shrink_picture(picture: Picture, max_side: int | None) -> Picture:
    """The same picture with its longer side at most `max_side`."""
    if not max_side or max(picture.pixels.shape[:2]) <= max_side:
        return picture
    return replace(picture, pixels=np.array(shrunk(Image.fromarray(picture.pixels), max_side)))


def picture_from_pixels(pixels: np.ndarray, max_side: int | None = None) -> Picture:
    """A picture from uint8 sRGB [H, W, 3]; InputError for any other array."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise InputError(f"An image array is uint8 [height, width, 3], not {pixels.dtype} {pixels.shape}.")
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
    return Picture(np.array(shrunk(Image.fromarray(pixels), max_side)), digest, ())


def picture_from_image(image: PillowImage, max_side: int | None = None) -> Picture:
    """A picture from an image of Pillow, converted as `load_picture` converts a file; of several frames the current
    one. InputError for what cannot be read.
    """
    name, notes = "the image", list[str]()
    if image.width * image.height > MAX_PIXELS:
        raise too_large(name, image.width * image.height)
    try:
        image.load()
        pixels = np.array(to_srgb(ImageOps.exif_transpose(image), name, notes))
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
            raise InputError(f"{name} is larger than {MAX_BYTES >> 20} MiB.", "Convert it to PNG or JPEG first.")
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


def save_png(path: Path, pixels: np.ndarray, text: dict[str, str]) -> None:
    """Write uint8 [H, W, 3] with `text` as PNG text chunks."""
    path.write_bytes(encode_png(pixels, text))


def save_animation(path: Path, frames: Sequence[np.ndarray], kind: str, seconds: float, comment: str) -> None:
    """Write a looping `gif` or `webp`; the last frame is shown three times as long as the others."""
    each = round(1000 * seconds / (len(frames) + 2))
    images = [Image.fromarray(frame) for frame in frames]
    if kind == "gif":
        # one palette for all frames: with one each, flat areas flicker
        samples = [np.asarray(shrunk(image, 128)) for image in images]
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
