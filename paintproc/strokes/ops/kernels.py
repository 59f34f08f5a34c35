"""The fast rasterizer: numba kernels over tiles of 16 x 16 pixels.

A stroke is a polyline along its Bezier curve, swept by a disc whose radius changes from
the start to the end. For a pixel x let c be the nearest point of the polyline, t its curve
parameter, d = |x - c| - radius(t) the signed distance to the stroke's edge. Then

    coverage = clamp(1/2 - d / (2 softness), 0, 1)
    opacity  = alpha(t) coverage brush(t, v),   v = lateral offset / radius(t), left to right
    canvas   = opacity color(t) + (1 - opacity) canvas

one stroke after the other. `reference.py` says the same slowly.

Tiles are composited front to back and left when nothing more shines through. The gradient
walks the same list again with the color that remains below, so that nothing is stored per
pixel and stroke beyond one tile. Every (tile, stroke) pair has its own gradient row; rows
are added up afterwards in a fixed order: no atomics, and the same bytes for any number of
threads.

A stroke's parameters travel as one row of 16 numbers, lengths in pixels:
    0-5 points x0 y0 x1 y1 x2 y2 · 6-7 radius · 8-13 color r0 g0 b0 r1 g1 b1 · 14-15 alpha
Gradient rows have the same columns and a 17th: how much the loss grows without the stroke.
"""

import math

import numpy as np

from paintproc.strokes.ops.compiling import inlined, kernel

SOFTNESS = 1.0
"""Half the width of a stroke's soft edge, in pixels."""
TILE = 16
PIXELS = TILE * TILE
COLUMNS = 16
MAX_SEGMENTS = 32
TOLERANCE = 0.25
"""How far, in pixels, the polyline may lie from the curve."""
OPAQUE = np.float32(1 - 1 / 2048)
"""Opacity is capped here, an eighth of a gray level from opaque, so that what lies under a
stroke can still be told from what remains."""
SPENT = np.float32(1e-5)
"""Transmittance below which nothing more is composited."""
CHECKED = 8
"""A tile is looked at for that after every eighth of its strokes."""

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
FAR, TINY = np.float32(1e9), np.float32(1e-12)
POINT = np.float32(1e-6)
"""A segment with a squared length below this, in square pixels, is a point without direction."""

FORWARD, SQUARED_ERROR, UPSTREAM = 0, 1, 2
"""What `composite` does: only the picture; with the gradient of 1/2 sum w (picture - image)^2;
with the gradient of sum(picture * image)."""


@kernel
def flatten(rows, reveal):
    """Polylines of the curves: nodes [M, 2] in pixels, and each stroke's first node [N + 1].

    Only the first `reveal` [N] of each curve (in its parameter) is kept.
    """
    count = rows.shape[0]
    first = np.empty(count + 1, np.int32)
    first[0] = 0
    for i in range(count):
        bend_x = rows[i, 0] - TWO * rows[i, 2] + rows[i, 4]
        bend_y = rows[i, 1] - TWO * rows[i, 3] + rows[i, 5]
        bend = math.sqrt(bend_x * bend_x + bend_y * bend_y) * reveal[i] * reveal[i]
        segments = math.ceil(math.sqrt(min(bend / np.float32(4 * TOLERANCE), FAR)))
        first[i + 1] = first[i] + min(MAX_SEGMENTS, max(1, segments)) + 1
    nodes = np.empty((first[count], 2), np.float32)
    for i in range(count):
        segments = first[i + 1] - first[i] - 1
        for j in range(segments + 1):
            t = reveal[i] * np.float32(j) / np.float32(segments)
            u = ONE - t
            for axis in range(2):
                nodes[first[i] + j, axis] = (
                    u * u * rows[i, axis] + TWO * u * t * rows[i, 2 + axis] + t * t * rows[i, 4 + axis]
                )
    return nodes, first


