"""Docs say what is: generated pages are current, links lead somewhere, options exist, Python runs.

Every check is a function that returns the faults of a page, so that each has a case that must fail.
"""

import builtins
import importlib
import importlib.util
import inspect
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COMMAND, ROOT
from PIL import Image

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DESIGN = ROOT / "docs" / "design.md"


def by_name(page: Path) -> str:
    return page.name


class TestGenerated:
    def test_generated_pages_are_current(self):
        done = subprocess.run([sys.executable, ROOT / "docs" / "make.py", "--check"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_a_stale_page_is_noticed(self, tmp_path):
        copy = tmp_path / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.jpg", "tests"))
        page = copy / "docs" / "commands.md"
        page.write_text(page.read_text().replace("--seed", "--sed"))
        done = subprocess.run([sys.executable, copy / "docs" / "make.py", "--check"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "docs/commands.md is not current; run `make docs`\n")

    def test_every_public_name_has_a_docstring_and_a_section(self):
        import paintproc

        page = (ROOT / "docs" / "python.md").read_text()
        names = [name for name in paintproc.__all__ if not name.startswith("__")]
        assert [name for name in names if not (getattr(paintproc, name).__doc__ or "").strip()] == []
        assert [name for name in names if f"\n## {name}\n" not in page] == []

    def test_a_public_name_without_an_example_is_noticed(self, monkeypatch):
        import paintproc

        monkeypatch.syspath_prepend(ROOT / "docs")
        page = importlib.import_module("python_page")
        monkeypatch.setattr(paintproc, "__all__", [*paintproc.__all__, "unheard_of"])
        monkeypatch.setattr(paintproc, "unheard_of", lambda: None, raising=False)
        with pytest.raises(KeyError, match="unheard_of"):
            page.python()

    def test_types_and_defaults_are_shown(self):
        page = (ROOT / "docs" / "python.md").read_text()
        for words in (
            "    canvas: np.ndarray | None = None,\n",
            ") -> PaintingSequence\n",
            '| `plan` | `str` | `"human"` | In which order',
            "| `num_frames` | `int` | `16` | ",
            "## Observation\n",
        ):
            assert words in page


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    headings = [heading.strip().lower() for heading in re.findall(r"^#+ (.*)$", text, re.M)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page to a file or a heading that is not there."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    found = []
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", text):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_broken_links_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A Page\n[a](page.md) [b](gone.md) [c](#a-page) [d](page.md#gone) ![e](gone.png) [f](http://x)\n")
    assert broken_links(page) == ["gone.md", "page.md#gone", "gone.png", "http://x"]


def command_tree() -> Any:
    """The command, as Typer's own or the installed click has it: groups have `commands`, commands have `params`."""
    import typer

    from paintproc.cli import app

    return typer.main.get_command(app)


def shown_commands(text: str) -> Iterator[list[str]]:
    """What a page shows as typed: the lines of its shell blocks and its inline code, cut into simple commands."""
    blocks = re.findall(r"```(?:sh|shell|bash|console)\n(.*?)```", text, re.S)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.S))
    for line in itertools.chain(*(block.replace("\\\n", " ").splitlines() for block in blocks), inline):
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:
            # code of another kind: not a command
            continue
        for is_end, group in itertools.groupby(words, key=lambda word: word in ("&&", "||", "|", ";")):
            if not is_end:
                yield list(group)


def unknown_options(text: str) -> list[str]:
    """Options, their values and subcommands that the command they are shown with does not have.

    Inline code may leave out `paintproc`, or the whole command: then some command must have the option.
    """
    tree = command_tree()
    everything = list(all_commands(tree))
    faults = []
    for words in shown_commands(text):
        if Path(words[0]).name == "paintproc":
            command, rest = tree, words[1:]
        elif words[0] in getattr(tree, "commands", {}):
            command, rest = tree, words
        elif words[0].startswith("--"):
            faults += faults_of(everything, words)
            continue
        else:
            continue
        while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
            if rest[0] not in command.commands:
                faults.append(" ".join(words))
                break
            command, rest = command.commands[rest[0]], rest[1:]
        else:
            faults += faults_of([command], rest)
    return faults


def all_commands(command: Any) -> Iterator[Any]:
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from all_commands(inner)


def faults_of(commands: list[Any], words: list[str]) -> list[str]:
    """Options among `words` that none of `commands` has, or that none has with the value after it."""
    faults = []
    for option, value in itertools.zip_longest(words, words[1:], fillvalue=""):
        if not re.fullmatch(r"-[a-zA-Z]|--[a-z][a-z-]*(=.*)?", option) or option in ("-h", "--help"):
            continue
        name, _, given = option.partition("=")
        value = given or value
        found = [p for command in commands for p in command.params if name in (*p.opts, *p.secondary_opts)]
        choices = [choices_of(parameter) for parameter in found]
        if not found:
            faults.append(name)
        elif all(choices) and re.match("[a-z]", value) and not any(value in known for known in choices):
            faults.append(f"{name} {value}")
    return faults


def choices_of(parameter: Any) -> set[str]:
    """What an option may be, where only some words are possible; else empty."""
    if "|" in (parameter.metavar or ""):
        return set(parameter.metavar.split("|"))
    told = re.search(r"Choices: ([^.]+)\.", getattr(parameter, "help", None) or "")
    if told:
        return set(told[1].split(", "))
    if hasattr(parameter, "type"):
        return set(getattr(parameter.type, "choices", ()))
    kind = parameter.type_descriptor.annotation
    return set(typing.get_args(kind)) if typing.get_origin(kind) is typing.Literal else set()


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_options_exist_on_the_command_they_are_shown_with(page):
    assert unknown_options(page.read_text()) == []


def test_unknown_options_are_noticed():
    page = """
`paintproc generate --num-frames 3`, `paintproc generate --frames 3`, `generate --method fit`, `--seed`, `--sed`,
`--scene built-in`, `paintproc paint`, `synth layers --method fit`, `pip install --upgrade x`, `/bin/paintproc --json`

```sh
make setup && .venv/bin/paintproc generate --image a.jpg --scenes auto   # a comment with --anything
paintproc synth strokes in/ -o out --shape crop --method sleep && paintproc weights fetch x
paintproc render -x
```
"""
    assert unknown_options(page) == [
        "--scenes", "--method sleep", "paintproc weights fetch x", "-x",
        "--frames", "--method", "--sed", "--scene built-in", "paintproc paint", "--method", "--json",
    ]  # fmt: skip


def unknown_names(text: str) -> list[str]:
    """`paintproc.a.b` in a page that cannot be imported."""
    faults = []
    for name in sorted(set(re.findall(r"\bpaintproc(?:\.\w+)+", re.sub(r"\]\([^)]*\)", "", text)))):
        parts = name.split(".")
        thing: Any = importlib.import_module("paintproc")
        for k, part in enumerate(parts[1:], 2):
            try:
                thing = getattr(thing, part) if hasattr(thing, part) else importlib.import_module(".".join(parts[:k]))
            except ModuleNotFoundError as error:
                if not str(error.name).startswith("paintproc"):
                    break
                faults.append(name)
                break
            except Exception as error:
                # of the optional packages
                if "not installed" not in str(error):
                    raise
                break
    return faults


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_python_names_exist(page):
    assert unknown_names(page.read_text()) == []


def test_unknown_python_names_are_noticed():
    text = "`paintproc.generate` `paintproc.strokes.fit.fit` `paintproc.gone` `paintproc.scene.gone(x)`"
    assert unknown_names(text) == ["paintproc.gone", "paintproc.scene.gone"]


@dataclass(frozen=True)
class Block:
    """A ```python block of a page; `needs` are the words of the comment `<!-- needs: torch, ... -->` before it."""

    page: str
    line: int
    code: str
    needs: tuple[str, ...]


def python_blocks(name: str, text: str) -> list[Block]:
    pattern = re.compile(r"(?:<!-- needs: (?P<needs>[^\n]*?) -->\n)?^```python\n(?P<code>.*?)^```", re.S | re.M)
    return [
        Block(
            name,
            text[: match.start("code")].count("\n") + 1,
            match["code"],
            tuple(need.strip() for need in (match["needs"] or "").split(",") if need.strip()),
        )
        for match in pattern.finditer(text)
    ]


def lacking(need: str) -> str:
    """Why a block with this need cannot run here; empty where it can. KeyError for an unknown need."""
    torch = "" if importlib.util.find_spec("torch") else "torch is not installed: pip install 'paintproc[models]'"

    def batched() -> str:
        from paintproc.strokes.torch import rasterize

        return "" if "points" in list(inspect.signature(rasterize).parameters)[:1] else "rasterize takes no batches yet"

    return {"torch": lambda: torch, "batched rasterize": lambda: torch or batched()}[need]()


GIVEN = {
    "strokes.md": """
import numpy as np
import paintproc

strokes = paintproc.fit(paintproc.load_picture("painting.jpg").pixels.astype(np.float32) / 255, 20)
height, width = strokes.canvas_size(64)
canvas = strokes.ground_canvas(height, width)
target = upstream = np.zeros_like(canvas)
""",
}
"""What the fragments on a page take for granted."""


def run_blocks(blocks: list[Block]) -> None:
    """Run blocks in order. A block that imports paintproc begins anew, any other goes on from the one before."""
    names: dict[str, Any] = {}
    for block in blocks:
        if re.search(r"^(import|from) paintproc\b", block.code, re.M) or not names:
            names = {"__name__": "__docs__", "__builtins__": builtins}
            if not re.search(r"^(import|from) paintproc\b", block.code, re.M):
                exec(GIVEN.get(block.page, ""), names)
        exec(compile("\n" * (block.line - 1) + block.code, block.page, "exec"), names)


BLOCKS = [block for page in PAGES for block in python_blocks(page.name, page.read_text())]
PLAIN = sorted({block.page for block in BLOCKS if not block.needs})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with what the examples find: `painting.jpg`, `examples/wheat-field.jpg`, and `dataset/`."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "examples").mkdir()
    (folder / "paintings").mkdir()
    image = Image.open(ROOT / "examples" / "still-life.jpg")
    image.thumbnail((64, 64))
    for name in ("painting.jpg", "examples/wheat-field.jpg", "paintings/a.png"):
        image.save(folder / name)
    Image.fromarray(np.array(image)[::-1]).save(folder / "paintings" / "b.png")
    words = ["synth", "strokes", "paintings", "-o", "dataset", "-q", "--method", "fit"]
    words += ["--strokes", "20", "--num-frames", "3"]
    subprocess.run([COMMAND, *words], cwd=folder, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture
def at_home(prepared, tmp_path, monkeypatch) -> Path:
    """The test's own copy of that folder, as current folder."""
    shutil.copytree(prepared, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


class TestPython:
    @pytest.mark.parametrize("page", PLAIN)
    def test_the_python_of_a_page_runs(self, page, at_home):
        run_blocks([block for block in BLOCKS if block.page == page and not block.needs])
        if page == "README.md":
            assert (at_home / "wheat-field" / "process.mp4").stat().st_size > 5_000

    @pytest.mark.parametrize(
        "block", [block for block in BLOCKS if block.needs], ids=lambda block: f"{block.page}:{block.line}"
    )
    def test_python_with_needs_runs(self, block, at_home):
        for need in block.needs:
            if reason := lacking(need):
                pytest.skip(reason)
        run_blocks([block])

    def test_pages_with_python_are_found(self):
        assert {"README.md", "python.md", "research.md", "strokes.md", "data-format.md"} <= set(PLAIN)
        assert any(block.needs for block in BLOCKS)

    def test_the_readmes_python_is_short(self):
        (block,) = (block for block in BLOCKS if block.page == "README.md")
        assert len(block.code.strip().splitlines()) == 4

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            ("import paintproc\npaintproc.gone()", AttributeError),
            ("import paintproc\nx = 1\n```\n\n```python\nimport paintproc\nprint(x)", NameError),
            ("paintproc.generate(1)", NameError),
            ("import paintproc\nassert False", AssertionError),
        ],
    )
    def test_broken_python_is_noticed(self, code, error):
        with pytest.raises(error):
            run_blocks(python_blocks("broken.md", f"# Page\n\n```python\n{code}\n```\n"))

    def test_a_block_goes_on_from_the_one_before(self):
        text = "```python\nimport paintproc\nx = 1\n```\n\n```python\nassert x == 1\n```\n```py\nx + (\n```\n"
        assert len(python_blocks("page.md", text)) == 2
        run_blocks(python_blocks("page.md", text))

    def test_an_unknown_need_is_noticed(self):
        (block,) = python_blocks("page.md", "a\n\n<!-- needs: torch, luck -->\n```python\nx = 1\n```\n")
        assert (block.needs, block.line) == (("torch", "luck"), 5)
        with pytest.raises(KeyError, match="luck"):
            [lacking(need) for need in block.needs]


def rooms(text: str) -> Iterator[str]:
    """The files and folders, ending in /, that the tree under Rooms names, relative to the repository.

    An entry belongs to the nearest folder above it that is less indented. Braces are expanded.
    """
    tree = re.search(r"^## Rooms$.*?^```\n(.*?)^```", text, re.S | re.M)
    if tree is None:
        return
    above: list[tuple[int, str]] = []
    for line in tree[1].splitlines():
        indent = len(line) - len(line.lstrip())
        above = [(depth, folder) for depth, folder in above if depth < indent]
        parent = above[-1][1] if above else ""
        # a line names one file or folder and describes it; at the left margin it may name several folders
        words = line.split() if indent == 0 else line.split()[:1]
        for word in words:
            if not re.fullmatch(r"[\w./{},*-]+", word) or not word.endswith(("/", ".py", "}", ".toml", ".md")):
                continue
            for name in expanded(word):
                yield parent + name
                if name.endswith("/"):
                    above.append((indent, parent + name))


def expanded(word: str) -> list[str]:
    """`a/{b,c}.py` as `a/b.py`, `a/c.py`."""
    match = re.search(r"\{([^{}]*)\}", word)
    if match is None:
        return [word]
    inner = [word[: match.start()] + part + word[match.end() :] for part in match[1].split(",")]
    return [name for part in inner for name in expanded(part)]


def room_faults(text: str, root: Path) -> list[str]:
    """What the tree names and the disk lacks, and modules and packages of paintproc/ that the tree does not name."""
    named = list(rooms(text))
    faults = [
        f"{name} does not exist" for name in named if not any(root.glob(name.rstrip("/")))
        or (name.endswith("/") and not (root / name).is_dir())
    ]  # fmt: skip
    for path in sorted((root / "paintproc").iterdir()):
        name = f"paintproc/{path.name}" + ("/" if path.is_dir() else "")
        is_room = path.suffix == ".py" or (path.is_dir() and re.match("[a-z]", path.name))
        if is_room and name not in named:
            faults.append(f"{name} is not named")
    return faults


def unknown_files(text: str, root: Path) -> list[str]:
    """Python files in backticks that are nowhere in the repository; `eng.py` is a file of another project."""
    known = ["eng.py"]
    known += [path.relative_to(root).as_posix() for path in root.rglob("*.py") if ".venv" not in path.parts]
    named = [name for word in re.findall(r"`([\w./{},-]+\.py)`", text) for name in expanded(word)]
    return [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in known)]


