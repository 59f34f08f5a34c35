"""Settings of `paintproc synth`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from paintproc.config.settings import OUTPUT, PAINTING, check_choices, check_device, check_range
from paintproc.errors import UsageError

Method = Literal["fit", "human", "learn-to-paint", "stylized"]
METHODS: tuple[Method, ...] = ("fit", "human", "learn-to-paint", "stylized")


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What all synthetic sequences have in common. UsageError for impossible values."""

    num_frames: Annotated[int, "Frames of a sequence, including the first and the finished canvas.", OUTPUT] = 8
    size: Annotated[int, "Longer side of the frames in pixels; a smaller picture is not enlarged.", PAINTING] = 512
    shape: Annotated[
        Literal["keep", "crop", "pad"], "Keep the picture's shape, crop it to a square, or pad it with white.", PAINTING
    ] = "keep"
    frame_sampling: Annotated[
        Literal["even-change", "even-time"], "Space frames evenly in visible change, or in painting time.", OUTPUT
    ] = "even-change"
    strokes: Annotated[int, "Strokes of a sequence.", PAINTING] = 1000
    scene: Annotated[
        Literal["auto", "builtin", "networks"],
        "What finds the regions. Networks need weights and seconds a picture; auto uses those at hand.",
        PAINTING,
    ] = "builtin"
    device: Annotated[str, "Where networks and, with cuda, strokes run: auto, cpu, cuda or cuda:0.", PAINTING] = "auto"
    seed: Annotated[int, "Another seed gives other sequences of the same pictures.", PAINTING] = 0

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

    method: Annotated[tuple[Method, ...], "How pictures are painted; repeatable, replaces the defaults.", PAINTING] = (
        field(default=METHODS)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.method:
            raise UsageError("--method is empty.", f"Choose at least one of {', '.join(METHODS)}.")
        object.__setattr__(self, "method", tuple(method for method in METHODS if method in self.method))


@dataclass(frozen=True, kw_only=True)
class SynthLayersConfig(SynthConfig):
    """Sequences in which the picture's regions are placed one after the other, by depth."""

    order: Annotated[
        Literal["near-to-far", "far-to-near"],
        "Place the nearest region first, or the farthest first with hidden parts filled in.",
        PAINTING,
    ] = "near-to-far"
    render: Annotated[Literal["paste", "strokes"], "Paste regions from the picture, or paint them.", PAINTING] = "paste"
