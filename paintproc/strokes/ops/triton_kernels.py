"""The rasterizer for CUDA, in Triton: what `kernels.py` computes, one program a tile of 16 x 16 pixels.

Strokes are rows of 16 numbers in pixels, as in `kernels.py`; polylines are never stored: their nodes are computed
anew from the control points. `measure` finds which tiles a stroke's bounding box meets, `list_strokes` lists the
strokes of every tile in painting order, `draw` lays them front to back, and `pull` walks the same list again with
the color that remains below. Each pair of a stroke and a tile has a gradient row of its own, whose place follows
from the stroke's box, and `add_rows` adds a stroke's rows in a fixed order. No atomics: the same bytes every time.

Entry i of a batch's strokes is picture * N + stroke; program p is picture * tiles + tile. Offsets that grow with
both are 64 bits wide.
"""

# Triton reads these functions' own source: its arguments are tl.constexpr or have no type, and a tuple is taken apart
# whole
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
# ruff: noqa: RUF059

import inspect

import triton
import triton.language as tl

from paintproc.strokes.ops.triton_pieces import (
    COLUMNS,
    FAR,
    FOUND,
    MAX_SEGMENTS,
    OPAQUE,
    PIXELS,
    SPENT,
    TILE,
    TOLERANCE,
    colors,
    meet,
    pixels_of,
    remain,
    row_of,
    write_row,
)

SIZES = [
    "total", "across", "down", "number", "tiles", "height", "width", "along", "cells", "count", "programs", "first",
    "first_slot", "size",
]  # fmt: skip
"""Whole numbers that change from call to call: a kernel is not compiled anew for some values of them."""


def kernel(function):
    """A compiled kernel; see `SIZES`."""
    names = inspect.signature(function).parameters
    return triton.jit(function, do_not_specialize=[name for name in SIZES if name in names])


