"""The tutorial sheet: a painting in six to eight steps on one page, with the colors of each."""

from itertools import groupby

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paintproc.process.generate import PROVENANCE
from paintproc.sequence import PaintingSequence
from paintproc.version import __version__

MOST_STEPS = 8
LEAST_CHANGE = 1.0
"""Steps differ by at least this mean absolute difference, in gray levels."""
PALETTE = 6
"""Colors in a palette, at most."""
SAMPLES = 20_000
"""Pixels a palette is made from, at most."""
LIGHTNESS = 0.7
"""How much lightness counts against hue and chroma when colors are told apart."""
NEAR_COLORS = 4.0
"""Colors nearer to each other than this (Lab, with `LIGHTNESS`) are one swatch."""

PAGE, INK, SOFT, LINE = (250, 249, 246), (70, 66, 60), (110, 104, 95), (214, 209, 200)
WIDTH, HEIGHT, MARGIN, GAP = 1240, 1754, 44, 36
"""The page in pixels, A4 at 150 dpi (higher where the steps need it); its margin; between columns."""
HEAD, FOOT, ROW_GAP = 88, 24, 12
"""Height of the title and of the last line; least space between rows."""
PICTURE_TOP, CAPTION_LINE = 40, 23
"""Height of a step's heading, and of a line of its caption."""
SWATCH, HEX = (34, 64), 72
"""A swatch's height (at most) and width (at least); the width of its hex value."""

Pen = ImageDraw.ImageDraw


