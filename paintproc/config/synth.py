"""Settings of `paintproc synth`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from paintproc.config.settings import check_choices, check_device, check_range
from paintproc.errors import UsageError

Method = Literal["fit", "human", "learn-to-paint", "stylized"]
METHODS: tuple[Method, ...] = ("fit", "human", "learn-to-paint", "stylized")


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What all synthetic sequences have in common. UsageError for impossible values."""

    num_frames: Annotated[int, "Frames of a sequence, the blank and the finished canvas included."] = 8
    size: Annotated[int, "Longer side of the frames in pixels; a smaller picture is not enlarged."] = 512
    shape: Annotated[
        Literal["keep", "crop", "pad"], "The picture's own shape, or a square: its middle, or white added to it."
    ] = "keep"
    frame_sampling: Annotated[
        Literal["even-change", "even-time"], "Frames even in how much the canvas changes, or in painting time."
    ] = "even-change"
    strokes: Annotated[int, "Strokes of a sequence."] = 1000
    scene: Annotated[
        Literal["auto", "builtin", "networks"],
        "What finds the regions: built in, or networks, which need weights and seconds a picture.",
    ] = "builtin"
    device: Annotated[str, "Where networks run: auto, cpu, cuda or cuda:0."] = "auto"
    seed: Annotated[int, "Another seed, other sequences of the same pictures."] = 0

    def __post_init__(self) -> None:
        check_choices(self)
        check_device(self.device)
        check_range(self, "num_frames", 2, 1000)
        check_range(self, "size", 16, 16383)
        check_range(self, "strokes", 1, 1_000_000)
        check_range(self, "seed", 0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class SynthStrokesConfig(SynthConfig):
    """Sequences painted stroke by stroke, one a picture and method."""

    method: Annotated[tuple[Method, ...], "How it is painted; repeatable, replaces the defaults."] = field(
        default=METHODS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.method:
            raise UsageError("--method names nothing.", f"Choose at least one of {', '.join(METHODS)}.")
        object.__setattr__(self, "method", tuple(method for method in METHODS if method in self.method))


@dataclass(frozen=True, kw_only=True)
class SynthLayersConfig(SynthConfig):
    """Sequences in which the picture's regions are placed one after the other, by depth."""

    order: Annotated[
        Literal["near-to-far", "far-to-near"],
        "The nearest region first, or the farthest, with what lies behind filled in.",
    ] = "near-to-far"
    render: Annotated[Literal["paste", "strokes"], "Regions as they are in the picture, or painted."] = "paste"
