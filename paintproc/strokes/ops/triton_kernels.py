"""The rasterizer for CUDA, in Triton: what `kernels.py` computes, one program a tile of 16 x 16 pixels.

Strokes are rows of 16 numbers in pixels, as in `kernels.py`; polylines are never stored: their nodes are computed
anew from the control points. `measure` finds which tiles a stroke's bounding box meets, `list_strokes` lists the
strokes of every tile in painting order, `draw` lays them front to back, and `pull` walks the same list again with
the color that remains below. Each pair of a stroke and a tile has a gradient row of its own, whose place follows
from the stroke's box, and `add_rows` adds a stroke's rows in a fixed order. No atomics: the same bytes every time.

Entry i of a batch's strokes is picture * N + stroke; program p is picture * tiles + tile. Offsets that grow with
both are 64 bits wide.
"""

# Triton reads these functions' own source: types of arguments are tl.constexpr or none
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

import inspect

import triton
import triton.language as tl

from paintproc.strokes.ops import kernels

TILE = tl.constexpr(kernels.TILE)
PIXELS = tl.constexpr(kernels.PIXELS)
COLUMNS = tl.constexpr(kernels.COLUMNS)
FOUND = tl.constexpr(kernels.COLUMNS + 1)
MAX_SEGMENTS = tl.constexpr(kernels.MAX_SEGMENTS)
TOLERANCE = tl.constexpr(kernels.TOLERANCE)
OPAQUE = tl.constexpr(float(kernels.OPAQUE))
SPENT = tl.constexpr(float(kernels.SPENT))
POINT = tl.constexpr(float(kernels.POINT))
TINY = tl.constexpr(float(kernels.TINY))
FAR = tl.constexpr(float(kernels.FAR))

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


@triton.jit
def meet(x, y, rows, i, step, segments, inverse_width, brush, atlas, along, cells, TEXTURED: tl.constexpr):
    """Stroke i at the pixels (x, y): the nearest point of its polyline, and what makes its opacity.

    Of segments equally near the first counts; a joint belongs to the segment before it. Returns three tuples:
    the look: curve parameter t, coverage, alpha(t) and the brush's opacity; the form, which the gradient needs: the
    segment's number, the place s on it, the offset (dx, dy) from the nearest point and its length, the radius, the
    soft edge, the brush's slopes by t and v, and the segment's vector over its squared length with one over its
    length (0, 0 and 1 for a point); and the place in the brush's map.
    """
    row = rows + i.to(tl.int64) * COLUMNS
    x0, y0, x1, y1 = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)
    x2, y2, r0, r1 = tl.load(row + 4), tl.load(row + 5), tl.load(row + 6), tl.load(row + 7)
    a0, a1 = tl.load(row + 14), tl.load(row + 15)
    h = tl.load(step + i)
    best = tl.full([PIXELS], 3.0e38, tl.float32)
    number = tl.full([PIXELS], -1.0, tl.float32)
    s = tl.zeros([PIXELS], tl.float32)
    dx = tl.zeros([PIXELS], tl.float32)
    dy = tl.zeros([PIXELS], tl.float32)
    for j in range(0, tl.load(segments + i)):
        t0 = j * h
        u0 = 1.0 - t0
        ax = u0 * u0 * x0 + 2.0 * u0 * t0 * x1 + t0 * t0 * x2
        ay = u0 * u0 * y0 + 2.0 * u0 * t0 * y1 + t0 * t0 * y2
        # a chord of a quadratic curve runs along its tangent in the middle
        m = t0 + 0.5 * h
        bx = 2.0 * h * ((1.0 - m) * (x1 - x0) + m * (x2 - x1))
        by = 2.0 * h * ((1.0 - m) * (y1 - y0) + m * (y2 - y1))
        length2 = bx * bx + by * by
        inverse2 = tl.where(length2 > POINT, 1.0 / tl.maximum(length2, POINT), 0.0)
        ux, uy = x - ax, y - ay
        place = tl.minimum(tl.maximum((ux * bx + uy * by) * inverse2, 0.0), 1.0)
        ex, ey = ux - place * bx, uy - place * by
        d = ex * ex + ey * ey
        closer = (d < best) & ((place > 0.0) | (number < 0.0))
        best = tl.where(closer, d, best)
        number = tl.where(closer, j * 1.0, number)
        s = tl.where(closer, place, s)
        dx = tl.where(closer, ex, dx)
        dy = tl.where(closer, ey, dy)
    t = (number + s) * h
    distance = tl.sqrt(best)
    radius = r0 + (r1 - r0) * t
    edge = 0.5 - (distance - radius) * inverse_width
    coverage = tl.minimum(tl.maximum(edge, 0.0), 1.0)
    alpha = a0 + (a1 - a0) * t
    m = (number + 0.5) * h
    bx = 2.0 * h * ((1.0 - m) * (x1 - x0) + m * (x2 - x1))
    by = 2.0 * h * ((1.0 - m) * (y1 - y0) + m * (y2 - y1))
    length2 = bx * bx + by * by
    inverse2 = tl.where(length2 > POINT, 1.0 / tl.maximum(length2, POINT), 0.0)
    sx, sy = bx * inverse2, by * inverse2
    inverse = tl.where(length2 > POINT, tl.sqrt(inverse2), 1.0)
    cell = atlas + tl.load(brush + i).to(tl.int64) * (along * cells)
    if TEXTURED:
        v = (sx * dy - sy * dx) / inverse / tl.maximum(radius, TINY)
        inside = tl.where((v > -1.0) & (v < 1.0), 1.0, 0.0)
        place_t = t * (along - 1).to(tl.float32)
        place_v = (tl.minimum(tl.maximum(v, -1.0), 1.0) + 1.0) * 0.5 * (cells - 1).to(tl.float32)
        a = tl.minimum(tl.maximum(place_t.to(tl.int32), 0), along - 1)
        c = tl.minimum(tl.maximum(place_v.to(tl.int32), 0), cells - 1)
        next_a, next_c = tl.minimum(a + 1, along - 1), tl.minimum(c + 1, cells - 1)
        ft, fv = place_t - a.to(tl.float32), place_v - c.to(tl.float32)
        b00, b01 = tl.load(cell + a * cells + c), tl.load(cell + a * cells + next_c)
        b10, b11 = tl.load(cell + next_a * cells + c), tl.load(cell + next_a * cells + next_c)
        low, high = b00 + (b01 - b00) * fv, b10 + (b11 - b10) * fv
        paint = low + (high - low) * ft
        paint_t = (high - low) * (along - 1).to(tl.float32)
        paint_v = ((b01 - b00) * (1.0 - ft) + (b11 - b10) * ft) * 0.5 * (cells - 1).to(tl.float32) * inside
    else:
        paint = tl.zeros([PIXELS], tl.float32) + tl.load(cell)
        paint_t = tl.zeros([PIXELS], tl.float32)
        paint_v = tl.zeros([PIXELS], tl.float32)
        place_t = tl.zeros([PIXELS], tl.float32)
        place_v = tl.zeros([PIXELS], tl.float32)
    look = (t, coverage, alpha, paint)
    form = (number, s, dx, dy, distance, radius, edge, paint_t, paint_v, sx, sy, inverse)
    return look, form, (place_t, place_v)


