"""A scene drawn as a picture: regions with their numbers, and their depth."""

import cv2
import numpy as np

from paintproc.scene.values import Scene


def scene_picture(picture: np.ndarray, scene: Scene) -> np.ndarray:
    """Draw `scene` over `picture`, uint8 [H, W, 3]: uint8 [H, 2 W, 3].

    The left half shows the picture with its regions tinted and numbered from far (0) to near. Borders of regions
    are white, borders of parts dark and thin. A star marks the focus. The right half shows depth: nearer is lighter.
    """
    height, width = scene.regions.shape
    tints = cv2.applyColorMap(np.linspace(20, 235, len(scene)).astype(np.uint8)[:, None], cv2.COLORMAP_TURBO)
    left = (0.6 * picture + 0.4 * tints[:, 0, ::-1][scene.regions]).astype(np.uint8)
    left[_borders(scene.parts)] = (left[_borders(scene.parts)] * 0.75).astype(np.uint8)
    thick = cv2.dilate(_borders(scene.regions).astype(np.uint8), np.ones((2, 2), np.uint8)).astype(bool)
    left[thick] = 255
    depth = (40 + 200 * scene.depth[scene.regions]).astype(np.uint8)
    right = np.repeat(depth[..., None], 3, axis=2)
    right[thick] = 255
    size = max(0.3, min(height, width) / 700)
    for k in range(len(scene)):
        inner = cv2.distanceTransform(np.pad(scene.regions == k, 1).astype(np.uint8), cv2.DIST_L2, 3)
        y, x = np.unravel_index(int(inner.argmax()), inner.shape)
        text = f"{k}*" if scene.weight[k] >= 1 else str(k)
        for color, line in (((30, 30, 30), 4), ((255, 255, 255), 1)):
            place = max(0, int(x - 10 * size)), min(height - 1, int(y + 8 * size))
            cv2.putText(left, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, color, line, cv2.LINE_AA)
    return np.concatenate([left, right], axis=1)


def _borders(labels: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbor has another label, bool [H, W]."""
    found = np.zeros(labels.shape, bool)
    found[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    found[:-1] |= labels[1:] != labels[:-1]
    return found
