"""Options from settings, and what every command keeps: exit codes, signals, plain errors."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import os
import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from paintproc import console, stopping
from paintproc.config.settings import (
    BATCH,
    GENERAL,
    GROUPS,
    INPUT,
    OUTPUT,
    choices,
    field_types,
    option,
    read_settings_file,
)
from paintproc.errors import Interrupted, OutputError, PaintprocError
from paintproc.stopping import check_stopped as check_stopped

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The folder to write; in a batch, the folder for all of them.",
        readable=False,
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output that paintproc made.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Settings from a TOML file, or from a sequence.json.", show_default=False),
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(
        "--weights-dir",
        help="The folder of weights; by default $PAINTPROC_WEIGHTS, or one in the user's cache folder.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Pictures worked on at once; by default one a core, or a CPU of the Ray cluster.",
        show_default=False,
    ),
]
EngineKind = Annotated[
    Literal["local", "ray"], typer.Option("--engine", help="Work in processes of this machine, or on Ray.")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="The Ray cluster to join: auto, or host:port. Without it Ray is started on this machine.",
        show_default=False,
    ),
]
MemoryPerItem = Annotated[
    float | None,
    typer.Option(
        "--memory-per-item", min=0, help="GB that a Ray cluster sets aside for a picture.", show_default=False
    ),
]
GpusPerItem = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-item",
        min=0,
        help="GPUs that Ray sets aside for a picture, such as 0.25.",
        show_default="1 where networks use CUDA",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, instead of paths.")]
JsonTable = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no notices.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show a traceback with an error.")]


HELP = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command and group."""

OWN_GROUPS = {
    INPUT: ("image", "images_from", "null", "canvas", "inputs"),
    OUTPUT: ("output", "overwrite", "extend", "layout", "shard_size"),
    BATCH: (
        "workers",
        "fail_fast",
        "shard_index",
        "num_shards",
        "time_limit",
        "max_bad",
        "engine",
        "address",
        "memory_per_item",
        "gpus_per_item",
    ),
}
"""Under which group of `--help` an option that is not a setting is listed; the others are general ones."""


def options_from(settings: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per field of `settings`, and hand it the resolved object.

    The command takes `settings` as its keyword `config` and has an option `config_file`. A value
    comes from the option, its environment variable PAINTPROC_<COMMAND>_<OPTION>, the file, or
    the field's default, in this order. `--help` shows the options in groups; register the command with
    `add_help_option=False`, since `--help` itself is put among the general ones here.
    """
    kinds = field_types(settings)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        name = command.__module__.rsplit(".", 1)[-1]

        @functools.wraps(command)
        def run(ctx: typer.Context, **values: Any) -> None:
            values.pop(HELP_OPTION.name)
            with plain_exits(values.get("verbose", False), values.get("quiet", False)):
                file = values.pop("config_file", None)
                chosen = read_settings_file(file, settings) if file else {}
                for key in kinds:
                    value = values.pop(key)
                    source = ctx.get_parameter_source(key)
                    if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
                        chosen[key] = tuple(value) if isinstance(value, list) else value
                command(config=settings(**chosen), **values)

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        own = [_grouped(p) for p in inspect.signature(command).parameters.values() if p.name != "config"]
        own += [_option(name, field, *kinds[field.name]) for field in dataclasses.fields(settings)]
        own.sort(key=lambda parameter: GROUPS.index(_info(parameter).rich_help_panel or INPUT))
        run.__signature__ = inspect.Signature([context, *own, HELP_OPTION])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
        return run

    return decorate


def _info(parameter: inspect.Parameter) -> Any:
    """What Typer is told about a parameter: the second part of its `Annotated`."""
    return typing.get_args(parameter.annotation)[1]


def _grouped(parameter: inspect.Parameter) -> inspect.Parameter:
    """An option that is not a setting, with its group of `--help`; arguments have a panel of their own."""
    info = _info(parameter)
    if isinstance(info, typer.models.ArgumentInfo):
        return parameter
    info = copy.copy(info)
    info.rich_help_panel = next((group for group, names in OWN_GROUPS.items() if parameter.name in names), GENERAL)
    return parameter.replace(annotation=Annotated[parameter.annotation.__origin__, info])


def _show_help(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        # with rich this prints, and returns nothing
        typer.echo(ctx.get_help())
        raise typer.Exit


HELP_OPTION = inspect.Parameter(
    "show_help",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option(
            "--help", "-h", is_eager=True, callback=_show_help, rich_help_panel=GENERAL,
            help="Show this message and exit.",
        ),
    ],
)  # fmt: skip


def _option(command: str, field: "dataclasses.Field[Any]", kind: Any, text: str, group: str) -> inspect.Parameter:
    """One setting as a Typer option."""
    default, metavar = field.default, None
    words = choices(kind)
    if len("|".join(words)) > 20:
        # too wide for a column beside the text
        metavar = f"<{field.name.replace('_', '-')}>"
        text += f" Choices: {', '.join(words)}."
    if typing.get_origin(kind) is tuple:
        # Typer has no repeatable choices: the settings check the words themselves
        kind, default = list[str], list(field.default)  # type: ignore[arg-type]
    info = typer.Option(
        option(field.name),
        help=text,
        metavar=metavar,
        envvar=f"PAINTPROC_{command}_{field.name}".upper(),
        show_envvar=False,
        show_default=default is not None,
        rich_help_panel=group,
    )
    annotation = Annotated[kind, info]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


@contextlib.contextmanager
def plain_exits(verbose: bool, quiet: bool) -> Iterator[None]:
    """Turn whatever ends a command, an error or a signal, into one sentence on stderr and its exit code."""
    console.set_quiet(quiet)
    try:
        check_stopped()
        yield
        sys.stdout.flush()
        stopping.finished()
    except (typer.Exit, typer.Abort, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise typer.Exit(_report(error, verbose)) from None


def _report(error: BaseException, verbose: bool) -> int:
    """Say in one sentence what ended a command; returns its exit code."""
    if verbose and not isinstance(error, (KeyboardInterrupt, Interrupted)):
        traceback.print_exception(error)
    if stopping.stopped():
        # whatever the error says: it may be the signal's doing, as where a child process got it too
        stopping.say_stopped()
        return stopping.stopped()
    if isinstance(error, (PaintprocError, Interrupted)):
        console.complain(f"paintproc: {error}")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, MemoryError):
        console.complain("paintproc: out of memory. A smaller --size or fewer --strokes need less.")
        return 5
    console.complain(f"paintproc: this is a bug: {type(error).__name__}: {error}. Please report it, with --verbose.")
    return 1


def print_result(line: str) -> None:
    """One line of data on stdout, at once. OutputError when it cannot be written."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
        raise OutputError(f"Standard output cannot be written: {(error.strerror or str(error)).lower()}.") from error
