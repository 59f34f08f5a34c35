"""Stages are known by what they are for: plans with other names, more stages, or a single one."""

import dataclasses
import json
import re
import tomllib
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT
from safetensors.numpy import save_file

import paintproc
from paintproc.config.plan import DEFAULTS, PREPARES, RANGES, VERBS, PlannedStage, Stage, read_plan
from paintproc.errors import UsageError
from paintproc.metrics.frames import psnr
from paintproc.process.captions import captions, stages
from paintproc.process.clock import canvases, stage_ends
from paintproc.process.judge import judge
from paintproc.process.paint import _Painter, paint
from paintproc.scene.find import find_scene
from paintproc.scene.values import Scene
from paintproc.strokes.fit import LEVELS, fit
from paintproc.strokes.optimize import Descent, composite
from paintproc.strokes.rasterize import rasterize
from paintproc.strokes.values import Strokes, load_strokes

PLANS = {
    # all other names, odd ones among them; words for some stages and none for others
    "names": """
name = "wie früher"
blank = [1, 1, 1]
[[stage]]
name = "Imprimatur"
role = "ground"
width = 0.2
[[stage]]
name = "3. <i>Vorzeichnung</i> & \\"so\\""
role = "drawing"
verb = "sketch everything"
share = 0.06
[[stage]]
name = "große Flächen"
aim = "layers"
share = 0.2
length = 0.08
scale = 0.25
steps = 12
behind = 0.04
[[stage]]
name = "drawing"
verb = "modeler"
share = 0.3
length = 0.03
scale = 0.5
steps = 12
[[stage]]
name = "细节"
order = "focus-last"
share = 0.4
length = 0.015
steps = 12
[[stage]]
name = "☀"
role = "lights"
share = 0.05
length = 0.01
steps = 6
""",
    # eight stages: two drawings, one of them late, two with layers, two lights
    "eight": """
[[stage]]
name = "one"
role = "ground"
[[stage]]
name = "two"
role = "drawing"
share = 0.05
[[stage]]
name = "three"
verb = "mass in"
aim = "layers"
share = 0.15
length = 0.08
scale = 0.25
steps = 12
behind = 0.03
[[stage]]
name = "four"
role = "drawing"
verb = "draw once more"
share = 0.08
width = 0.008
[[stage]]
name = "five"
aim = "layers"
share = 0.2
length = 0.05
scale = 0.5
steps = 12
[[stage]]
name = "six"
role = "lights"
share = 0.1
length = 0.02
steps = 6
[[stage]]
name = "seven"
verb = "finish"
order = "focus-last"
share = 0.4
length = 0.02
steps = 12
[[stage]]
name = "eight"
role = "lights"
verb = "sparkle on"
order = "focus-last"
share = 0.1
length = 0.01
steps = 6
""",
    # no ground, no drawing
    "single": """
[[stage]]
name = "all at once"
share = 0.5
length = 0.03
steps = 12
""",
}


def plan_file(folder: Path, name: str, steps: int | None = None, add: str = "") -> str:
    text = PLANS[name] if steps is None else re.sub(r"steps = \d+", f"steps = {steps}", PLANS[name])
    path = folder / f"{name}.toml"
    path.write_text(text + add, encoding="utf-8")
    return str(path)


