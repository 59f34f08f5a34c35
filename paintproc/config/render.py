"""Settings of `paintproc render`."""

from dataclasses import dataclass
from typing import Annotated

from paintproc.config.settings import OUTPUT, check_range


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """How strokes are drawn again. UsageError for impossible values."""

    size: Annotated[int, "Longer side of the picture in pixels.", OUTPUT] = 2048
    fps: Annotated[int, "Frames per second of a video.", OUTPUT] = 30
    duration: Annotated[float, "Seconds of video; the finished canvas fills the last tenth.", OUTPUT] = 10.0

    def __post_init__(self) -> None:
        check_range(self, "size", 1, 16384)
        check_range(self, "fps", 1, 240)
        check_range(self, "duration", 0.1, 3600)