@kernel
def measure(rows, reveal, step, segments, boxes, counts, total, across, down, softness, BLOCK: tl.constexpr):
    """Each stroke's segments, the curve parameter each covers, its box of tiles and how many they are.

    boxes [4, total]: first and last tile from left to right, then from top to bottom; empty where the last comes
    before the first.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = i < total
    row = rows + i.to(tl.int64) * COLUMNS
    x0, y0 = tl.load(row, mask=here, other=0.0), tl.load(row + 1, mask=here, other=0.0)
    x1, y1 = tl.load(row + 2, mask=here, other=0.0), tl.load(row + 3, mask=here, other=0.0)
    x2, y2 = tl.load(row + 4, mask=here, other=0.0), tl.load(row + 5, mask=here, other=0.0)
    r0, r1 = tl.load(row + 6, mask=here, other=0.0), tl.load(row + 7, mask=here, other=0.0)
    shown = tl.minimum(tl.load(reveal + i, mask=here, other=0.0), 1.0)
    bend_x, bend_y = x0 - 2.0 * x1 + x2, y0 - 2.0 * y1 + y2
    bend = tl.sqrt(bend_x * bend_x + bend_y * bend_y) * shown * shown
    wanted = tl.ceil(tl.sqrt(tl.minimum(bend / (4.0 * TOLERANCE), FAR)))
    number = tl.minimum(tl.maximum(wanted, 1.0), MAX_SEGMENTS * 1.0)
    h = shown / number
    left, right = x0, x0
    top, bottom = y0, y0
    for j in range(1, MAX_SEGMENTS + 1):
        t = tl.minimum(j * 1.0, number) * h
        u = 1.0 - t
        x = u * u * x0 + 2.0 * u * t * x1 + t * t * x2
        y = u * u * y0 + 2.0 * u * t * y1 + t * t * y2
        left, right = tl.minimum(left, x), tl.maximum(right, x)
        top, bottom = tl.minimum(top, y), tl.maximum(bottom, y)
    reach = tl.maximum(r0, r1) + softness
    tx0, tx1 = tile_range(left - reach, right + reach, across)
    ty0, ty1 = tile_range(top - reach, bottom + reach, down)
    count = tl.where(shown > 0.0, tl.maximum(tx1 - tx0 + 1, 0) * tl.maximum(ty1 - ty0 + 1, 0), 0)
    tl.store(step + i, h, mask=here)
    tl.store(segments + i, number.to(tl.int32), mask=here)
    tl.store(boxes + i, tx0, mask=here)
    tl.store(boxes + total + i, tl.where(count > 0, tx1, -1), mask=here)
    tl.store(boxes + 2 * total + i, ty0, mask=here)
    tl.store(boxes + 3 * total + i, tl.where(count > 0, ty1, -1), mask=here)
    tl.store(counts + i, count, mask=here)


@triton.jit
def tile_range(low, high, tiles):
    """First and last tile between the coordinates `low` and `high`."""
    limit = (tiles * TILE).to(tl.float32)
    begin = tl.maximum(tl.minimum(low, limit), 0.0).to(tl.int32) // TILE
    end = (tl.maximum(tl.minimum(high, limit - 1.0), -1.0) + TILE).to(tl.int32) // TILE - 1
    return begin, end


@kernel
def list_strokes(boxes, start, entries, number, total, tiles, across, FILL: tl.constexpr, BLOCK: tl.constexpr):
    """How many strokes each tile has (into `start`), or, to FILL, which (into `entries`, from `start` on)."""
    program = tl.program_id(0)
    picture, tile = program // tiles, program % tiles
    tx, ty = tile % across, tile // across
    at = tl.zeros((), tl.int64)
    if FILL:
        at += tl.load(start + program)
    for begin in range(0, number, BLOCK):
        k = begin + tl.arange(0, BLOCK)
        here = k < number
        i = picture * number + k
        hit = here & (tl.load(boxes + i, mask=here, other=0) <= tx)
        hit = hit & (tl.load(boxes + total + i, mask=here, other=-1) >= tx)
        hit = hit & (tl.load(boxes + 2 * total + i, mask=here, other=0) <= ty)
        hit = hit & (tl.load(boxes + 3 * total + i, mask=here, other=-1) >= ty)
        flag = hit.to(tl.int32)
        if FILL:
            tl.store(entries + at + (tl.cumsum(flag, 0) - flag), i, mask=hit)
        at += tl.sum(flag, 0)
    if not FILL:
        tl.store(start + program, at)


@kernel
def draw(
    rows, step, segments, brush, atlas, start, entries, canvas, picture, height, width, tiles, across, along, cells,
    inverse_width, TEXTURED: tl.constexpr,
):  # fmt: skip
    """The picture, front to back; a tile is left when nothing more shines through."""
    program = tl.program_id(0)
    x, y, exists, at = pixels_of(program, tiles, across, height, width)
    light = tl.where(exists, 1.0, 0.0)
    red = tl.zeros([PIXELS], tl.float32)
    green = tl.zeros([PIXELS], tl.float32)
    blue = tl.zeros([PIXELS], tl.float32)
    begin = tl.load(start + program)
    e = tl.load(start + program + 1) - 1
    most = tl.max(light, 0)
    while (e >= begin) & (most >= SPENT):
        i = tl.load(entries + e)
        look, form, spot = meet(x, y, rows, i, step, segments, inverse_width, brush, atlas, along, cells, TEXTURED)
        t, coverage, alpha, paint = look
        weight = light * tl.minimum(alpha * coverage * paint, OPAQUE)
        c0, c1, c2, e0, e1, e2 = colors(rows, i)
        red += weight * (c0 + e0 * t)
        green += weight * (c1 + e1 * t)
        blue += weight * (c2 + e2 * t)
        light -= weight
        most = tl.max(light, 0)
        e -= 1
    red += light * tl.load(canvas + at, mask=exists, other=0.0)
    green += light * tl.load(canvas + at + 1, mask=exists, other=0.0)
    blue += light * tl.load(canvas + at + 2, mask=exists, other=0.0)
    tl.store(picture + at, red, mask=exists)
    tl.store(picture + at + 1, green, mask=exists)
    tl.store(picture + at + 2, blue, mask=exists)


@kernel
def pull(
    rows, step, segments, brush, atlas, start, entries, boxes, slots, picture, upstream, gradients, canvas_gradient,
    first, first_slot, total, height, width, tiles, across, along, cells, inverse_width, TEXTURED: tl.constexpr,
):  # fmt: skip
    """Gradient rows of the strokes over one tile, and the gradient of the canvas."""
    program = tl.program_id(0) + first
    x, y, exists, at = pixels_of(program, tiles, across, height, width)
    light = tl.where(exists, 1.0, 0.0)
    red = tl.load(picture + at, mask=exists, other=0.0)
    green = tl.load(picture + at + 1, mask=exists, other=0.0)
    blue = tl.load(picture + at + 2, mask=exists, other=0.0)
    gx = tl.load(upstream + at, mask=exists, other=0.0)
    gy = tl.load(upstream + at + 1, mask=exists, other=0.0)
    gz = tl.load(upstream + at + 2, mask=exists, other=0.0)
    begin = tl.load(start + program)
    e = tl.load(start + program + 1) - 1
    most = tl.max(light, 0)
    while (e >= begin) & (most >= SPENT):
        i = tl.load(entries + e)
        look, form, spot = meet(x, y, rows, i, step, segments, inverse_width, brush, atlas, along, cells, TEXTURED)
        t, coverage, alpha, paint = look
        if tl.max(light * coverage, 0) > 0.0:
            part, ends, slopes, light, red, green, blue = remain(light, red, green, blue, look, rows, i)
            weight, opacity = part
            d0, d1, d2 = slopes
            slope = d0 * gx + d1 * gy + d2 * gz
            removal = opacity * (0.5 * opacity * (d0 * d0 + d1 * d1 + d2 * d2) - slope)
            out = row_of(gradients, i, program, tiles, across, boxes, slots, total, first_slot)
            write_row(
                out, rows, i, step, look, form, removal, slope, weight * gx, weight * gy, weight * gz, ends,
                inverse_width, TEXTURED,
            )  # fmt: skip
        most = tl.max(light, 0)
        e -= 1
    tl.store(canvas_gradient + at, light * gx, mask=exists)
    tl.store(canvas_gradient + at + 1, light * gy, mask=exists)
    tl.store(canvas_gradient + at + 2, light * gz, mask=exists)


@kernel
def pull_atlas(
    rows, step, segments, brush, atlas, start, entries, picture, upstream, parts, programs, count, height, width,
    tiles, across, along, cells, inverse_width, TEXTURED: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """The gradient of the atlas, parts [grid, K, h, w]: each program adds up every grid-th tile for itself."""
    mine = parts + tl.program_id(0).to(tl.int64) * (count * along * cells)
    for program in range(tl.program_id(0), programs, tl.num_programs(0)):
        x, y, exists, at = pixels_of(tl.zeros((), tl.int32) + program, tiles, across, height, width)
        light = tl.where(exists, 1.0, 0.0)
        red = tl.load(picture + at, mask=exists, other=0.0)
        green = tl.load(picture + at + 1, mask=exists, other=0.0)
        blue = tl.load(picture + at + 2, mask=exists, other=0.0)
        gx = tl.load(upstream + at, mask=exists, other=0.0)
        gy = tl.load(upstream + at + 1, mask=exists, other=0.0)
        gz = tl.load(upstream + at + 2, mask=exists, other=0.0)
        begin = tl.load(start + program)
        e = tl.load(start + program + 1) - 1
        most = tl.max(light, 0)
        while (e >= begin) & (most >= SPENT):
            i = tl.load(entries + e)
            look, form, spot = meet(x, y, rows, i, step, segments, inverse_width, brush, atlas, along, cells, TEXTURED)
            t, coverage, alpha, paint = look
            place_t, place_v = spot
            if tl.max(light * coverage, 0) > 0.0:
                share, ends, slopes, light, red, green, blue = remain(light, red, green, blue, look, rows, i)
                d0, d1, d2 = slopes
                by_paint = (d0 * gx + d1 * gy + d2 * gz) * alpha * coverage
                map_at = mine + tl.load(brush + i).to(tl.int64) * (along * cells)
                for a in range(0, along, CELLS):
                    for c in range(0, cells, CELLS):
                        down = a + tl.arange(0, CELLS)
                        over = c + tl.arange(0, CELLS)
                        tent_t = tl.maximum(1.0 - tl.abs(place_t[None, :] - down.to(tl.float32)[:, None]), 0.0)
                        tent_v = tl.maximum(1.0 - tl.abs(place_v[:, None] - over.to(tl.float32)[None, :]), 0.0)
                        sums = tl.dot(tent_t * by_paint[None, :], tent_v, input_precision="ieee")
                        cell = map_at + down[:, None] * cells + over[None, :]
                        real = (down < along)[:, None] & (over < cells)[None, :]
                        tl.store(cell, tl.load(cell, mask=real, other=0.0) + sums, mask=real)
                        tl.debug_barrier()
            most = tl.max(light, 0)
            e -= 1


@kernel
def lay(
    rows, step, segments, brush, atlas, start, entries, boxes, slots, canvas, aims, aim_of, gradients, first,
    first_slot, total, count, height, width, tiles, across, along, cells, inverse_width,
    TEXTURED: tl.constexpr,
):  # fmt: skip
    """Back to front: each stroke's gradient of its own error when it is laid, and half of what it changed."""
    program = tl.program_id(0) + first
    x, y, exists, at = pixels_of(program, tiles, across, height, width)
    counts = tl.where(exists, 1.0, 0.0)
    red = tl.load(canvas + at, mask=exists, other=0.0)
    green = tl.load(canvas + at + 1, mask=exists, other=0.0)
    blue = tl.load(canvas + at + 2, mask=exists, other=0.0)
    size = height.to(tl.int64) * width * 3
    picture = program // tiles
    end = tl.load(start + program + 1)
    e = tl.load(start + program)
    while e < end:
        i = tl.load(entries + e)
        look, form, spot = meet(x, y, rows, i, step, segments, inverse_width, brush, atlas, along, cells, TEXTURED)
        t, coverage, alpha, paint = look
        if tl.max(counts * coverage, 0) > 0.0:
            # the aims of picture b begin count pictures after those of the one before it
            aim = aims + at + (picture * (count - 1) + tl.load(aim_of + i)).to(tl.int64) * size
            b0 = red - tl.load(aim, mask=exists, other=0.0)
            b1 = green - tl.load(aim + 1, mask=exists, other=0.0)
            b2 = blue - tl.load(aim + 2, mask=exists, other=0.0)
            opacity = tl.minimum(alpha * coverage * paint, OPAQUE) * counts
            c0, c1, c2, e0, e1, e2 = colors(rows, i)
            d0, d1, d2 = c0 + e0 * t - red, c1 + e1 * t - green, c2 + e2 * t - blue
            red += opacity * d0
            green += opacity * d1
            blue += opacity * d2
            gx, gy, gz = (b0 + opacity * d0) * counts, (b1 + opacity * d1) * counts, (b2 + opacity * d2) * counts
            change = 0.5 * (gx * gx + gy * gy + gz * gz - (b0 * b0 + b1 * b1 + b2 * b2) * counts)
            slope = d0 * gx + d1 * gy + d2 * gz
            out = row_of(gradients, i, program, tiles, across, boxes, slots, total, first_slot)
            write_row(
                out, rows, i, step, look, form, change, slope, opacity * gx, opacity * gy, opacity * gz,
                (e0, e1, e2), inverse_width, TEXTURED,
            )  # fmt: skip
        e += 1