def unit(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 255


def of_role(strokes: Strokes, *roles: str) -> np.ndarray:
    """Which strokes belong to a stage with one of these roles [N]."""
    return np.array([stage.role in roles for stage in strokes.stages])[strokes.stage]


def error(strokes: Strokes, target: np.ndarray) -> float:
    return float(((rasterize(strokes, size=target.shape[:2]) - target) ** 2).sum())


@pytest.fixture(params=PLANS)
def plan(request, tmp_path) -> str:
    return plan_file(tmp_path, request.param)


def wrong_sentence(sentence: str, stage: Stage, regions: tuple[str, ...]) -> bool:
    """Whether `sentence` is not what may be said of `stage`: its words, and the names of up to three regions."""
    verb = stage.verb or VERBS.get(stage.role, "")
    if stage.role in PREPARES:
        return sentence != verb
    begin = f"{verb} " if verb else f"{stage.name}: "
    named = sentence.removeprefix(begin).split("; ")
    return not sentence.startswith(begin) or not 1 <= len(named) <= 3 or not set(named) <= set(regions)


def test_any_plan_is_painted_told_judged_and_saved(tmp_path, painting, plan):
    formats = ("frames", "steps", "svg", "ora", "html", "sheet")
    config = paintproc.GenerateConfig(strokes=150, num_frames=14, plan=plan, format=formats)
    sequence = paintproc.generate(painting, config)
    strokes, wanted = sequence.strokes, read_plan(plan)
    assert len(strokes) <= 150
    assert strokes.stages == tuple(planned.stage for planned in wanted.stage)
    assert set(strokes.stage) == set(range(len(wanted.stage)))
    assert (np.diff(strokes.stage) >= 0).all()
    assert np.array_equal(of_role(strokes, "drawing"), strokes.brush == 1)

    # told
    assert (sequence.stages[0], sequence.captions[0]) == ("blank", "the empty canvas")
    by_name = {stage.name: stage for stage in strokes.stages}
    for moments in (sequence.progress, np.linspace(0, 1, 60)):
        for name, sentence in list(zip(stages(strokes, moments), captions(strokes, moments), strict=True))[1:]:
            assert not wrong_sentence(sentence, by_name[name], strokes.regions), sentence
            assert wrong_sentence(sentence.replace(" ", "  "), by_name[name], strokes.regions)

    # judged
    found = judge(strokes, sequence.scene, painting, wanted.behind)
    painted = [stage for stage in wanted.stage if stage.role not in PREPARES]
    assert sum(found.stage_time.values()) == pytest.approx(1)
    assert list(found.stage_time) == list(by_name)
    assert list(found.width) == [stage.name for stage in painted]
    layered = any(stage.aim == "layers" for stage in painted)
    figures = [found.psnr, found.locality, found.monotone, found.order, found.purposeful, *found.width.values()]
    assert np.isfinite([*figures, *([found.ghost] if layered else [])]).all(), found
    assert found.psnr > 15
    assert found.monotone >= 0.8
    assert found.purposeful >= 0.9

    # saved and read back
    folder = tmp_path / "sequence"
    paintproc.save_sequence(sequence, folder, config)
    again = load_strokes(folder / "strokes.safetensors")
    assert again.stages == strokes.stages
    assert np.array_equal(again.stage, strokes.stage)
    record = json.loads((folder / "sequence.json").read_text(encoding="utf-8"))
    assert [frame["stage"] for frame in record["frames"]] == list(sequence.stages)
    drawing = ElementTree.parse(next(folder.glob("*.svg"))).getroot()
    names = [group.get("class") for group in drawing.findall("{http://www.w3.org/2000/svg}g")]
    assert names == list(by_name)
    with zipfile.ZipFile(next(folder.glob("*.ora"))) as archive:
        stack = ElementTree.fromstring(archive.read("stack.xml"))
    assert [group.get("name") for group in stack.findall("stack/stack")] == list(by_name)[::-1]
    page = next(folder.glob("*.html")).read_text(encoding="utf-8")
    assert page.count("</script>") == 1
    assert "<i>Vor" not in page


def test_a_wrong_sentence_is_noticed():
    stage, regions = Stage("细节"), ("the dark mass, left", "the red patch, right")
    assert not wrong_sentence("细节: the red patch, right", stage, regions)
    for words in ("细节", "细节 the red patch, right", " the red patch, right", "细节: ", "细节: picture"):
        assert wrong_sentence(words, stage, regions)


def test_stages_of_any_plan_are_gone_on_with(painting, plan):
    """A begun canvas gets no ground and no drawing, and strokes go where it is wrong: in its left half."""
    begun = painting.copy()
    begun[:, :32] = 200
    sequence = paintproc.generate(
        painting, paintproc.GenerateConfig(strokes=150, num_frames=6, plan=plan), canvas=begun
    )
    strokes = sequence.strokes
    assert 30 < len(strokes) <= 150
    assert {strokes.stages[k].role for k in strokes.stage}.isdisjoint(PREPARES)
    assert (strokes.points[:, 1, 0] < 36 / 64).mean() > 0.7
    assert sequence.captions[0] == "the begun canvas"
    assert np.array_equal(sequence.frames[0], begun)
    assert psnr(sequence.frames[-1], painting) > psnr(begun, painting) + 5
    found = judge(strokes, sequence.scene, painting, read_plan(plan).behind)
    assert np.isfinite([found.psnr, found.monotone, found.purposeful]).all()


@pytest.mark.parametrize("name", ["names", "eight"])
def test_what_is_blocked_in_is_not_blocked_in_again(tmp_path, monkeypatch, painting, name):
    target, scene, plan = unit(painting), find_scene(painting), read_plan(plan_file(tmp_path, name))
    monkeypatch.setattr(_Painter, "take_away_what_did_not_help", lambda self: None)
    layered = np.array([stage.aim == "layers" for stage in plan.stage])
    assert not layered[paint(target, 60, plan, scene, canvas=target).stage].any()
    assert layered[paint(target, 60, plan, scene, canvas=1 - target).stage].any()


@pytest.mark.parametrize("steps", [1, 2, 5, 6])
@pytest.mark.parametrize("name", PLANS)
def test_few_steps_are_steps_too(tmp_path, monkeypatch, painting, name, steps):
    """Strokes move, and the picture is nearer to the target than with births alone."""
    target, scene = unit(painting), find_scene(painting)
    plan = read_plan(plan_file(tmp_path, name, steps))
    monkeypatch.setattr(_Painter, "take_away_what_did_not_help", lambda self: None)
    moved = paint(target, 150, plan, scene)
    with monkeypatch.context() as still:
        still.setattr(Descent, "run", look)
        born = paint(target, 150, plan, scene)
    free, before = (~of_role(strokes, *PREPARES) for strokes in (moved, born))
    assert len(moved) == len(born)
    assert free.sum() == before.sum() > 100
    assert (moved.points[free] != born.points[before]).any((1, 2)).all()
    assert np.array_equal(moved.points[~free], born.points[~before])
    assert error(moved, target) < error(born, target)


@pytest.mark.parametrize("steps", [1, 2])
def test_few_steps_of_fit_are_steps_too(monkeypatch, painting, steps):
    target = unit(painting)
    levels = [dataclasses.replace(level, steps=steps) for level in LEVELS]
    moved = fit(target, 150, levels=levels)
    with monkeypatch.context() as still:
        still.setattr(Descent, "run", look)
        born = fit(target, 150, levels=levels)
    assert (moved.points != born.points).any((1, 2)).all()
    assert error(moved, target) < error(born, target)


def look(descent: Descent):
    """`Descent.run` without a step."""
    if descent.evaluate:
        return composite(descent.strokes, descent.brushes, descent.canvas, target=descent.target)
    return None


@pytest.mark.parametrize("begun", [False, True], ids=["blank", "begun"])
@pytest.mark.parametrize("name", PLANS)
def test_there_are_never_more_strokes_than_asked_for(tmp_path, painting, name, begun):
    small = np.ascontiguousarray(painting[::2, ::2])
    target, scene = unit(small), find_scene(small)
    plan = read_plan(plan_file(tmp_path, name, 5))
    canvas = np.full_like(target, 0.8) if begun else None
    counts = [len(paint(target, count, plan, scene, canvas=canvas)) for count in range(41)]
    assert all(found <= count for count, found in enumerate(counts)), counts
    assert counts[40] > 20


def test_a_late_drawing_does_not_hide_what_was_painted_before_it():
    """Figures begin where painting begins, and frames in which somebody drew are left out."""
    target = np.zeros((40, 40, 3), np.uint8)
    strips = np.arange(10)
    strokes = Strokes(
        points=np.stack([np.array([(0, 1), (0.5, 1), (1, 1)]) * (1, (k + 0.5) / 10) for k in [*strips] * 3]),
        radius=np.full((30, 2), 0.05),
        # painted dark, which helps; drawn over in white; painted gray, which helps
        color=np.repeat([0.1, 1.0, 0.5], 10)[:, None, None] * np.ones((30, 2, 3)),
        alpha=np.ones((30, 2)),
        stage=np.repeat([0, 1, 2], 10),
        stages=(Stage("first"), Stage("over it", role="drawing"), Stage("last")),
    )
    scene = Scene(
        regions=np.zeros((40, 40), np.int32),
        parts=np.zeros((40, 40), np.int32),
        depth=np.zeros(1),
        weight=np.ones(1),
        method="none",
    )
    assert judge(strokes, scene, target, 0, num_frames=31).monotone == 1
    worse = dataclasses.replace(strokes, color=1 - strokes.color)
    assert judge(worse, scene, np.full_like(target, 20), 0, num_frames=31).monotone < 0.7
    shown = [frame.mean() for frame in canvases(strokes, (40, 40), np.linspace(0, 1, 31))]
    assert shown[20] > shown[10]


def test_what_lies_below_the_first_layer():
    from paintproc.process.drawing import under_layers, wash_color

    target, blank = np.full((8, 8, 3), 0.2, np.float32), np.array([0.9, 0.8, 0.7], np.float32)
    assert np.array_equal(under_layers(target, (Stage("a"),), blank), blank)
    assert np.array_equal(under_layers(target, (Stage("a", role="ground"), Stage("b")), blank), wash_color(target))
    assert under_layers(target, (Stage("a", role="ground"),), target) is target


def test_a_strokes_file_of_the_first_format_is_read(tmp_path):
    """There a stage was a name."""
    tensors = {
        "points": np.full((3, 3, 2), 0.5, np.float32),
        "radius": np.full((3, 2), 0.1, np.float32),
        "color": np.full((3, 2, 3), 0.25, np.float32),
        "alpha": np.ones((3, 2), np.float32),
        "brush": np.zeros(3, np.int32),
        "stage": np.array([0, 1, 3], np.int32),
        "region": np.zeros(3, np.int32),
        "ground": np.ones(3, np.float32),
        "brushes.0": np.ones((1, 1), np.float32),
    }
    header = {
        "format": "paintproc-strokes-1",
        "aspect": "1.25",
        "stages": json.dumps(["ground", "drawing", "block-in", "my own"]),
        "regions": json.dumps(["the picture"]),
        "info": "{}",
    }
    save_file(tensors, tmp_path / "old.safetensors", metadata=header)
    strokes = load_strokes(tmp_path / "old.safetensors")
    assert strokes.stages == (
        Stage("ground", role="ground"), Stage("drawing", role="drawing"), Stage("block-in"), Stage("my own"),
    )  # fmt: skip
    assert (strokes.aspect, len(strokes), list(strokes.stage)) == (1.25, 3, [0, 1, 3])
    assert captions(strokes, stage_ends(strokes)) == [
        "the empty canvas", "tone the ground", "draw the main contours", "my own: the picture",
    ]  # fmt: skip
    save_file(tensors, tmp_path / "other.safetensors", metadata=header | {"format": "paintproc-strokes-0"})
    with pytest.raises(paintproc.PaintprocError, match="not one of strokes"):
        load_strokes(tmp_path / "other.safetensors")


PAINTED = '[[stage]]\nname = "a"\nshare = 1\n'
MESSAGES = {
    "misspelt": (PAINTED + "sahre = 0.5\n", "stage 1: unknown setting `sahre`; did you mean `share`?"),
    "misspelt in the second": (PAINTED + '[[stage]]\nname = "b"\nbehnd = 0.5\n', "stage 2: ... mean `behind`?"),
    "too large": (PAINTED + '[[stage]]\nname = "b"\nshare = 3\n', "stage 2: `share` is 3; it is a number from 0 to 1."),
    "a part of a step": (PAINTED + "steps = 1.5\n", "stage 1: `steps` is 1.5; it is a whole number from 1 to 10000."),
    "no step": (PAINTED + "steps = 0\n", "`steps` is 0; it is a whole number from 1"),
    "true": (PAINTED + "scale = true\n", "`scale` is True; it is a number from 0.01 to 1."),
    "not a number": (PAINTED + "scale = nan\n", "`scale` is nan; it is a number"),
    "role": (PAINTED + 'role = "shadows"\n', "`role` is 'shadows'; it is one of ground, drawing, paint, lights."),
    "order": (PAINTED + 'order = "random"\n', "`order` is 'random'; it is one of far-to-near, focus-last."),
    "aim": (PAINTED + 'aim = "lights"\n', "`aim` is 'lights'; it is one of layers, picture."),
    "lights and layers": (
        PAINTED + 'role = "lights"\naim = "layers"\n',
        "stage 1: `aim` is 'layers'; lights aim at the picture.",
    ),
    "late ground": (PAINTED + '[[stage]]\nname = "b"\nrole = "ground"\n', "a ground that is not its first stage"),
    "nothing painted": (
        '[[stage]]\nname = "a"\nrole = "drawing"\nshare = 1\n',
        "no stage that paints. Give one a `share`",
    ),
    "no share": ('[[stage]]\nname = "a"\n', "no stage that paints"),
    "twice": (PAINTED * 2, "two stages of one name"),
    "no name": ("[[stage]]\nshare = 1\n", "stage 1: it has no `name`"),
    "empty name": ('[[stage]]\nname = " "\nshare = 1\n', "stage 1: `name` is ' '; it is text in one line"),
    "two lines": (PAINTED + 'verb = "a\\nb"\n', "stage 1: `verb` is ... it is text in one line"),
    "no table": ("stage = [1]\n", "stage 1: it is not a table"),
    "blank": ("blank = [0, 2, 0]\n" + PAINTED, "`blank` is [0, 2, 0]; it is three numbers between 0 and 1"),
    "the format before": ("[ground]\nwidth = 0.1\n" + PAINTED, "unknown table or value `ground`. It has name, blank"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_plan_that_does_not_fit_is_told_why(tmp_path, case):
    text, words = MESSAGES[case]
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_plan(str(tmp_path / "mine.toml"))
    assert all(part in str(caught.value) for part in words.split(" ... ")), caught.value


def test_shapes_that_do_not_fit_are_refused(tmp_path, painting):
    plan, target, scene = read_plan(plan_file(tmp_path, "single")), unit(painting), find_scene(painting)
    with pytest.raises(ValueError, match="the canvas is"):
        paint(target, 5, plan, scene, canvas=target[:10])
    with pytest.raises(ValueError, match="the scene is"):
        paint(target[:20], 5, plan, scene)


DOCS = (ROOT / "docs" / "plans.md").read_text(encoding="utf-8")


def test_the_plan_of_the_docs_can_be_painted(tmp_path, painting):
    """The complete plan in docs/plans.md."""
    (text,) = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    sequence = paintproc.generate(painting, paintproc.GenerateConfig(strokes=120, plan=str(path), num_frames=12))
    wanted = [stage["name"] for stage in tomllib.loads(text)["stage"]]
    assert [stage.name for stage in sequence.strokes.stages] == wanted
    assert list(dict.fromkeys(sequence.stages)) == ["blank", *wanted]
    assert sequence.info["painted_end"]["psnr"] > 17


def table_of_keys(text: str) -> dict[str, tuple[str, str]]:
    """Default and range of each key, from the table under "The keys of a stage"."""
    section = text.split("### The keys of a stage")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", section, re.MULTILINE)
    return {key: (default, values) for key, default, values in rows}


def test_the_keys_of_the_docs_are_those_of_a_stage():
    rows = table_of_keys(DOCS)
    fields = {field.name: field for field in dataclasses.fields(PlannedStage)}
    assert list(rows) == list(fields)
    for key, (default, allowed) in rows.items():
        known = fields[key].default
        if key in RANGES:
            others = [f"{role} {values[key]:g}" for role, values in DEFAULTS.items() if key in values]
            assert default == ", ".join([f"{known:g}", *others]), key
            assert allowed == "{:g} to {:g}".format(*RANGES[key]), key
        elif known is not dataclasses.MISSING and known:
            assert default == f"`{known}`", key
    assert table_of_keys(DOCS.replace("| 0.03, drawing", "| 0.04, drawing")) != rows
