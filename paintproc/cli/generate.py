"""`paintproc generate`: from a picture to the canvases that lead to it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paintproc import console
from paintproc.cli.inputs import list_inputs, read_input
from paintproc.cli.options import (
    Config,
    DryRun,
    Json,
    Output,
    Overwrite,
    Quiet,
    Verbose,
    options_from,
    print_result,
)
from paintproc.config.generate import GenerateConfig
from paintproc.errors import InputError, OutputError, PaintprocError, PartialError, UsageError

if TYPE_CHECKING:
    from paintproc.media import Picture
    from paintproc.sequence import PaintingSequence


@options_from(GenerateConfig)
def command(
    *,
    config: GenerateConfig,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="PICTURE", help="More pictures.", show_default=False)
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", "-i", help="A picture, a folder of pictures, or - for stdin.", show_default=False),
    ] = None,
    images_from: Annotated[
        str | None,
        typer.Option("--images-from", help="A file with one path a line, or - for stdin.", show_default=False),
    ] = None,
    null: Annotated[bool, typer.Option("--null", help="Paths of --images-from end with NUL.")] = False,
    canvas: Annotated[
        Path | None,
        typer.Option("--canvas", help="A half-finished canvas of the picture to go on from.", show_default=False),
    ] = None,
    output: Output = None,
    overwrite: Overwrite = False,
    config_file: Config = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop a batch at its first failure.")] = False,
    json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show how a picture could have been painted.

    Writes a folder with key frames, a video, a contact sheet, the strokes and a record.

    Example: paintproc generate --image examples/wheat-field.jpg
    """
    inputs, batch = list_inputs([*(image or []), *(more or [])], images_from, null)
    if canvas is not None and batch:
        raise UsageError("--canvas goes with one picture.", f"{len(inputs)} were given.")
    folders = _output_folders(inputs, output, batch)
    if dry_run:
        for source, folder in zip(inputs, folders, strict=True):
            console.say(f"would paint {source} into {folder}")
        return
    failures = []
    for source, folder in zip(inputs, folders, strict=True):
        try:
            print_result(_generate_one(source, folder, canvas, config, overwrite, json))
        except (InputError, OutputError) as error:
            if not batch or _stops_all(error):
                raise
            console.complain(f"paintproc: {error}")
            failures.append({"input": str(source), "error": str(error), "exit_code": error.exit_code})
            if fail_fast:
                break
    if failures:
        listing = _write_failures(output or Path(), failures)
        raise PartialError(f"{len(failures)} of {len(inputs)} pictures failed; they are listed in {listing}.")


def _generate_one(
    source: Path, folder: Path, canvas: Path | None, config: GenerateConfig, overwrite: bool, as_json: bool
) -> str:
    """Paint one picture into `folder`, unless it is there already; the line for stdout."""
    import time

    from paintproc.process.folder import is_finished, read_record, refuse_foreign
    from paintproc.process.generate import identity

    begun = time.perf_counter()
    picture = read_input(source, config.size)
    start = None if canvas is None else read_input(canvas, None)
    for note in (*picture.notes, *(start.notes if start else ())):
        console.say(note)
    if overwrite:
        refuse_foreign(folder)
    if not overwrite and is_finished(folder, identity(picture, start, config)):
        console.say(f"{folder} is complete already.")
    else:
        _paint(picture, start, folder, config, source.name)
    if not as_json:
        return str(folder)
    record = read_record(folder) or {}
    return _json_line(
        output=str(folder),
        frames=len(record["frames"]),
        strokes=record["strokes"],
        psnr=record["painted_end"]["psnr"],
        seconds=round(time.perf_counter() - begun, 3),
    )


def _paint(picture: "Picture", canvas: "Picture | None", folder: Path, config: GenerateConfig, name: str) -> None:
    from paintproc.process.folder import save_sequence
    from paintproc.process.generate import generate
    from paintproc.strokes.compiling import announce_compilation

    announce_compilation(console.say)
    with console.progress_bar(f"painting {name}") as progress:
        sequence: PaintingSequence = generate(
            picture, config, canvas=canvas, progress=lambda done: progress(0.6 * done)
        )
        save_sequence(sequence, folder, config, overwrite=True, progress=lambda done: progress(0.6 + 0.4 * done))


def _output_folders(inputs: list[Path], output: Path | None, batch: bool) -> list[Path]:
    """One folder an input: `<stem>-process`, or `output`; in a batch below `output`."""
    if not batch:
        return [output or Path(f"{_stem(inputs[0])}-process")]
    from collections import Counter

    stems = [_stem(path) for path in inputs]
    twice = {stem for stem, count in Counter(stems).items() if count > 1}
    folders = []
    for path, stem in zip(inputs, stems, strict=True):
        if stem in twice:
            import hashlib

            stem += "-" + hashlib.sha256(str(path).encode(errors="surrogateescape")).hexdigest()[:8]
        folders.append((output or Path()) / f"{stem}-process")
    return folders


def _stem(path: Path) -> str:
    return "stdin" if str(path) == "-" else path.stem or "picture"


def _stops_all(error: PaintprocError) -> bool:
    """A full disk fails every later picture too."""
    return isinstance(error, OutputError) and "disk is full" in error.message


def _write_failures(folder: Path, failures: list[dict[str, Any]]) -> Path:
    from paintproc.files import whole_file

    path = folder / "failures.jsonl"
    with whole_file(path, replace=True) as scratch:
        scratch.write_text("".join(_json_line(**failure) + "\n" for failure in failures), encoding="utf-8")
    return path


def _json_line(**values: Any) -> str:
    import json

    return json.dumps(values)