@inlined
def meet_tile(nodes, begin, end, radius0, radius_step, softness, left, top):
    """Where a polyline meets the tile at (left, top): low, high, highest, lowest.

    `radius0` is the first node's radius, `radius_step` what each node adds. Pixels between the
    heights `highest` and `lowest` can be colored; none if highest > lowest. Segments low to high,
    counted from `begin`, hold the nearest point of every pixel that is colored: these are all
    segments nearer to the tile than the widest radius.
    """
    low, high = end, begin
    highest, lowest = FAR, -FAR
    size = np.float32(TILE)
    widest = max(radius0, radius0 + radius_step * np.float32(end - begin - 1)) + softness
    for j in range(begin, end - 1):
        ax, ay, ex, ey = nodes[j, 0], nodes[j, 1], nodes[j + 1, 0], nodes[j + 1, 1]
        if (
            min(ay, ey) - widest > top + size
            or max(ay, ey) + widest < top
            or min(ax, ex) - widest > left + size
            or max(ax, ex) + widest < left
        ):
            continue
        low = min(low, j)
        high = j + 1
        r0 = radius0 + radius_step * np.float32(j - begin)
        reach = max(r0, r0 + radius_step) + softness
        upper, lower = min(ay, ey) - reach, max(ay, ey) + reach
        west, east = left - reach, left + size + reach
        if upper > top + size or lower < top or min(ax, ex) > east or max(ax, ex) < west:
            continue
        if min(ax, ex) < west or max(ax, ex) > east:
            inverse = ONE / (ex - ax)
            t0, t1 = (west - ax) * inverse, (east - ax) * inverse
            y0 = ay + max(ZERO, min(t0, t1)) * (ey - ay)
            y1 = ay + min(ONE, max(t0, t1)) * (ey - ay)
            upper, lower = min(y0, y1) - reach, max(y0, y1) + reach
            if upper > top + size or lower < top:
                continue
        highest, lowest = min(highest, upper), max(lowest, lower)
    return low - begin, high - begin, highest, lowest


@kernel
def bounding_boxes(nodes, first, rows, softness):
    """What each stroke can touch, in pixels [N, 4]: left, right, top, bottom."""
    boxes = np.empty((rows.shape[0], 4), np.float32)
    for i in range(rows.shape[0]):
        left = top = FAR
        right = bottom = -FAR
        for j in range(first[i], first[i + 1]):
            left = min(left, nodes[j, 0])
            right = max(right, nodes[j, 0])
            top = min(top, nodes[j, 1])
            bottom = max(bottom, nodes[j, 1])
        reach = max(rows[i, 6], rows[i, 7]) + softness
        boxes[i, 0], boxes[i, 1] = left - reach, right + reach
        boxes[i, 2], boxes[i, 3] = top - reach, bottom + reach
    return boxes


@inlined
def tile_range(low, high, tiles):
    """First and last tile between the coordinates `low` and `high`."""
    limit = np.float32(tiles * TILE)
    begin = int(max(ZERO, min(limit, low))) // TILE
    end = int(max(-ONE, min(limit - ONE, high)) + TILE) // TILE - 1
    return begin, end


@kernel
def find_pairs(nodes, first, rows, reveal, boxes, softness, height, width, begin, end):
    """Which of the strokes `begin` to `end` touch which tile: rows [P, 6] of

    tile, stroke, first and last segment that count, first and last pixel that count.
    """
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    found = np.empty((max(1024, 12 * (end - begin)), 6), np.int32)
    count = 0
    for i in range(begin, end):
        radius_step = (rows[i, 7] - rows[i, 6]) * reveal[i] / np.float32(first[i + 1] - first[i] - 1)
        tx0, tx1 = tile_range(boxes[i, 0], boxes[i, 1], across)
        ty0, ty1 = tile_range(boxes[i, 2], boxes[i, 3], down)
        for ty in range(ty0, ty1 + 1):
            for tx in range(tx0, tx1 + 1):
                left, top = np.float32(tx * TILE), np.float32(ty * TILE)
                low, high, highest, lowest = meet_tile(
                    nodes, first[i], first[i + 1], rows[i, 6], radius_step, softness, left, top
                )
                if highest > lowest:
                    continue
                if count == found.shape[0]:
                    larger = np.empty((2 * count, 6), np.int32)
                    for k in range(count):
                        for column in range(6):
                            larger[k, column] = found[k, column]
                    found = larger
                found[count, 0], found[count, 1], found[count, 2], found[count, 3] = ty * across + tx, i, low, high
                found[count, 4] = TILE * int(min(np.float32(TILE), max(ZERO, highest - top - HALF)))
                found[count, 5] = TILE * int(min(np.float32(TILE), max(ZERO, lowest - top + HALF + ONE)))
                count += 1
    return found[:count]


