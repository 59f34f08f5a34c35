"""Settings of `paintproc generate`."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from paintproc.config.settings import OUTPUT, PAINTING, check_choices, check_device, check_range
from paintproc.errors import UsageError

Format = Literal["frames", "mp4", "sheet", "steps", "svg", "ora", "html", "gif", "webp", "scene"]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How a picture is painted, and what is written. UsageError for impossible values."""

    size: Annotated[int, "Longer side of the canvas in pixels; a smaller picture is not enlarged.", PAINTING] = 512
    strokes: Annotated[
        int | None, "Number of strokes; by default in proportion to the side, 2000 for 512 x 512 pixels.", PAINTING
    ] = None
    num_frames: Annotated[int, "Key frames, including the first and the finished canvas.", OUTPUT] = 16
    fps: Annotated[int, "Frames per second of the video.", OUTPUT] = 30
    duration: Annotated[float, "Seconds of video; the finished canvas fills the last tenth.", OUTPUT] = 10.0
    plan: Annotated[str, "In which order it is painted: human, coarse-to-fine, or a TOML file.", PAINTING] = "human"
    scene: Annotated[
        Literal["auto", "builtin", "networks"],
        "What finds the regions. Networks need weights; auto uses those at hand that do better.",
        PAINTING,
    ] = "auto"
    device: Annotated[str, "Where networks and, with cuda, strokes run: auto, cpu, cuda or cuda:0.", PAINTING] = "auto"
    painting_time: Annotated[float, "Minutes the painter is said to take; sets `seconds` in the record.", PAINTING] = (
        60.0
    )
    frames_at: Annotated[
        Literal["time", "change", "stage"],
        "Space key frames evenly in painting time or in visible change, or take one at the end of each stage.",
        OUTPUT,
    ] = "time"
    seed: Annotated[int, "Another seed gives another painting of the same picture.", PAINTING] = 0
    format: Annotated[
        tuple[Format, ...], "What to write beside strokes and record; repeatable, replaces the defaults.", OUTPUT
    ] = (
        "frames",
        "mp4",
        "sheet",
        "svg",
    )
    finish: Annotated[
        Literal["painted", "exact"], "End with the last painted canvas, or with the picture itself.", OUTPUT
    ] = "painted"
    label: Annotated[bool, "Write `synthetic process` visibly into frames and video.", OUTPUT] = False

    def __post_init__(self) -> None:
        check_choices(self)
        check_device(self.device)
        check_range(self, "size", 1, 16383)
        check_range(self, "strokes", 0, 1_000_000)
        check_range(self, "num_frames", 2, 10_000)
        check_range(self, "fps", 1, 240)
        check_range(self, "duration", 0.1, 3600)
        check_range(self, "painting_time", 0.01, 1_000_000)
        check_range(self, "seed", 0, 2**63 - 1)
        if not self.format:
            raise UsageError("--format is empty.", "Choose at least one of frames, mp4, sheet, svg.")
        ordered = tuple(f for f in get_args(Format) if f in self.format)
        object.__setattr__(self, "format", ordered)

    def stroke_count(self, height: int, width: int) -> int:
        """`strokes`, or the default for a canvas of this size."""
        if self.strokes is not None:
            return self.strokes
        return max(50, round(2000 * (height * width) ** 0.5 / 512))
