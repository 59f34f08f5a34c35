"""How far the light of one picture lies from that of another: entropic optimal transport on small grids.

The kernel exp(-|x - y|^2 / epsilon) of a regular grid is the product of one for the rows and one for the
columns, so that applying it to a grid U of masses is K U K^T with two small matrices.
"""

import numpy as np
from scipy.sparse import csr_array

SIDE = 24
"""Cells of the grid across and down."""
EPSILON = 0.01
"""Strength of the entropy, in squared sides of the grid; as in Stylized Neural Painting, section 3.3."""
ITERATIONS = 5
"""Rounds of Sinkhorn's scaling. So few make the gradient an approximation."""
LEAST_MASS = 0.01
"""Added to the light of every cell (0 to 1), so that a black picture has a mass as well."""


def transport_distance(
    picture: np.ndarray, target: np.ndarray, *, iterations: int = ITERATIONS, epsilon: float = EPSILON
) -> np.ndarray:
    """Sinkhorn divergence [B] of pictures [B, SIDE, SIDE] of light in [0, 1] from others.

    Pictures are taken as distributions of mass 1 over the unit square, the cost is the squared
    distance. With W the regularized cost in its dual form, the divergence is W(a, b) -
    W(a, a) / 2 - W(b, b) / 2 (Feydy et al. 2019, equation 3), 0 for equal pictures.
    """
    a, b = distribution(picture), distribution(target)
    f, g = dual_potentials(np.concatenate([a, a, b]), np.concatenate([b, a, b]), iterations, epsilon)
    costs = (f * np.concatenate([a, a, b]) + g * np.concatenate([b, a, b])).sum((1, 2)).reshape(3, -1)
    return costs[0] - (costs[1] + costs[2]) / 2


def transport_gradient(
    picture: np.ndarray, target: np.ndarray, *, iterations: int = ITERATIONS, epsilon: float = EPSILON
) -> np.ndarray:
    """Derivative of `transport_distance` by `picture` [B, SIDE, SIDE].

    By the envelope theorem the derivative of W(a, b) by a is its first potential; exact for many
    iterations, an approximation for few.
    """
    a, b = distribution(picture), distribution(target)
    f, g = dual_potentials(np.concatenate([a, a]), np.concatenate([b, a]), iterations, epsilon)
    by_mass = f[: len(a)] - (f[len(a) :] + g[len(a) :]) / 2
    by_mass -= (by_mass * a).sum((1, 2), keepdims=True)
    return by_mass / (picture + LEAST_MASS).sum((1, 2), keepdims=True, dtype=np.float64)


def distribution(picture: np.ndarray) -> np.ndarray:
    """Light [B, SIDE, SIDE] in [0, 1] as positive masses that sum to 1, float64."""
    mass = picture.astype(np.float64) + LEAST_MASS
    return mass / mass.sum((1, 2), keepdims=True)


def dual_potentials(
    source: np.ndarray, aim: np.ndarray, iterations: int, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """epsilon log u and epsilon log v [B, SIDE, SIDE] of Sinkhorn's scaling between two distributions.

    u K v has `source` for its rows and `aim` for its columns (Cuturi 2013, algorithm 1).
    """
    place = np.linspace(0, 1, source.shape[-1])
    K = np.exp(-((place[:, None] - place) ** 2) / epsilon)
    v = np.ones_like(aim)
    for _ in range(iterations):
        u = source / (K @ v @ K)
        v = aim / (K @ u @ K)
    return epsilon * np.log(u), epsilon * np.log(v)


def area_matrix(size: int, pixels: int) -> csr_array:
    """Resizing by area along one axis: [size, pixels], each row the part of each pixel in it, sum 1."""
    edges = np.linspace(0, pixels, size + 1)
    pixel = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return csr_array((np.maximum(overlap, 0) * size / pixels).astype(np.float32))
