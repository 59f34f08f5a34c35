"""`paintproc generate`: from a picture to the canvases that could have led to it."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paintproc import console
from paintproc.cli.failures import Failures
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
from paintproc.errors import PartialError, UsageError

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
    if not batch and dry_run:
        _say_plan(tasks[0])
    elif not batch:
        print_result(_generate_one(inputs[0].name, folders[0], canvas, config, networks, overwrite, json))
    else:
        failures = Failures(output or Path(), json)
        if dry_run:
            _one_by_one(tasks, failures, fail_fast, _say_plan)
            listed = "would fail."
        else:
            _paint_batch(tasks, failures, fail_fast, workers)
            listed = f"failed; they are listed in {failures.path}."
        if failures:
            raise PartialError(f"{len(failures)} of {len(inputs)} pictures {listed}")


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


def _say_plan(task: _Task) -> None:
    """Say what would be painted, and where; InputError where the input is not a file."""
    from paintproc.media import check_file

    if task.source != STDIN:
        check_file(Path(task.source), task.source)
    console.say(f"would paint {task.source} into {task.folder}")
    if task.as_json:
        print_result(_json_line(input=task.source, output=str(task.folder), dry_run=True))


def _paint_batch(tasks: list[_Task], failures: Failures, fail_fast: bool, workers: int) -> None:
    """Paint all pictures, and write the list of those that failed, also where a signal ends the batch."""
    try:
        if workers > 1:
            _all_at_once(tasks, failures, fail_fast, workers)
        else:
            _one_by_one(tasks, failures, fail_fast, lambda task: print_result(_paint_task(task)))
    finally:
        places = {task.source: place for place, task in enumerate(tasks)}
        failures.sort(key=lambda failure: places[str(failure["input"])])
        failures.write()


def _one_by_one(tasks: list[_Task], failures: Failures, fail_fast: bool, work: Callable[[_Task], None]) -> None:
    for task in tasks:
        with failures.noting(task.source):
            work(task)
        if failures.stop or (failures and fail_fast):
            break


def _all_at_once(tasks: list[_Task], failures: Failures, fail_fast: bool, workers: int) -> None:
    """Paint in several processes; results are printed in the order in which they are finished."""
    from paintproc.jobs import Engine, run_jobs

    if any(task.source == STDIN for task in tasks):
        raise UsageError("Standard input needs --workers 1.")
    running = run_jobs(tasks, _paint_in_worker, Engine(workers=workers), time_limit=TIME_LIMIT, check=check_stopped)
    label = f"painting {len(tasks)} pictures"
    with contextlib.closing(running), console.progress_bar(label) as progress:
        for done, outcome in enumerate(running, 1):
            if outcome.exit_code:
                source, text = outcome.item.source, outcome.error
                failures.note(source, text if source in text else f"{source}: {text}", outcome.exit_code)
            else:
                print_result(outcome.result)
            progress(done / len(tasks))
            if failures.stop or (failures and fail_fast):
                break


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
