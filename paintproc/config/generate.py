"""Settings of `paintproc generate`."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from paintproc.config.settings import check_choices, check_device, check_range
from paintproc.errors import UsageError

Format = Literal["frames", "mp4", "sheet", "steps", "svg", "ora", "html", "gif", "webp", "scene"]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How a picture is painted, and what is written. UsageError for impossible values."""

    size: Annotated[int, "Longer side of the canvas in pixels; a smaller picture is not enlarged."] = 512
    strokes: Annotated[int | None, "Number of strokes; by default 2000 for 512 x 512 pixels, by its side."] = None
    num_frames: Annotated[int, "Key frames, the blank and the finished canvas included."] = 16
    fps: Annotated[int, "Frames per second of the video."] = 30
    duration: Annotated[float, "Seconds the video lasts; the last tenth holds the finished canvas."] = 10.0
    plan: Annotated[str, "In which order it is painted: human, coarse-to-fine, or a TOML file."] = "human"
    scene: Annotated[
        Literal["auto", "builtin", "networks"],
        "What finds the regions: built in, or networks, which need weights; auto takes those at hand that do better.",
    ] = "auto"
    device: Annotated[str, "Where networks run: auto, cpu, cuda or cuda:0."] = "auto"
    painting_time: Annotated[float, "Minutes the painter takes; `seconds` in the record."] = 60.0
    frames_at: Annotated[
        Literal["time", "change", "stage"],
        "Key frames even in painting time, even in how much the canvas changes, or one at the end of each stage.",
    ] = "time"
    seed: Annotated[int, "Another seed, another painting of the same picture."] = 0
    format: Annotated[
        tuple[Format, ...], "What to write beside strokes and record; repeatable, replaces the defaults."
    ] = (
        "frames",
        "mp4",
        "sheet",
        "svg",
    )
    finish: Annotated[Literal["painted", "exact"], "End with the last painted canvas, or with the picture itself."] = (
        "painted"
    )
    label: Annotated[bool, "Write `synthetic process` visibly into frames and video."] = False

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
            raise UsageError("--format names nothing to write.", "Choose at least one of frames, mp4, sheet, svg.")
        ordered = tuple(f for f in get_args(Format) if f in self.format)
        object.__setattr__(self, "format", ordered)

    def stroke_count(self, height: int, width: int) -> int:
        """`strokes`, or the default for a canvas of this size."""
        if self.strokes is not None:
            return self.strokes
        return max(50, round(2000 * (height * width) ** 0.5 / 512))
