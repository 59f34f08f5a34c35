"""Options from settings, and what every command keeps: exit codes, signals, plain errors."""

import contextlib
import dataclasses
import functools
import inspect
import os
import signal
import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from paintproc import console
from paintproc.config.settings import field_types, option, read_settings_file
from paintproc.errors import Interrupted, OutputError, PaintprocError

STOPPING = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGBREAK")
"""Signals that stop a command, where the system has them; SIGBREAK is Windows' Ctrl-Break."""
LOADERS = {"importlib", "_frozen_importlib", "_frozen_importlib_external", "llvmlite"}
"""Packages that run while compiled code is loaded."""

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
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output, if paintproc made it.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Settings from a TOML file, or from a sequence.json.", show_default=False),
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(
        "--weights-dir",
        help="Where weights lie; by default $PAINTPROC_WEIGHTS, or paintproc/weights in the user's cache folder.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout instead of a path.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no notices.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show a traceback with an error.")]


def options_from(settings: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option per field of `settings`, and hand it the resolved object.

    The command takes `settings` as its keyword `config` and has an option `config_file`. A value
    comes from the option, its environment variable PAINTPROC_<COMMAND>_<OPTION>, the file, or
    the field's default, in this order.
    """
    kinds = field_types(settings)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        name = command.__module__.rsplit(".", 1)[-1]

        @functools.wraps(command)
        def run(ctx: typer.Context, **values: Any) -> None:
            with manners(values.get("verbose", False), values.get("quiet", False)):
                file = values.pop("config_file", None)
                chosen = read_settings_file(file, settings) if file else {}
                for key in kinds:
                    value = values.pop(key)
                    source = ctx.get_parameter_source(key)
                    if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
                        chosen[key] = tuple(value) if isinstance(value, list) else value
                command(config=settings(**chosen), **values)

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        own = [p for p in inspect.signature(command).parameters.values() if p.name != "config"]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [context, *own, *(_option(name, field, *kinds[field.name]) for field in dataclasses.fields(settings))]
        )
        run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
        return run

    return decorate


def _option(command: str, field: "dataclasses.Field[Any]", kind: Any, text: str) -> inspect.Parameter:
    """One setting as a Typer option."""
    default, metavar = field.default, None
    if typing.get_origin(kind) is tuple:
        # Typer has no repeatable choices: the settings check the words themselves
        metavar = "|".join(typing.get_args(typing.get_args(kind)[0]))
        kind, default = list[str], list(field.default)  # type: ignore[arg-type]
    info = typer.Option(
        option(field.name),
        help=text,
        metavar=metavar,
        envvar=f"PAINTPROC_{command}_{field.name}".upper(),
        show_envvar=False,
        show_default=default is not None,
    )
    annotation = Annotated[kind, info]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


@contextlib.contextmanager
def manners(verbose: bool, quiet: bool) -> Iterator[None]:
    """Turn whatever ends a command into one sentence on stderr and the promised exit code."""
    console.set_quiet(quiet)
    _on_signals(_stop)
    try:
        yield
        sys.stdout.flush()
        # the result is written; ignore signals while the interpreter shuts down
        _on_signals(signal.SIG_IGN)
        _try_again(0)
    except PaintprocError as error:
        if verbose:
            traceback.print_exc()
        console.complain(f"paintproc: {error}")
        raise typer.Exit(error.exit_code) from None
    except (KeyboardInterrupt, Interrupted) as stop:
        raise _ended(stop) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except MemoryError:
        console.complain("paintproc: out of memory. A smaller --size or fewer --strokes need less.")
        raise typer.Exit(5) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if verbose:
            traceback.print_exc()
        if _stopped:
            # compiled code turns the exception of a signal into another one
            raise _ended(_stopped[0]) from None
        console.complain(
            f"paintproc: this is a bug: {type(error).__name__}: {error}. Please report it, with --verbose."
        )
        raise typer.Exit(1) from None


_stopped: list[BaseException] = []
"""The signal that came, in case its exception is swallowed: code that calls back into Python,
as the kernels' compiler does while it loads, gives exceptions to `sys.unraisablehook` and goes on."""


def _on_signals(action: Any) -> None:
    for name in STOPPING:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), action)


def _stop(number: int, frame: FrameType | None) -> None:
    # tidying up is not to be interrupted
    _on_signals(signal.SIG_IGN)
    sys.unraisablehook = _swallowed
    name = signal.Signals(number).name
    text = f"Stopped by {name}; what was finished is kept. Run the same command again to go on."
    _stopped.append(KeyboardInterrupt() if number == signal.SIGINT else Interrupted(text))
    _raise_or_wait(0, frame)


def _raise_or_wait(_: int, frame: FrameType | None) -> None:
    """Raise what the signal means: at once, or where the process loads compiled code, which an exception may crash, as
    soon as it has.
    """
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in LOADERS:
            _try_again(0.02)
            return
        frame = frame.f_back
    check_stopped()


def _try_again(seconds: float) -> None:
    """Call `_raise_or_wait` again after so many seconds; 0 calls it off. Without a timer, as on Windows, the signal
    waits for `check_stopped`.
    """
    if hasattr(signal, "setitimer"):
        if seconds:
            signal.signal(signal.SIGALRM, _raise_or_wait)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _swallowed(what: Any) -> None:
    """The signal is said when it is raised again; anything else is printed."""
    if what.exc_value not in _stopped:
        sys.__unraisablehook__(what)


def _ended(stop: BaseException) -> typer.Exit:
    """Say that a signal ended the command; the exit it ends with."""
    if isinstance(stop, Interrupted):
        console.complain(f"paintproc: {stop}")
        return typer.Exit(stop.exit_code)
    console.complain("paintproc: stopped; nothing half-written is left.")
    return typer.Exit(130)


def check_stopped() -> None:
    """Raise what a signal raised before; called now and then, and before an output appears."""
    if _stopped:
        _try_again(0)
        raise _stopped[0]


def print_result(line: str) -> None:
    """One line of data on stdout, at once. OutputError when it cannot be written."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
        raise OutputError(f"Standard output cannot be written: {(error.strerror or str(error)).lower()}.") from error