@kernel
def add_rows(gradients, slots, counts, found, first, first_slot, ROWS: tl.constexpr):
    """Each stroke's gradient rows, added in order: found [total, 17]."""
    i = tl.program_id(0) + first
    begin = tl.load(slots + i) - first_slot
    count = tl.load(counts + i)
    column, r = tl.arange(0, 32), tl.arange(0, ROWS)
    sums = tl.zeros([ROWS, 32], tl.float32)
    for k in range(0, count, ROWS):
        real = (k + r < count)[:, None] & (column < FOUND)[None, :]
        sums += tl.load(gradients + (begin + k + r)[:, None] * FOUND + column[None, :], mask=real, other=0.0)
    tl.store(found + i.to(tl.int64) * FOUND + column, tl.sum(sums, 0), mask=column < FOUND)


@kernel
def adam(
    rows, found, own, mean, square, scale1, scale2, rate, low, high, size, weight, moment1, moment2,
    OWN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One step of Adam within bounds: `adam_step` of `strokes/fit.py`, on gradient rows [total, 17]."""
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = k < size
    i, j = k // COLUMNS, k % COLUMNS
    slope = tl.load(found + i * FOUND + j, mask=here, other=0.0)
    if OWN:
        slope += weight * tl.load(own + i * FOUND + j, mask=here, other=0.0)
    m = moment1 * tl.load(mean + k, mask=here, other=0.0) + (1.0 - moment1) * slope
    v = moment2 * tl.load(square + k, mask=here, other=0.0) + (1.0 - moment2) * slope * slope
    root = tl.sqrt(v * tl.load(scale2 + i, mask=here, other=1.0)) + 1e-10
    push = m * tl.load(scale1 + i, mask=here, other=1.0) / root
    moved = tl.load(rows + k, mask=here, other=0.0) - tl.load(rate + k, mask=here, other=0.0) * push
    moved = tl.minimum(
        tl.load(high + k, mask=here, other=0.0), tl.maximum(tl.load(low + k, mask=here, other=0.0), moved)
    )
    tl.store(mean + k, m, mask=here)
    tl.store(square + k, v, mask=here)
    tl.store(rows + k, moved, mask=here)