@kernel
def sort_by_tile(found, tiles):
    """The pairs of each tile, in painting order: `start` [tiles + 1] into `pairs` [P, 5]."""
    start = np.zeros(tiles + 1, np.int32)
    for k in range(found.shape[0]):
        start[found[k, 0] + 1] += 1
    for tile in range(tiles):
        start[tile + 1] += start[tile]
    fill = start[:-1].copy()
    pairs = np.empty((found.shape[0], 5), np.int32)
    for k in range(found.shape[0]):
        place = fill[found[k, 0]]
        fill[found[k, 0]] += 1
        for column in range(5):
            pairs[place, column] = found[k, column + 1]
    return start, pairs


@inlined
def nearest(nodes, begin, low, high, x, y, p0, p1, q, distance2, position, dx, dy):
    """For pixels p0 to p1: the nearest point of segments low to high of one polyline.

    Writes into row q: its squared distance, its position (segment + fraction) and the offset
    of the pixel from it.
    """
    for j in range(low, high):
        ax, ay = nodes[begin + j, 0], nodes[begin + j, 1]
        bx, by = nodes[begin + j + 1, 0] - ax, nodes[begin + j + 1, 1] - ay
        length2 = bx * bx + by * by
        inverse = ONE / length2 if length2 > POINT else ZERO
        number = np.float32(j)
        if j == low:
            for p in range(p0, p1):
                ux, uy = x[p] - ax, y[p] - ay
                s = min(ONE, max(ZERO, (ux * bx + uy * by) * inverse))
                ex, ey = ux - s * bx, uy - s * by
                distance2[q, p] = ex * ex + ey * ey
                position[q, p] = number + s
                dx[q, p] = ex
                dy[q, p] = ey
        else:
            for p in range(p0, p1):
                ux, uy = x[p] - ax, y[p] - ay
                s = min(ONE, max(ZERO, (ux * bx + uy * by) * inverse))
                ex, ey = ux - s * bx, uy - s * by
                d = ex * ex + ey * ey
                closer = d < distance2[q, p]
                distance2[q, p] = d if closer else distance2[q, p]
                position[q, p] = number + s if closer else position[q, p]
                dx[q, p] = ex if closer else dx[q, p]
                dy[q, p] = ey if closer else dy[q, p]


@inlined
def slopes_at(nodes, begin, low, high, p0, p1, q, position, slope):
    """For each pixel the vector of the segment its nearest point lies on, over the segment's
    squared length: slope[0], slope[1]; 0, 0 for a segment that is a point.

    A position on a joint belongs to the segment before it.
    """
    for j in range(low, high):
        bx, by = nodes[begin + j + 1, 0] - nodes[begin + j, 0], nodes[begin + j + 1, 1] - nodes[begin + j, 1]
        length2 = bx * bx + by * by
        inverse = ONE / length2 if length2 > POINT else ZERO
        bx *= inverse
        by *= inverse
        number = np.float32(j) if j > low else -ONE
        for p in range(p0, p1):
            here = position[q, p] > number
            slope[0, p] = bx if here else slope[0, p]
            slope[1, p] = by if here else slope[1, p]


