"""What one tile of 16 x 16 pixels and one stroke have to do with each other, for `triton_kernels.py`.

The formulas are those of `kernels.py`. These pieces are inlined into the kernels.
"""

# Triton reads these functions' own source: its arguments are tl.constexpr or have no type, and a tuple is taken apart
# whole
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"

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
def pixels_of(program, tiles, across, height, width):
    """The tile's pixels: their centers x and y, which of them exist, and their place in [B, H, W, 3]."""
    picture, tile = program // tiles, program % tiles
    p = tl.arange(0, PIXELS)
    column, line = (tile % across) * TILE + p % TILE, (tile // across) * TILE + p // TILE
    exists = (column < width) & (line < height)
    at = ((picture.to(tl.int64) * height + line) * width + column) * 3
    return column.to(tl.float32) + 0.5, line.to(tl.float32) + 0.5, exists, at