@triton.jit
def colors(rows, i):
    """Stroke i's color at its start, and what it adds up to its end."""
    row = rows + i.to(tl.int64) * COLUMNS + 8
    c0, c1, c2 = tl.load(row), tl.load(row + 1), tl.load(row + 2)
    return c0, c1, c2, tl.load(row + 3) - c0, tl.load(row + 4) - c1, tl.load(row + 5) - c2


@triton.jit
def pixels_of(program, tiles, across, height, width):
    """The tile's pixels: their centers x and y, which of them exist, and their place in [B, H, W, 3]."""
    picture, tile = program // tiles, program % tiles
    p = tl.arange(0, PIXELS)
    column, line = (tile % across) * TILE + p % TILE, (tile // across) * TILE + p // TILE
    exists = (column < width) & (line < height)
    at = ((picture.to(tl.int64) * height + line) * width + column) * 3
    return column.to(tl.float32) + 0.5, line.to(tl.float32) + 0.5, exists, at


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


@triton.jit
def write_row(
    out, rows, i, step, look, form, last, opacity_slope, m0, m1, m2, ends, inverse_width, TEXTURED: tl.constexpr
):
    """The gradient row [17] of stroke i over one tile: `kernels.stroke_gradient`, summed over the pixels.

    `opacity_slope` is the loss's derivative by the opacity, m0 to m2 by the color, `ends` the
    slopes of the color, `last` fills column 16.
    """
    t, coverage, alpha, paint = look
    number, s, dx, dy, distance, radius, edge, paint_t, paint_v, sx, sy, inverse = form
    e0, e1, e2 = ends
    row = rows + i.to(tl.int64) * COLUMNS
    dr = tl.load(row + 7) - tl.load(row + 6)
    da = tl.load(row + 15) - tl.load(row + 14)
    h = tl.load(step + i)
    tl.store(out + 16, tl.sum(last, 0))
    l0, l1, l2 = tl.sum(m0 * t, 0), tl.sum(m1 * t, 0), tl.sum(m2 * t, 0)
    tl.store(out + 8, tl.sum(m0, 0) - l0)
    tl.store(out + 9, tl.sum(m1, 0) - l1)
    tl.store(out + 10, tl.sum(m2, 0) - l2)
    tl.store(out + 11, l0)
    tl.store(out + 12, l1)
    tl.store(out + 13, l2)
    by_alpha = opacity_slope * coverage * paint
    ga_t = tl.sum(by_alpha * t, 0)
    tl.store(out + 14, tl.sum(by_alpha, 0) - ga_t)
    tl.store(out + 15, ga_t)
    on_edge = tl.where((edge > 0.0) & (edge < 1.0), inverse_width, 0.0)
    by_radius = opacity_slope * alpha * paint * on_edge
    unit = -by_radius / tl.maximum(distance, TINY)
    by_t = m0 * e0 + m1 * e1 + m2 * e2 + by_alpha * da
    if TEXTURED:
        by_paint = opacity_slope * alpha * coverage
        by_lateral = by_paint * paint_v / tl.maximum(radius, TINY)
        by_radius -= by_lateral * ((sx * dy - sy * dx) / inverse) / tl.maximum(radius, TINY)
        by_t += by_paint * paint_t
        beyond = sx * dx + sy * dy
        lx, ly = by_lateral * sy / inverse, -by_lateral * sx / inverse
    else:
        beyond = tl.zeros([PIXELS], tl.float32)
        lx = tl.zeros([PIXELS], tl.float32)
        ly = tl.zeros([PIXELS], tl.float32)
    by_t += by_radius * dr
    gr_t = tl.sum(by_radius * t, 0)
    tl.store(out + 6, tl.sum(by_radius, 0) - gr_t)
    tl.store(out + 7, gr_t)
    by_s = tl.where((s > 0.0) & (s < 1.0), by_t * h, 0.0)
    wx = -dx * unit - by_s * sx + lx
    wy = -dy * unit - by_s * sy + ly
    ex = (by_s * dx * inverse * inverse + beyond * lx) * h
    ey = (by_s * dy * inverse * inverse + beyond * ly) * h
    u = 1.0 - t
    lerp = s * (1.0 - s) * h * h
    middle = (number + 0.5) * h
    b0, b1, b2 = u * u + lerp, 2.0 * (u * t - lerp), t * t + lerp
    f0, f1, f2 = -2.0 * (1.0 - middle), 2.0 * (1.0 - 2.0 * middle), 2.0 * middle
    tl.store(out, tl.sum(b0 * wx + f0 * ex, 0))
    tl.store(out + 1, tl.sum(b0 * wy + f0 * ey, 0))
    tl.store(out + 2, tl.sum(b1 * wx + f1 * ex, 0))
    tl.store(out + 3, tl.sum(b1 * wy + f1 * ey, 0))
    tl.store(out + 4, tl.sum(b2 * wx + f2 * ex, 0))
    tl.store(out + 5, tl.sum(b2 * wy + f2 * ey, 0))


@triton.jit
def row_of(gradients, i, program, tiles, across, boxes, slots, total, first_slot):
    """Where the gradient row of stroke i over this tile lies: counted through the stroke's box of tiles."""
    tile = program % tiles
    tx0, tx1, ty0 = tl.load(boxes + i), tl.load(boxes + total + i), tl.load(boxes + 2 * total + i)
    within = (tile // across - ty0) * (tx1 - tx0 + 1) + tile % across - tx0
    return gradients + (tl.load(slots + i) - first_slot + within) * FOUND


@triton.jit
def remain(light, red, green, blue, look, rows, i):
    """One step of the walk front to back: what stroke i adds, and what is below it.

    Returns its weight and opacity, the slopes of its color, the picture's derivative by its opacity, and the light
    and the color that remain.
    """
    t, coverage, alpha, paint = look
    opacity = tl.minimum(alpha * coverage * paint, OPAQUE)
    weight = light * opacity
    c0, c1, c2, e0, e1, e2 = colors(rows, i)
    v0, v1, v2 = c0 + e0 * t, c1 + e1 * t, c2 + e2 * t
    red -= weight * v0
    green -= weight * v1
    blue -= weight * v2
    below = 1.0 / (1.0 - opacity)
    d0, d1, d2 = light * v0 - red * below, light * v1 - green * below, light * v2 - blue * below
    return (weight, opacity), (e0, e1, e2), (d0, d1, d2), light - weight, red, green, blue


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
    moved = tl.minimum(tl.load(high + k, mask=here, other=0.0), tl.maximum(tl.load(low + k, mask=here, other=0.0), moved))
    tl.store(mean + k, m, mask=here)
    tl.store(square + k, v, mask=here)
    tl.store(rows + k, moved, mask=here)