@inlined
def look_up_brush(data, shape, row, h, p0, p1, q, position, dx, dy, slope, out):
    """The brush's opacity at pixels p0 to p1 (out[0]) and its slopes by t (out[1]) and v (out[2]).

    `shape` is the brush's offset in `data` and its cells along and across the stroke.
    """
    offset, along, across = shape[0], shape[1], shape[2]
    for p in range(p0, p1):
        t = position[q, p] * h
        length = math.sqrt(slope[0, p] * slope[0, p] + slope[1, p] * slope[1, p])
        lateral = (slope[0, p] * dy[q, p] - slope[1, p] * dx[q, p]) / max(length, TINY)
        v = lateral / max(row[6] + (row[7] - row[6]) * t, TINY)
        inside = ONE if v > -ONE and v < ONE else ZERO
        place_t = t * np.float32(along - 1)
        place_v = (min(ONE, max(-ONE, v)) + ONE) * HALF * np.float32(across - 1)
        a, c = int(place_t), int(place_v)
        a1, c1 = min(a + 1, along - 1), min(c + 1, across - 1)
        ft, fv = place_t - np.float32(a), place_v - np.float32(c)
        b00, b01 = data[offset + a * across + c], data[offset + a * across + c1]
        b10, b11 = data[offset + a1 * across + c], data[offset + a1 * across + c1]
        low, high = b00 + (b01 - b00) * fv, b10 + (b11 - b10) * fv
        out[0, p] = low + (high - low) * ft
        out[1, p] = (high - low) * np.float32(along - 1)
        across_slope = (b01 - b00) * (ONE - ft) + (b11 - b10) * ft
        out[2, p] = across_slope * HALF * np.float32(across - 1) * inside


@inlined
def fill_plain(out):
    """What `look_up_brush` gives for a brush that is 1 all over."""
    for p in range(PIXELS):
        out[0, p] = ONE
        out[1, p] = ZERO
        out[2, p] = ZERO


@inlined
def brush_gradient(
    row, shape, h, p0, p1, q, inverse_width, distance2, position, dx, dy, slope, brush,
    red, green, blue, light, gx, gy, gz, out,
):  # fmt: skip
    """Add to `out` the derivative by the brush's cells of one stroke over one tile.

    `out` is laid out as the brushes' data; the other arrays are as `stroke_gradient` finds them.
    """
    offset, along, across = shape[0], shape[1], shape[2]
    for p in range(p0, p1):
        t = position[q, p] * h
        radius = row[6] + (row[7] - row[6]) * t
        full = (row[14] + (row[15] - row[14]) * t) * min(
            ONE, max(ZERO, HALF - (math.sqrt(distance2[q, p]) - radius) * inverse_width)
        )
        opacity = min(OPAQUE, full * brush[0, p])
        below = ONE / (ONE - opacity)
        weight = light[p] * opacity
        v0, v1 = row[8] + (row[11] - row[8]) * t, row[9] + (row[12] - row[9]) * t
        v2 = row[10] + (row[13] - row[10]) * t
        by_brush = full * (
            (light[p] * v0 - (red[p] - weight * v0) * below) * gx[p]
            + (light[p] * v1 - (green[p] - weight * v1) * below) * gy[p]
            + (light[p] * v2 - (blue[p] - weight * v2) * below) * gz[p]
        )
        length = math.sqrt(slope[0, p] * slope[0, p] + slope[1, p] * slope[1, p])
        lateral = (slope[0, p] * dy[q, p] - slope[1, p] * dx[q, p]) / max(length, TINY)
        v = min(ONE, max(-ONE, lateral / max(radius, TINY)))
        place_t, place_v = t * np.float32(along - 1), (v + ONE) * HALF * np.float32(across - 1)
        a, c = int(place_t), int(place_v)
        a1, c1 = min(a + 1, along - 1), min(c + 1, across - 1)
        ft, fv = place_t - np.float32(a), place_v - np.float32(c)
        out[offset + a * across + c] += by_brush * (ONE - ft) * (ONE - fv)
        out[offset + a * across + c1] += by_brush * (ONE - ft) * fv
        out[offset + a1 * across + c] += by_brush * ft * (ONE - fv)
        out[offset + a1 * across + c1] += by_brush * ft * fv


@inlined
def lay_over(row, h, p0, p1, q, inverse_width, distance2, position, brush, red, green, blue, light):
    """Composite one stroke under what is already there, front to back."""
    for p in range(p0, p1):
        t = position[q, p] * h
        edge = HALF - (math.sqrt(distance2[q, p]) - row[6] - (row[7] - row[6]) * t) * inverse_width
        coverage = min(ONE, max(ZERO, edge))
        opacity = min(OPAQUE, (row[14] + (row[15] - row[14]) * t) * coverage * brush[0, p])
        weight = light[p] * opacity
        red[p] += weight * (row[8] + (row[11] - row[8]) * t)
        green[p] += weight * (row[9] + (row[12] - row[9]) * t)
        blue[p] += weight * (row[10] + (row[13] - row[10]) * t)
        light[p] -= weight