class TestDesign:
    def test_the_rooms_are_those_on_disk(self):
        assert len(list(rooms(DESIGN.read_text()))) > 20
        assert room_faults(DESIGN.read_text(), ROOT) == []

    def test_wrong_rooms_are_noticed(self, tmp_path):
        for name in ("paintproc/strokes/ops", "paintproc/scene", "docs", "paintproc/__pycache__"):
            (tmp_path / name).mkdir(parents=True)
        for name in ("paintproc/a.py", "paintproc/b.py", "paintproc/strokes/c.py", "paintproc/strokes/ops/d.py"):
            (tmp_path / name).touch()
        text = (
            "## Rooms\n\n```\npaintproc/\n  a.py   torch.py is not here\n  gone.py   nothing\n  strokes/   values\n"
            "    {c,e}.py  two\n    ops/   more\n      d.py\ndocs/  benchmarks/\n```\n"
        )
        assert room_faults(text, tmp_path) == [
            "paintproc/gone.py does not exist",
            "paintproc/strokes/e.py does not exist",
            "benchmarks/ does not exist",
            "paintproc/b.py is not named",
            "paintproc/scene/ is not named",
        ]
        assert room_faults("no tree", tmp_path)

    @pytest.mark.parametrize("page", PAGES, ids=by_name)
    def test_named_files_exist(self, page):
        assert unknown_files(page.read_text(), ROOT) == []

    def test_unknown_files_are_noticed(self):
        text = "`scene/find.py` `find.py` `docs/make.py` `scene/{find,lost}.py` `gone.py` `strokes/find.py`"
        assert unknown_files(text, ROOT) == ["scene/lost.py", "gone.py", "strokes/find.py"]


def test_no_file_grows_without_a_reason():
    long = {
        path.name: count
        for path in (ROOT / "paintproc").rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert set(long) <= {"kernels.py"}


def test_importing_paintproc_is_light():
    code = "import sys, paintproc; sys.exit(any(name in sys.modules for name in ('numpy', 'PIL', 'torch', 'numba')))"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0
