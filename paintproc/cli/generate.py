"""`paintproc generate`: from a picture to the canvases that could have led to it."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paintproc import console
from paintproc.cli.inputs import STDIN, Input, list_inputs, read_input
from paintproc.cli.options import (
    Config,
    DryRun,
    Json,
    Output,
    Overwrite,
    Quiet,
    Verbose,
    WeightsDir,
    check_stopped,
    options_from,
    print_result,
)
from paintproc.config.generate import GenerateConfig
from paintproc.config.plan import FREE, read_plan
from paintproc.errors import OutputError, PartialError, UsageError

if TYPE_CHECKING:
    from paintproc.media import Picture
    from paintproc.scene.networks import SceneNetworks

TIME_LIMIT = 3600.0
"""Seconds that one picture may take where several are painted at once."""

FILES = {
    ".mp4": ("mp4", "process.mp4"), ".gif": ("gif", "process.gif"), ".webp": ("webp", "process.webp"),
    ".svg": ("svg", "strokes.svg"), ".html": ("html", "process.html"), ".ora": ("ora", "strokes.ora"),
    ".png": ("frames", "PNG files"), ".jpg": ("frames", "PNG files"), ".jpeg": ("frames", "PNG files"),
}  # fmt: skip
"""Endings of files that people may want as output, the --format that writes one like it, and what that is called."""


@options_from(GenerateConfig)
def command(
    *,
    config: GenerateConfig,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="PICTURE", help="More pictures, as with --image.", show_default=False)
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            "-i",
            help="A picture, a folder with all pictures below it, or - for stdin; repeatable.",
            show_default=False,
        ),
    ] = None,
    images_from: Annotated[
        str | None,
        typer.Option("--images-from", help="A file with one path a line, or - for stdin.", show_default=False),
    ] = None,
    null: Annotated[bool, typer.Option("--null", help="Paths of --images-from end with NUL.")] = False,
    canvas: Annotated[
        str | None,
        typer.Option("--canvas", help="A half-finished canvas of the picture to go on from.", show_default=False),
    ] = None,
    weights_dir: WeightsDir = None,
    output: Output = None,
    overwrite: Overwrite = False,
    config_file: Config = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Pictures of a batch painted at once.")] = 1,
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
    _refuse_file(output)
    inputs, batch = list_inputs([*(image or []), *(more or [])], images_from, null)
    if canvas is not None and batch:
        raise UsageError("--canvas works with one picture only.", f"{len(inputs)} were given.")
    if canvas == STDIN and (images_from == STDIN or any(source.name == STDIN for source in inputs)):
        raise UsageError("Standard input can be read once only.")
    if config.plan != FREE:
        read_plan(config.plan)
    if config.frames_at == "stage" and config.num_frames != GenerateConfig.num_frames:
        console.say("--num-frames does not apply to --frames-at stage: there is one frame for each stage.")
    folders = _output_folders(inputs, output, batch)
    networks = _networks(config, weights_dir)
    tasks = [
        _Task(source.name, folder, config, networks, overwrite, json, quiet)
        for source, folder in zip(inputs, folders, strict=True)
    ]
    if batch:
        _paint_batch(tasks, output or Path(), workers, fail_fast, dry_run)
    elif dry_run:
        _print(_say_plan(tasks[0]))
    else:
        print_result(_generate_one(inputs[0].name, folders[0], canvas, config, networks, overwrite, json))


@dataclass(frozen=True)
class _Task:
    """One picture of a batch."""

    source: str
    folder: Path
    config: GenerateConfig
    networks: "SceneNetworks"
    overwrite: bool
    as_json: bool
    quiet: bool


def _refuse_file(output: Path | None) -> None:
    """UsageError for an output that is named like a file."""
    if output is not None and output.suffix.lower() in FILES and not output.is_dir():
        kind, written = FILES[output.suffix.lower()]
        raise UsageError(
            f"-o is the folder to write, and {output} is named like a file.",
            f"Name a folder; --format {kind} writes {written} into it.",
        )


def _say_plan(task: _Task) -> str:
    """Say what would be painted, and where; InputError where the input is not a file. Returns the line for stdout."""
    from paintproc.media import check_file

    if task.source != STDIN:
        check_file(Path(task.source), task.source)
    console.say(f"would paint {task.source} into {task.folder}")
    return _json_line(input=task.source, output=str(task.folder), dry_run=True) if task.as_json else ""


def _paint_batch(tasks: list[_Task], output: Path, workers: int, fail_fast: bool, dry_run: bool) -> None:
    """Paint all pictures; those that failed are listed in `failures.jsonl`, also where a signal ends the batch.

    PartialError if some failed.
    """
    from paintproc.building import FailureList, Item, work_through
    from paintproc.jobs import Engine

    if workers > 1 and any(task.source == STDIN for task in tasks):
        raise UsageError("Standard input needs --workers 1.")
    failures = FailureList(output)
    items = [Item(place, task.source, task) for place, task in enumerate(tasks)]
    several = workers > 1 and not dry_run
    work = _say_plan if dry_run else _paint_in_worker if several else _paint_task
    bar = console.progress_bar(f"painting {len(tasks)} pictures") if several else contextlib.nullcontext(_no_progress)
    try:
        with bar as progress:
            outcomes = work_through(
                items, work, len(items), engine=Engine(workers=workers) if several else None,
                item_seconds=TIME_LIMIT, progress=progress, check=check_stopped,
            )  # fmt: skip
            with contextlib.closing(outcomes):
                for outcome in outcomes:
                    if not outcome.exit_code:
                        _print(outcome.result)
                        continue
                    console.complain(f"paintproc: {outcome.error}")
                    line = failures.add(outcome)
                    _print(_json_line(**line) if tasks[0].as_json else "")
                    # all later pictures would fail, too, where the disk is full
                    if fail_fast or (outcome.exit_code == OutputError.exit_code and "disk is full" in outcome.error):
                        break
    finally:
        if not dry_run:
            failures.write()
    if failures.lines:
        listed = "would fail." if dry_run else f"failed; they are listed in {failures.path}."
        raise PartialError(f"{len(failures.lines)} of {len(tasks)} pictures {listed}")


def _no_progress(done: float) -> None:
    """Each picture has a bar of its own."""


def _print(line: str) -> None:
    if line:
        print_result(line)


def _paint_in_worker(task: _Task) -> str:
    console.set_quiet(task.quiet, bars=False)
    return _paint_task(task)


def _paint_task(task: _Task) -> str:
    return _generate_one(task.source, task.folder, None, task.config, task.networks, task.overwrite, task.as_json)


def _generate_one(
    source: str,
    folder: Path,
    canvas: str | None,
    config: GenerateConfig,
    networks: "SceneNetworks",
    overwrite: bool,
    as_json: bool,
) -> str:
    """Paint one picture into `folder`, unless it is there already; returns the line for stdout."""
    import time

    from paintproc.process.folder import is_finished, refuse_foreign
    from paintproc.process.generate import identity
    from paintproc.sequence import read_record

    begun = time.perf_counter()
    picture = read_input(source, config.size)
    start = None if canvas is None else read_input(canvas, None)
    for note in (*picture.notes, *(start.notes if start else ())):
        console.say(note)
    facts = identity(picture, start, config, networks)
    if overwrite:
        refuse_foreign(folder)
    if not overwrite and is_finished(folder, facts):
        console.say(f"{folder} is complete already.")
    else:
        # without --overwrite, only the same sequence is replaced, and only if files of it are missing
        guard = (lambda: refuse_foreign(folder)) if overwrite else (lambda: _refuse_different(folder, facts))
        _paint(picture, start, folder, config, networks, Path(source).name, guard)
    if not as_json:
        return str(folder)
    record = read_record(folder) or {}
    return _json_line(
        input=source,
        output=str(folder),
        frames=len(record["frames"]),
        strokes=record["strokes"],
        psnr=record["painted_end"]["psnr"],
        seconds=round(time.perf_counter() - begun, 3),
    )


def _networks(config: GenerateConfig, weights: Path | None) -> "SceneNetworks":
    """The networks that look at every picture. Errors of `scene_networks`: the command ends before any work."""
    from paintproc.process.generate import scene_networks

    networks = scene_networks(config, weights)
    if networks.names:
        console.say(f"Regions are found by {networks}.")
    return networks


def _refuse_different(folder: Path, facts: dict[str, Any]) -> None:
    """OutputError unless `folder` holds the sequence of these facts, whole or with files missing."""
    from paintproc.process.folder import is_finished, refuse_foreign

    refuse_foreign(folder)
    is_finished(folder, facts)


def _paint(
    picture: "Picture",
    canvas: "Picture | None",
    folder: Path,
    config: GenerateConfig,
    networks: "SceneNetworks",
    name: str,
    guard: Callable[[], None],
) -> None:
    from paintproc.files import whole_folder
    from paintproc.process.folder import write_sequence
    from paintproc.process.generate import generate
    from paintproc.strokes.ops.compiling import announce_compilation, compile_in_background

    announce_compilation(console.say)
    if config.plan != FREE:
        compile_in_background()
    with whole_folder(folder, replace=guard) as scratch, console.progress_bar(f"painting {name}") as progress:

        def advance(done: float) -> None:
            check_stopped()
            progress(done)

        sequence = generate(
            picture, config, canvas=canvas, networks=networks, progress=lambda done: advance(0.6 * done)
        )
        write_sequence(sequence, scratch, config, lambda done: advance(0.6 + 0.4 * done))
        check_stopped()


def _output_folders(inputs: list[Input], output: Path | None, batch: bool) -> list[Path]:
    """The output folder of each input: for one picture `output`, or `<stem>-process`.

    In a batch `<stem>-process` below `output`, in the same subfolder that the picture is in below the folder that
    was named; where two would be the same, a digest of the input's path is added.
    """
    if not batch:
        return [output or Path(f"{inputs[0].stem}-process")]
    from collections import Counter

    places = Counter(source.below / source.stem for source in inputs)
    folders = []
    for source in inputs:
        stem = source.stem
        if places[source.below / stem] > 1:
            import hashlib

            stem += "-" + hashlib.sha256(source.name.encode(errors="surrogateescape")).hexdigest()[:8]
        folders.append((output or Path()) / source.below / f"{stem}-process")
    return folders


def _json_line(**values: Any) -> str:
    import json

    return json.dumps(values)