@inlined
def stroke_gradient(
    textured, row, h, p0, p1, q, inverse_width, distance2, position, dx, dy, slope, brush,
    red, green, blue, light, gx, gy, gz, counts, out,
):  # fmt: skip
    """One stroke's gradient over one tile, and the colors that remain below it.

    (red, green, blue) hold the color still to come, `light` the transmittance above the
    stroke, (gx, gy, gz) the loss's derivative by the picture and `counts` its second derivative.
    With w = light opacity, color C(t) and the canvas B below, d picture / d opacity is
    light (C - B). The nearest point is a clamped projection, so its derivative by the segment's
    ends a, b is explicit; it is carried to the control points by the Bernstein weights at both
    ends.
    """
    r0, dr, a0, da = row[6], row[7] - row[6], row[14], row[15] - row[14]
    c0, c1, c2 = row[8], row[9], row[10]
    e0, e1, e2 = row[11] - c0, row[12] - c1, row[13] - c2
    x0 = y0 = x1 = y1 = x2 = y2 = gr = gr_t = ga = ga_t = removal = ZERO
    k0 = k1 = k2 = l0 = l1 = l2 = ZERO
    for p in range(p0, p1):
        place = position[q, p]
        t = place * h
        d = math.sqrt(distance2[q, p])
        radius = r0 + dr * t
        edge = HALF - (d - radius) * inverse_width
        coverage = min(ONE, max(ZERO, edge))
        full_alpha = a0 + da * t
        full = full_alpha * brush[0, p] if textured else full_alpha
        opacity = min(OPAQUE, full * coverage)
        weight = light[p] * opacity
        v0, v1, v2 = c0 + e0 * t, c1 + e1 * t, c2 + e2 * t
        m0, m1, m2 = weight * gx[p], weight * gy[p], weight * gz[p]
        k0 += m0
        k1 += m1
        k2 += m2
        l0 += m0 * t
        l1 += m1 * t
        l2 += m2 * t
        red[p] -= weight * v0
        green[p] -= weight * v1
        blue[p] -= weight * v2
        below = ONE / (ONE - opacity)
        d0 = light[p] * v0 - red[p] * below
        d1 = light[p] * v1 - green[p] * below
        d2 = light[p] * v2 - blue[p] * below
        by_opacity = d0 * gx[p] + d1 * gy[p] + d2 * gz[p]
        removal += opacity * (HALF * opacity * counts[p] * (d0 * d0 + d1 * d1 + d2 * d2) - by_opacity)
        light[p] -= weight
        by_alpha = by_opacity * coverage
        if textured:
            by_alpha *= brush[0, p]
        ga += by_alpha
        ga_t += by_alpha * t
        on_edge = ONE if edge > ZERO and edge < ONE else ZERO
        by_distance = -by_opacity * full * inverse_width * on_edge
        by_radius = -by_distance
        sx, sy = slope[0, p], slope[1, p]
        inverse2 = sx * sx + sy * sy
        by_brush_t = lx = ly = beyond = ZERO
        if textured:
            by_lateral = by_opacity * full_alpha * coverage * brush[2, p] / max(radius, TINY)
            inverse = max(math.sqrt(inverse2), TINY)
            lateral = (sx * dy[q, p] - sy * dx[q, p]) / inverse
            by_radius -= by_lateral * lateral / max(radius, TINY)
            by_brush_t = by_opacity * full_alpha * coverage * brush[1, p]
            beyond = sx * dx[q, p] + sy * dy[q, p]
            lx, ly = by_lateral * sy / inverse, -by_lateral * sx / inverse
        gr += by_radius
        gr_t += by_radius * t
        by_t = m0 * e0 + m1 * e1 + m2 * e2 + by_alpha * da + by_radius * dr + by_brush_t
        s = place - np.ceil(place) + ONE if place > ZERO else ZERO
        by_s = by_t * h if s > ZERO and s < ONE else ZERO
        unit = by_distance / max(d, TINY)
        wx = -dx[q, p] * unit - by_s * sx + lx
        wy = -dy[q, p] * unit - by_s * sy + ly
        ex = (by_s * dx[q, p] * inverse2 + beyond * lx) * h
        ey = (by_s * dy[q, p] * inverse2 + beyond * ly) * h
        u = ONE - t
        lerp = s * (ONE - s) * h * h
        middle = t - (s - HALF) * h
        b0, b1, b2 = u * u + lerp, TWO * (u * t - lerp), t * t + lerp
        f0, f1, f2 = -TWO * (ONE - middle), TWO * (ONE - TWO * middle), TWO * middle
        x0 += b0 * wx + f0 * ex
        y0 += b0 * wy + f0 * ey
        x1 += b1 * wx + f1 * ex
        y1 += b1 * wy + f1 * ey
        x2 += b2 * wx + f2 * ex
        y2 += b2 * wy + f2 * ey
    out[0], out[1], out[2], out[3], out[4], out[5] = x0, y0, x1, y1, x2, y2
    out[6], out[7] = gr - gr_t, gr_t
    out[8], out[9], out[10], out[11], out[12], out[13] = k0 - l0, k1 - l1, k2 - l2, l0, l1, l2
    out[14], out[15], out[16] = ga - ga_t, ga_t, removal


