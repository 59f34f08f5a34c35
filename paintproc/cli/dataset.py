"""`paintproc dataset`: what can be done with a dataset that is there."""

import contextlib
import json as encoder
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from paintproc import console
from paintproc.cli.options import HELP, Json, Overwrite, Quiet, Verbose, check_stopped, plain_exits, print_result
from paintproc.errors import OutputError, PartialError, UsageError

app = typer.Typer(
    help="Check, pack, merge, split and look at datasets.",
    no_args_is_help=True,
    context_settings=HELP,
)

Folder = Annotated[
    Path,
    typer.Argument(metavar="DATASET", help="A dataset, in a folder or in shards.", readable=False, show_default=False),
]
Unpacked = Annotated[
    Path, typer.Argument(metavar="DATASET", help="A dataset folder.", readable=False, show_default=False)
]
Packed = Annotated[Path, typer.Argument(help="A dataset in shards.", readable=False, show_default=False)]
Out = Annotated[
    Path, typer.Option("--output", "-o", help="The dataset folder to write.", readable=False, show_default=False)
]
ShardSize = Annotated[int, typer.Option("--shard-size", min=1, help="Megabytes after which a tar is full.")]
SHOWN = 10
"""Most lines of a kind in the table of `info`."""


@app.command("verify")
def verify(dataset: Folder, json: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Check every byte of a dataset, in a folder or in shards.

    Example: paintproc dataset verify dataset
    """
    with plain_exits(verbose, quiet):
        from paintproc.dataset.folder import read_summary
        from paintproc.dataset.verify import verify_dataset

        with _bar(f"reading {dataset.name}") as progress:
            problems = verify_dataset(dataset, progress)
        for problem in problems:
            console.complain(f"paintproc: {problem}")
        counts = read_summary(dataset)["counts"]
        if json:
            print_result(encoder.dumps({"dataset": str(dataset), "counts": counts, "problems": problems}))
        elif not problems:
            print_result(str(dataset))
        if problems:
            raise PartialError(f"{len(problems)} problems were found in {dataset}.")
        console.say(f"All is well: {counts_in_words(counts)}.")


@app.command("pack")
def pack(
    dataset: Unpacked,
    output: Out,
    shard_size: ShardSize = 1024,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a dataset folder as WebDataset tars; equal datasets give equal bytes.

    Example: paintproc dataset pack dataset -o packed
    """
    with plain_exits(verbose, quiet):
        from paintproc.dataset.shards import pack_dataset

        with _bar(f"packing {dataset.name}") as progress:
            listed = pack_dataset(dataset, output, shard_size << 20, progress, replace=_guard(output, overwrite))
        if json:
            for line in listed:
                print_result(encoder.dumps(line | {"output": str(output)}))
        else:
            print_result(str(output))


@app.command("unpack")
def unpack(
    packed: Packed,
    output: Out,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write WebDataset tars as the dataset folder that they were made from.

    Example: paintproc dataset unpack packed -o dataset
    """
    with plain_exits(verbose, quiet):
        from paintproc.dataset.shards import unpack_dataset

        with _bar(f"unpacking {packed.name}") as progress:
            unpack_dataset(packed, output, progress, replace=_guard(output, overwrite))
        print_result(encoder.dumps({"output": str(output)}) if json else str(output))


@app.command("info")
def info(
    dataset: Folder,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder for a contact sheet and a page to browse.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Count what is in a dataset; with -o also show it.

    Example: paintproc dataset info dataset -o looked-at
    """
    with plain_exits(verbose, quiet):
        from paintproc.dataset.browse import PAGE, browse, describe

        about = describe(dataset)
        if output is not None:
            from paintproc.files import whole_folder

            replace = (lambda: _refuse_other(output)) if overwrite else None
            with (
                whole_folder(output, replace=replace) as scratch,
                _bar(f"looking at {dataset.name}") as progress,
            ):
                shown = browse(dataset, scratch, about, progress)
            console.say(f"{output / PAGE} shows {shown} sequences.")
        if json:
            print_result(encoder.dumps({"dataset": str(dataset), **about} | _written(output)))
            return
        _show(dataset, about)
        if output is not None:
            print_result(str(output))


def _written(output: Path | None) -> dict[str, str]:
    return {} if output is None else {"output": str(output)}


def _refuse_other(folder: Path) -> None:
    """OutputError if a folder holds anything but what `info` writes."""
    from paintproc.dataset.browse import PAGE, SHEET

    for path in sorted(folder.iterdir()):
        mark = b'content="paintproc"' if path.name == PAGE else b"paintproc"
        ours = path.name in (PAGE, SHEET) and path.is_file() and not path.is_symlink()
        if not ours or mark not in path.read_bytes()[:4096]:
            raise OutputError(f"{folder} holds {path.name}, which is not ours.", "Choose another --output.")


def _show(dataset: Path, about: dict[str, Any]) -> None:
    """Print the counts as a table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("what", "", "sequences", title=console.printable(str(dataset)), title_justify="left")
    kinds = ("method", "size", "frames", "license", "origin")
    for key, counts in (("split", about["splits"]), *((kind, about[kind]) for kind in kinds)):
        for number, (value, count) in enumerate(list(counts.items())[:SHOWN]):
            table.add_row("" if number else key, Text(console.printable(value)), str(count))
        if len(counts) > SHOWN:
            table.add_row("", f"{len(counts) - SHOWN} others", str(sum(list(counts.values())[SHOWN:])))
    Console().print(table)
    said = f"{about['pictures']} pictures; {counts_in_words(about['counts'])}; format {about['format']}"
    console.say(f"{said}.")


@app.command("merge")
def merge(
    datasets: Annotated[
        list[Path],
        typer.Argument(metavar="DATASET...", help="Two datasets or more.", readable=False, show_default=False),
    ],
    output: Out,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the sequences of several datasets as one; what several hold is there once.

    Example: paintproc dataset merge dataset more -o all
    """
    with plain_exits(verbose, quiet):
        from paintproc.dataset.rewrite import merge_datasets

        with _bar(f"merging {len(datasets)} datasets") as progress:
            counts = merge_datasets(datasets, output, progress, replace=_guard(output, overwrite))
        print_result(encoder.dumps({"output": str(output), "counts": counts}) if json else str(output))
        console.say(f"{counts_in_words(counts)}.")


@app.command("split")
def split(
    dataset: Folder,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder for all of them.", readable=False, show_default=False)
    ],
    by: Annotated[
        Literal["method", "license", "origin"] | None,
        typer.Option("--by", help="A dataset for each method, license or origin.", show_default=False),
    ] = None,
    parts: Annotated[
        int | None, typer.Option("--parts", min=2, help="So many datasets of about one size.", show_default=False)
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a dataset as several; all sequences of a painting stay together.

    Example: paintproc dataset split dataset --by method -o by-method
    """
    with plain_exits(verbose, quiet):
        from paintproc.dataset.rewrite import split_dataset

        key: Any = by if by is not None else parts
        if (by is None) == (parts is None):
            raise UsageError("How to split is not said.", "Pass either --by or --parts.")
        with _bar(f"splitting {dataset.name}") as progress:
            found = split_dataset(dataset, output, key, progress)
        for name, counts in found.items():
            path = str(output / name)
            print_result(encoder.dumps({"output": path, "counts": counts}) if json else path)


@app.command("upgrade")
def upgrade(
    dataset: Unpacked,
    output: Out,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image", "-i", help="Where its pictures are, as `synth` takes them; repeatable.", show_default=False
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a dataset of an older format in the current one.

    An older dataset does not hold the pictures from which it was made. Those that
    --image leads to are found by their sha256 and kept with it.

    Example: paintproc dataset upgrade old -i paintings/ -o dataset
    """
    with plain_exits(verbose, quiet):
        from paintproc.dataset.rewrite import upgrade_dataset
        from paintproc.synth.items import pictures_by_digest

        picture_of = pictures_by_digest(images or [])
        with _bar(f"upgrading {dataset.name}") as progress:
            found = upgrade_dataset(dataset, output, picture_of, progress, replace=_guard(output, overwrite))
        print_result(encoder.dumps({"output": str(output), "with_picture": found}) if json else str(output))
        console.say(f"{found} sequences have their picture with them.")


def _guard(output: Path, overwrite: bool) -> Callable[[], None] | None:
    """What is called before an output is replaced; None where it is not to be replaced."""
    from paintproc.dataset.folder import refuse_foreign

    return (lambda: refuse_foreign(output)) if overwrite else None


@contextlib.contextmanager
def _bar(label: str) -> Iterator[Callable[[float], None]]:
    """A progress bar that looks for signals whenever it is moved on."""
    with console.progress_bar(label) as progress:

        def advance(done: float) -> None:
            check_stopped()
            progress(done)

        yield advance


def counts_in_words(counts: dict[str, int]) -> str:
    return (
        f"{counts['inputs']} inputs: {counts['done']} done, {counts['skipped']} skipped, {counts['failed']} failed; "
        f"{counts['sequences']} sequences"
    )


def minutes(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
