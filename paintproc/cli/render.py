"""`paintproc render`: draw strokes again, at any size, or as a new video."""

import filecmp
import shutil
from pathlib import Path
from typing import Annotated

import typer

from paintproc import console
from paintproc.cli.options import Json, Overwrite, Quiet, Verbose, check_stopped, options_from, print_result
from paintproc.config.render import RenderConfig
from paintproc.errors import InputError, OutputError, UsageError


@options_from(RenderConfig)
def command(
    *,
    config: RenderConfig,
    strokes: Annotated[
        Path,
        typer.Argument(
            metavar="STROKES",
            help="A strokes.safetensors file, or the sequence folder it is in.",
            readable=False,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A .png, .svg or .mp4 file to write.", readable=False, show_default=False),
    ],
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw strokes again: a larger picture, a drawing, a new video.

    Example: paintproc render strokes.safetensors -o large.png --size 4096
    """
    kind = output.suffix.lower()
    if kind not in (".png", ".svg", ".mp4"):
        said = f"{output} ends in {kind}, which is not written." if kind else f"{output} has no ending."
        raise UsageError(said, "Choose a name that ends in .png, .svg or .mp4.")
    source = _strokes_in(strokes) if strokes.is_dir() else strokes
    from paintproc.files import temporary_folder, whole_file
    from paintproc.process.generate import PROVENANCE
    from paintproc.process.render import render
    from paintproc.strokes.ops.compiling import announce_compilation
    from paintproc.strokes.values import load_strokes

    loaded = load_strokes(source)
    if overwrite and output.is_file() and PROVENANCE.encode() not in output.read_bytes():
        raise OutputError(f"{output} was not made by paintproc; it is never overwritten.", "Choose another --output.")
    announce_compilation(console.say)
    with temporary_folder() as folder, console.progress_bar(f"drawing {output.name}") as bar:

        def progress(done: float) -> None:
            check_stopped()
            bar(done)

        drawn = folder / "drawn"
        render(loaded, drawn, kind, config, progress)
        check_stopped()
        if output.is_file() and not overwrite and filecmp.cmp(drawn, output, shallow=False):
            console.say(f"{output} is complete already.")
        else:
            with whole_file(output, replace=overwrite) as scratch:
                shutil.copyfile(drawn, scratch)
    if json:
        import json as encoder

        height, width = loaded.canvas_size(config.size)
        facts = {"input": str(strokes), "output": str(output), "height": height, "width": width}
        print_result(encoder.dumps(facts | {"strokes": len(loaded)}))
    else:
        print_result(str(output))


def _strokes_in(folder: Path) -> Path:
    """The strokes of a sequence folder; InputError for a folder without any."""
    path = folder / "strokes.safetensors"
    if not path.is_file():
        raise InputError(f"{folder} is a folder without strokes.safetensors.", "Name the folder of one sequence.")
    return path