@kernel
def composite(
    nodes, first, rows, reveal, brush_of, brush_shapes, brush_data, start, pairs,
    canvas, target, weight, softness, mode, in_place, tile_begin, tile_end,
    picture, gradients, canvas_gradient, brush_sum,
):  # fmt: skip
    """Draw tiles `tile_begin` to `tile_end` into `picture`; fill their rows of `gradients`.

    `target` [H, W, 3] is the picture to come near (SQUARED_ERROR, with `weight` [H, W] or none,
    of size 0) or the derivative by the picture (UPSTREAM). `brush_shapes` [K, 4] holds for each
    brush its offset in `brush_data`, its cells along and across, and whether it is 1 all over.
    The derivative by the canvas goes to `canvas_gradient` [H, W, 3], the one by the brushes is
    added to `brush_sum`, laid out as `brush_data`; neither is computed where its size is 0.
    `in_place`: `picture` is `canvas`, and tiles without strokes are left as they are.
    """
    height, width = canvas.shape[0], canvas.shape[1]
    across = (width + TILE - 1) // TILE
    inverse_width = HALF / softness
    depth = 1
    if mode != FORWARD:
        for tile in range(tile_begin, tile_end):
            depth = max(depth, start[tile + 1] - start[tile])
    distance2 = np.empty((depth, PIXELS), np.float32)
    position = np.empty((depth, PIXELS), np.float32)
    dx = np.empty((depth, PIXELS), np.float32)
    dy = np.empty((depth, PIXELS), np.float32)
    x, y, light = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
    red, green, blue = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
    gx, gy, gz = np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32), np.empty(PIXELS, np.float32)
    counts = np.empty(PIXELS, np.float32)
    brush, slope = np.empty((3, PIXELS), np.float32), np.empty((2, PIXELS), np.float32)
    plain = False
    for tile in range(tile_begin, tile_end):
        begin, end = start[tile], start[tile + 1]
        if in_place and begin == end:
            continue
        top, left = (tile // across) * TILE, (tile % across) * TILE
        high, wide = min(TILE, height - top), min(TILE, width - left)
        for p in range(PIXELS):
            x[p] = np.float32(left + p % TILE) + HALF
            y[p] = np.float32(top + p // TILE) + HALF
            light[p] = ONE
            red[p] = green[p] = blue[p] = ZERO
        deepest = end
        for e in range(end - 1, begin - 1, -1):
            i, p0, p1 = pairs[e, 0], np.uint64(pairs[e, 3]), np.uint64(pairs[e, 4])
            q = end - 1 - e if mode != FORWARD else 0
            nearest(nodes, first[i], pairs[e, 1], pairs[e, 2], x, y, p0, p1, q, distance2, position, dx, dy)
            h = reveal[i] / np.float32(first[i + 1] - first[i] - 1)
            shape = brush_shapes[brush_of[i]]
            if shape[3] == 0:
                slopes_at(nodes, first[i], pairs[e, 1], pairs[e, 2], p0, p1, q, position, slope)
                look_up_brush(brush_data, shape, rows[i], h, p0, p1, q, position, dx, dy, slope, brush)
                plain = False
            elif not plain:
                fill_plain(brush)
                plain = True
            lay_over(rows[i], h, p0, p1, q, inverse_width, distance2, position, brush, red, green, blue, light)
            deepest = e
            if e % CHECKED == 0:
                most = ZERO
                for p in range(PIXELS):
                    most = max(most, light[p])
                if most < SPENT:
                    break
        for r in range(high):
            for c in range(wide):
                p = r * TILE + c
                red[p] += light[p] * canvas[top + r, left + c, 0]
                green[p] += light[p] * canvas[top + r, left + c, 1]
                blue[p] += light[p] * canvas[top + r, left + c, 2]
                picture[top + r, left + c, 0] = red[p]
                picture[top + r, left + c, 1] = green[p]
                picture[top + r, left + c, 2] = blue[p]
        if mode == FORWARD:
            continue
        for p in range(PIXELS):
            gx[p] = gy[p] = gz[p] = counts[p] = ZERO
        for r in range(high):
            for c in range(wide):
                p = r * TILE + c
                gx[p] = target[top + r, left + c, 0]
                gy[p] = target[top + r, left + c, 1]
                gz[p] = target[top + r, left + c, 2]
                if mode == SQUARED_ERROR:
                    counts[p] = weight[top + r, left + c] if weight.size > 0 else ONE
                    gx[p] = (red[p] - gx[p]) * counts[p]
                    gy[p] = (green[p] - gy[p]) * counts[p]
                    gz[p] = (blue[p] - gz[p]) * counts[p]
                if canvas_gradient.size > 0:
                    canvas_gradient[top + r, left + c, 0] = light[p] * gx[p]
                    canvas_gradient[top + r, left + c, 1] = light[p] * gy[p]
                    canvas_gradient[top + r, left + c, 2] = light[p] * gz[p]
        for p in range(PIXELS):
            light[p] = ONE
        for e in range(end - 1, deepest - 1, -1):
            i, p0, p1 = pairs[e, 0], np.uint64(pairs[e, 3]), np.uint64(pairs[e, 4])
            q = end - 1 - e
            h = reveal[i] / np.float32(first[i + 1] - first[i] - 1)
            slopes_at(nodes, first[i], pairs[e, 1], pairs[e, 2], p0, p1, q, position, slope)
            shape = brush_shapes[brush_of[i]]
            if shape[3] == 0:
                look_up_brush(brush_data, shape, rows[i], h, p0, p1, q, position, dx, dy, slope, brush)
                plain = False
            elif not plain:
                fill_plain(brush)
                plain = True
            if brush_sum.size > 0:
                brush_gradient(
                    rows[i], shape, h, p0, p1, q, inverse_width, distance2, position, dx, dy, slope, brush,
                    red, green, blue, light, gx, gy, gz, brush_sum,
                )  # fmt: skip
            if plain:
                stroke_gradient(
                    False, rows[i], h, p0, p1, q, inverse_width, distance2, position, dx, dy, slope,
                    brush, red, green, blue, light, gx, gy, gz, counts, gradients[e],
                )  # fmt: skip
            else:
                stroke_gradient(
                    True, rows[i], h, p0, p1, q, inverse_width, distance2, position, dx, dy, slope,
                    brush, red, green, blue, light, gx, gy, gz, counts, gradients[e],
                )  # fmt: skip


@kernel
def add_up(found, pairs, count):
    """Sum what was `found` [P, C] for each pair into one row [C] a stroke, in the pairs' order."""
    total = np.zeros((count, found.shape[1]), np.float32)
    for e in range(pairs.shape[0]):
        for column in range(found.shape[1]):
            total[pairs[e, 0], column] += found[e, column]
    return total
