"""What `--help` shows: everything whole at 80 columns, options in groups, no riddles at the end."""

import os
import re

import pytest
import typer
from typer.core import TyperGroup

from paintproc.cli import app

WIDTH = 80


def every_command(command=None, words=()):
    """The words of each command with its Typer object, groups included."""
    command = command or typer.main.get_command(app)
    yield words, command
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from every_command(inner, (*words, name))


COMMANDS = dict(every_command())


def problems_of(narrow: str, wide: str, options: list[str]) -> list[str]:
    """What is wrong with a help text: lines that are too long, options or words that are not whole.

    A word is whole where it is also in the text `wide`, printed without a limit.
    """
    found = [f"too long: {line}" for line in narrow.splitlines() if len(line.rstrip()) > WIDTH]
    words = [set(re.split(r"[\s│╭╮╰╯─]+", text)) for text in (narrow, wide)]
    found += [f"missing: {option}" for option in options if option not in re.split(r"[\s,]+", narrow)]
    return found + [f"broken: {word}" for word in words[0] - words[1]]


def options_of(command) -> list[str]:
    return [name for parameter in command.params for name in parameter.opts if name.startswith("-")]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "paintproc")
def test_everything_is_whole_at_80_columns(paintproc, words):
    narrow, wide = (
        paintproc(*words, "--help", env=os.environ | {"COLUMNS": str(columns)}).stdout for columns in (WIDTH, 1000)
    )
    options = [*options_of(COMMANDS[words]), "--help", "-h"]
    assert not problems_of(narrow, wide, options)


def test_broken_help_is_noticed():
    wide = "│ --num-frames  <even-change|even-time>  Key frames. │"
    assert not problems_of(wide, wide, ["--num-frames"])
    assert set(problems_of(wide.replace("|", " |"), wide, [])) == {"broken: <even-change", "broken: |even-time>"}
    assert problems_of("│ --num-fra… │", wide, ["--num-frames"])[0] == "missing: --num-frames"
    assert problems_of(wide + " " + "Key " * 20 + "Key", wide, [])[0].startswith("too long")


@pytest.mark.parametrize("words", [("generate",), ("synth", "strokes"), ("synth", "layers"), ("render",)], ids=" ".join)
def test_options_are_in_groups(paintproc, words):
    text = paintproc(*words, "--help").stdout
    panels = re.findall(r"╭─ (\w+)", text)
    groups = ["Arguments", "Input", "Painting", "Output", "Batch", "General"]
    assert panels == (groups if words != ("render",) else ["Arguments", "Output", "General"])
    assert text.index("--verbose") > text.index("─ General") and text.rindex("--help") > text.index("--verbose")


@pytest.mark.parametrize("words", [(), ("weights",), ("synth",)], ids=lambda words: " ".join(words) or "paintproc")
def test_a_command_without_its_word_prints_help(paintproc, words):
    done = paintproc(*words)
    assert (done.returncode, done.stderr) == (2, "")
    assert "Usage: paintproc" in done.stdout and "Commands" in done.stdout


def test_a_wrong_option_is_one_sentence(paintproc):
    done = paintproc("synth", "stroke")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "See --help." in done.stderr


def test_json_replaces_what_is_printed(paintproc):
    """Paths, or a table where no paths are printed."""
    for words, instead in ((("generate",), "paths"), (("doctor",), "a table"), (("weights", "list"), "a table")):
        text = paintproc(*words, "--help", env=os.environ | {"COLUMNS": "120"}).stdout
        assert re.search(rf"--json .*instead of {instead}\.", text)
