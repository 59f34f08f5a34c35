"""The command line: one file per command, no heavy import on the way to --help."""

import sys

import typer

from paintproc.cli import generate, render
from paintproc.version import __version__

app = typer.Typer(
    help="Show how a picture could have been painted, from the blank canvas to the finished one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("generate")(generate.command)
app.command("render")(render.command)


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
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
