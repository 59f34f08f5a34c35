"""Settings of `paintproc render`."""

from dataclasses import dataclass
from typing import Annotated

from paintproc.config.settings import check_range


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """How strokes are drawn again. UsageError for impossible values."""

    size: Annotated[int, "Longer side of the picture in pixels."] = 2048
    fps: Annotated[int, "Frames per second, where a video is made."] = 30
    duration: Annotated[float, "Seconds the video lasts; the last tenth holds the finished canvas."] = 10.0

    def __post_init__(self) -> None:
        check_range(self, "size", 1, 16384)
        check_range(self, "fps", 1, 240)
        check_range(self, "duration", 0.1, 3600)