def steps_sheet(sequence: PaintingSequence) -> np.ndarray:
    """A page that shows the painting step by step: uint8 sRGB [height, 1240, 3], height >= 1754.

    Each step has its number, stage, minutes of painting time, the canvas, its caption, and the
    main colors of what changed since the step before, dark to light. A sequence whose frames
    all look like its first one gives a page without steps. Equal sequences give equal pages.
    """
    steps = choose_steps(sequence)
    columns = 2 if len(steps) > 3 else 1
    cell = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    height, width = sequence.frames[0].shape[:2]
    most = (372, 400) if columns == 2 else (560, 460)
    scale = min(most[0] / width, most[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    body = PICTURE_TOP + max(size[1], PALETTE * 30)
    captions = [_wrap(_capital(sequence.captions[k]), _font(17), cell) for k in steps]
    rows = [
        body + 12 + CAPTION_LINE * max(map(len, captions[at : at + columns])) for at in range(0, len(steps), columns)
    ]
    around = 2 * MARGIN + HEAD + FOOT
    page_height = max(HEIGHT, around + sum(rows) + ROW_GAP * len(rows))
    space = (page_height - around - sum(rows)) // max(1, len(rows))
    page = Image.new("RGB", (WIDTH, page_height), PAGE)
    pen = ImageDraw.Draw(page)
    _title(pen, sequence, len(steps), page_height)
    y, before = MARGIN + HEAD, 0
    for n, k in enumerate(steps):
        x = MARGIN + n % columns * (cell + GAP)
        _heading(pen, (x, y), cell, n + 1, sequence.stages[k], sequence.seconds[k])
        picture = Image.fromarray(sequence.frames[k]).resize(size, Image.Resampling.LANCZOS)
        page.paste(picture, (x, y + PICTURE_TOP))
        colors = added_colors(sequence.frames[before], sequence.frames[k])
        _swatches(pen, (x + size[0] + 14, y + PICTURE_TOP), cell - size[0] - 14, body - PICTURE_TOP, colors)
        for i, line in enumerate(captions[n]):
            pen.text((x, y + body + 10 + i * CAPTION_LINE), line, INK, _font(17))
        before = k
        if n % columns == columns - 1:
            y += rows[n // columns] + space
    return np.array(page)


def choose_steps(sequence: PaintingSequence) -> list[int]:
    """Positions of the frames that are shown, in order; at most eight.

    The last frame, the last frame of each stage (the longest stages first), then frames in the
    middle of the longest gaps. Never the first frame, nor one that hardly differs from it or
    from another one chosen.
    """
    ends, longer = [], {}
    for _, run in groupby(range(len(sequence)), key=lambda k: sequence.stages[k]):
        frames = list(run)
        ends.append(frames[-1])
        longer[frames[-1]] = len(frames)
    last = len(sequence) - 1
    ends.sort(key=lambda k: (k != last, -longer[k], k))
    chosen, left = [0], set(range(1, len(sequence)))

    def take(k: int) -> None:
        left.discard(k)
        frame = sequence.frames[k]
        if all(cv2.absdiff(frame, sequence.frames[other]).mean() >= LEAST_CHANGE for other in chosen):
            chosen.append(k)

    def distance(k: int) -> int:
        """To the nearest frame chosen, or to the end of the sequence."""
        return min(abs(k - other) for other in [*chosen, last + 1])

    for k in ends:
        if k in left and len(chosen) <= MOST_STEPS:
            take(k)
    while left and len(chosen) <= MOST_STEPS:
        take(max(sorted(left), key=distance))
    return sorted(chosen)[1:]


def added_colors(before: np.ndarray, after: np.ndarray, count: int = PALETTE) -> np.ndarray:
    """The main colors of what changed between two canvases: uint8 sRGB [K, 3], dark to light.

    `before` and `after` are uint8 [H, W, 3]; K <= `count` is smaller where fewer colors differ
    clearly, and 0 where nothing changed. The colors occur in `after`.
    """
    change = cv2.absdiff(after, before).max(2)
    # what a soft edge or a rounding changed a little is not what was added
    pixels = after[change > min(6, max(0, int(change.max()) - 1))]
    if not len(pixels):
        return np.zeros((0, 3), np.uint8)
    pixels = pixels[:: -(-len(pixels) // SAMPLES)]
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0].astype(np.float64)
    lab[:, 0] *= LIGHTNESS
    centers = _clusters(lab, count)
    nearest = ((lab[:, None] - centers[None]) ** 2).sum(2).argmin(0)
    order = np.lexsort((*pixels[nearest].T, lab[nearest, 0]))
    return pixels[nearest[order]]


def _clusters(points: np.ndarray, count: int) -> np.ndarray:
    """Medians [K, 3] of at most `count` clusters of `points` [N, 3].

    The cluster with the largest squared error is cut across its longest axis until there are
    enough (or all are tight); then k-means; then near ones are joined, the larger first.
    """
    label = np.zeros(len(points), int)
    for new in range(1, count):
        errors = [((points[label == k] - points[label == k].mean(0)) ** 2).sum() for k in range(new)]
        inside = np.flatnonzero(label == int(np.argmax(errors)))
        centered = points[inside] - points[inside].mean(0)
        # sums by numpy and not by BLAS, whose rounding depends on the number of threads
        axis = np.linalg.eigh((centered[:, :, None] * centered[:, None]).sum(0))[1][:, -1]
        along = (centered * axis).sum(1)
        if np.ptp(along) < NEAR_COLORS:
            break
        label[inside[along > 0]] = new
    for _ in range(12):
        means = np.array([points[label == k].mean(0) for k in np.unique(label)])
        moved = ((points[:, None] - means[None]) ** 2).sum(2).argmin(1)
        if (moved == label).all():
            break
        label = moved
    names, sizes = np.unique(label, return_counts=True)
    kept: list[np.ndarray] = []
    for k in names[np.argsort(-sizes, kind="stable")]:
        center = np.median(points[label == k], 0)
        if all(np.linalg.norm(center - other) >= NEAR_COLORS for other in kept):
            kept.append(center)
    return np.array(kept)


def _title(pen: Pen, sequence: PaintingSequence, count: int, height: int) -> None:
    """The first line, a rule under it, and the last line of the page."""
    minutes = f"{count} step{'s' if count != 1 else ''} · {sequence.seconds[-1] / 60:.0f} minutes"
    pen.text((MARGIN, MARGIN + 44), "How it could have been painted", INK, _font(40), anchor="ls")
    pen.text((WIDTH - MARGIN, MARGIN + 44), minutes, SOFT, _font(20), anchor="rs")
    pen.line((MARGIN, MARGIN + 66, WIDTH - MARGIN - 1, MARGIN + 66), LINE, 2)
    foot = height - MARGIN
    pen.text((MARGIN, foot), PROVENANCE, SOFT, _font(16), anchor="ls")
    pen.text((WIDTH - MARGIN, foot), f"paintproc {__version__}", SOFT, _font(16), anchor="rs")


def _heading(pen: Pen, at: tuple[int, int], width: int, number: int, stage: str, seconds: float) -> None:
    """Number and stage on the left, the painting time on the right."""
    (x, y), time = at, f"{seconds / 60:.0f} min"
    pen.text((x, y + 26), str(number), SOFT, _font(32), anchor="ls")
    indent = round(_font(32).getlength(str(number))) + 12
    left = width - indent - round(_font(17).getlength(time)) - 16
    line = _wrap(_capital(stage), _font(24), left)
    pen.text((x + indent, y + 26), line[0] + (" ..." if len(line) > 1 else ""), INK, _font(24), anchor="ls")
    pen.text((x + width, y + 26), time, SOFT, _font(17), anchor="rs")


def _swatches(pen: Pen, at: tuple[int, int], width: int, height: int, colors: np.ndarray) -> None:
    """One color below the other, dark on top, each with its hex value beside it."""
    (x, y), each = at, height / PALETTE
    right = x + min(max(SWATCH[1], width - HEX - 10), 110)
    for k, color in enumerate(colors.tolist()):
        top, bottom = y + round(k * each), y + round((k + 1) * each) - 7
        pen.rectangle((x, top, right - 1, bottom), tuple(color), LINE)
        pen.text((right + 9, (top + bottom) / 2), "#{:02x}{:02x}{:02x}".format(*color), SOFT, _font(15), anchor="lm")


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels; words that are longer are cut. At least one line."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".lstrip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
