"""`paintproc generate`: from a picture to the canvases that lead to it."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paintproc import console
from paintproc.cli.failures import Failures
from paintproc.cli.inputs import STDIN, list_inputs, read_input
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
from paintproc.errors import InputError, PartialError, UsageError

if TYPE_CHECKING:
    from paintproc.media import Picture
    from paintproc.scene.networks import SceneNetworks

TIME_LIMIT = 3600.0
"""Seconds that one picture of a batch may take where several are painted at once."""


@options_from(GenerateConfig)
def command(
    *,
    config: GenerateConfig,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="PICTURE", help="More pictures.", show_default=False)
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", "-i", help="A picture, a folder of pictures, or - for stdin.", show_default=False),
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
    inputs, batch = list_inputs([*(image or []), *(more or [])], images_from, null)
    if canvas is not None and batch:
        raise UsageError("--canvas goes with one picture.", f"{len(inputs)} were given.")
    if canvas == STDIN and (STDIN in inputs or images_from == STDIN):
        raise UsageError("Standard input can be read once only.")
    if config.plan != FREE:
        read_plan(config.plan)
    folders = _output_folders(inputs, output, batch)
    networks = _networks(config, weights_dir)
    if dry_run:
        for source, folder in zip(inputs, folders, strict=True):
            if source != STDIN and not Path(source).is_file():
                raise InputError(f"{source} does not exist, or is no file.")
            console.say(f"would paint {source} into {folder}")
        return
    if not batch:
        print_result(_generate_one(inputs[0], folders[0], canvas, config, networks, overwrite, json))
        return
    tasks = [
        _Task(source, folder, config, networks, overwrite, json, quiet)
        for source, folder in zip(inputs, folders, strict=True)
    ]
    failures = Failures(output or Path())
    try:
        if workers > 1:
            _all_at_once(tasks, failures, fail_fast, workers)
        else:
            _one_by_one(tasks, failures, fail_fast)
    finally:
        failures.sort(key=lambda failure: inputs.index(str(failure["input"])))
        failures.write()
    if failures:
        raise PartialError(f"{len(failures)} of {len(inputs)} pictures failed; they are listed in {failures.path}.")


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


def _one_by_one(tasks: list[_Task], failures: Failures, fail_fast: bool) -> None:
    for task in tasks:
        with failures.noting(task.source):
            print_result(_paint_task(task))
        if failures.stop or (failures and fail_fast):
            break


def _all_at_once(tasks: list[_Task], failures: Failures, fail_fast: bool, workers: int) -> None:
    """The same in several processes; lines on stdout come as pictures are finished."""
    from paintproc.jobs import run_jobs
    from paintproc.threads import threads_of_workers

    if any(task.source == STDIN for task in tasks):
        raise UsageError("Standard input goes with --workers 1.")
    running = run_jobs(tasks, _paint_in_worker, workers=workers, time_limit=TIME_LIMIT, check=check_stopped)
    label = f"painting {len(tasks)} pictures"
    with threads_of_workers(workers), contextlib.closing(running), console.progress_bar(label) as progress:
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
    """Paint one picture into `folder`, unless it is there already; the line for stdout."""
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
        # without --overwrite only this very sequence may be replaced, where files of it are missing
        guard = (lambda: refuse_foreign(folder)) if overwrite else (lambda: _same(folder, facts))
        _paint(picture, start, folder, config, networks, Path(source).name, guard)
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


def _networks(config: GenerateConfig, weights: Path | None) -> "SceneNetworks":
    """The networks that look at every picture; what is missing ends the command before any work."""
    from paintproc.process.generate import scene_networks

    networks = scene_networks(config, weights)
    if networks.names:
        console.say(f"Scenes are seen by {networks}.")
    return networks


def _same(folder: Path, facts: dict[str, Any]) -> None:
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
    from paintproc.strokes.ops.compiling import announce_compilation

    announce_compilation(console.say)
    with whole_folder(folder, replace=guard) as scratch, console.progress_bar(f"painting {name}") as progress:

        def advance(done: float) -> None:
            check_stopped()
            progress(done)

        sequence = generate(
            picture, config, canvas=canvas, networks=networks, progress=lambda done: advance(0.6 * done)
        )
        write_sequence(sequence, scratch, config, lambda done: advance(0.6 + 0.4 * done))
        check_stopped()


def _output_folders(inputs: list[str], output: Path | None, batch: bool) -> list[Path]:
    """One folder an input: `<stem>-process`, or `output`; in a batch below `output`."""
    if not batch:
        return [output or Path(f"{_stem(inputs[0])}-process")]
    from collections import Counter

    stems = [_stem(name) for name in inputs]
    twice = {stem for stem, count in Counter(stems).items() if count > 1}
    folders = []
    for name, stem in zip(inputs, stems, strict=True):
        if stem in twice:
            import hashlib

            stem += "-" + hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
        folders.append((output or Path()) / f"{stem}-process")
    return folders


def _stem(name: str) -> str:
    return "stdin" if name == STDIN else Path(name).stem or "picture"


def _json_line(**values: Any) -> str:
    import json

    return json.dumps(values)
