"""The command line: one file per command, no heavy import on the way to --help."""

import os
import sys

import typer

from paintproc.cli import dataset, doctor, generate, render, synth, weights
from paintproc.cli.options import HELP
from paintproc.console import complain
from paintproc.errors import Interrupted
from paintproc.stopping import listen, say_stopped, stopped
from paintproc.version import __version__

app = typer.Typer(
    help="Show how a picture could have been painted, from the empty canvas to the finished one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)
app.command("generate", add_help_option=False)(generate.command)
app.command("render", add_help_option=False)(render.command)
app.add_typer(synth.app, name="synth")
app.add_typer(dataset.app, name="dataset")
app.add_typer(weights.app, name="weights")
app.command("doctor")(doctor.command)


def _version(value: bool) -> None:
    if value:
        print(f"paintproc {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    listen()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123
    # every file name can be printed: Windows encodes pipes in another way than names, elsewhere a name need not be text
    sys.stdout.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")  # type: ignore[union-attr]
    try:
        sys.exit(app(standalone_mode=False))
    except (KeyboardInterrupt, Interrupted, typer.Abort):
        if stopped():
            say_stopped()
        sys.exit(stopped() or 130)
    except Exception as error:
        # Typer's errors about options, said in one sentence like all others
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        # without a command the help was printed instead, and the message is empty
        if message:
            complain(f"paintproc: {message} See --help.")
        sys.exit(getattr(error, "exit_code", 2))
