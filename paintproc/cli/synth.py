"""`paintproc synth`: synthetic sequences of many pictures, as a dataset."""

import json as encoder
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from paintproc import console
from paintproc.cli import dataset
from paintproc.cli.dataset import Out, ShardSize, counts_in_words, minutes
from paintproc.cli.options import (
    HELP,
    Address,
    Config,
    DryRun,
    EngineKind,
    GpusPerItem,
    Json,
    MemoryPerItem,
    Overwrite,
    Quiet,
    Verbose,
    WeightsDir,
    Workers,
    check_stopped,
    options_from,
    print_result,
)
from paintproc.config.synth import SynthConfig, SynthLayersConfig, SynthStrokesConfig
from paintproc.errors import InputError, PartialError, UsageError

if TYPE_CHECKING:
    from paintproc.dataset.build import Report
    from paintproc.dataset.growing import Build
    from paintproc.jobs import Engine
    from paintproc.scene.networks import SceneNetworks
    from paintproc.synth.sources import Source

app = typer.Typer(
    help="Synthetic sequences of many pictures, as a dataset to train on.",
    no_args_is_help=True,
    context_settings=HELP,
)

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT...",
        help="Pictures, folders with all their subfolders, patterns like 'art/**/*.jpg', WebDataset tars.",
        show_default=False,
    ),
]
ImagesFrom = Annotated[
    str | None,
    typer.Option("--images-from", help="A file with one input a line, or - for stdin.", show_default=False),
]
Null = Annotated[bool, typer.Option("--null", help="Inputs of --images-from end with NUL.")]
Layout = Annotated[
    Literal["folder", "shards"], typer.Option("--layout", help="Write a folder for each sequence, or WebDataset tars.")
]
ShardIndex = Annotated[
    int | None,
    typer.Option("--shard-index", min=0, help="The part of the inputs for this run, from 0.", show_default="Slurm's"),
]
NumShards = Annotated[
    int | None,
    typer.Option(
        "--num-shards",
        min=1,
        help="How many parts there are, one a run.",
        show_default="Slurm's, or 1",
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option("--time-limit", min=0, help="Minutes after which to stop; run it again to go on.", show_default=False),
]
MaxBad = Annotated[
    int | None, typer.Option("--max-bad", min=0, help="Stop after more failures than this.", show_default=False)
]
Extend = Annotated[
    bool, typer.Option("--extend", help="Add these inputs to a dataset of others with the same settings.")
]


STROKES = """Paint pictures stroke by stroke, each by every --method.

fit goes from coarse to fine, human as `generate` does; learn-to-paint lays
semi-transparent curves, five a step; stylized works with an oil brush or a
marker in finer and finer grids.

Example: paintproc synth strokes paintings/ -o dataset --method human
"""
LAYERS = """Place the regions of pictures on a blank canvas one by one, in order of depth.

Example: paintproc synth layers paintings/ -o layers --render strokes
"""


def _building(settings: type[SynthConfig], text: str) -> Callable[..., None]:
    """A command that builds a dataset with these settings; `text` is its help."""

    def command(
        *,
        config: SynthConfig,
        inputs: Inputs = None,
        output: Out,
        images_from: ImagesFrom = None,
        null: Null = False,
        layout: Layout = "folder",
        shard_size: ShardSize = 1024,
        workers: Workers = None,
        engine: EngineKind = "local",
        address: Address = None,
        memory_per_item: MemoryPerItem = None,
        gpus_per_item: GpusPerItem = None,
        shard_index: ShardIndex = None,
        num_shards: NumShards = None,
        time_limit: TimeLimit = None,
        max_bad: MaxBad = None,
        weights_dir: WeightsDir = None,
        overwrite: Overwrite = False,
        extend: Extend = False,
        config_file: Config = None,
        json: Json = False,
        dry_run: DryRun = False,
        quiet: Quiet = False,
        verbose: Verbose = False,
    ) -> None:
        shard = _shard(shard_index, num_shards)
        resources = _resources(engine, address, memory_per_item, gpus_per_item, verbose)
        _run(config, inputs, images_from, null, output, json, dry_run, weights_dir,
             layout=layout, shard_size=shard_size << 20, workers=workers, engine=resources, shard=shard,
             time_limit=time_limit, max_bad=max_bad, overwrite=overwrite, extend=extend)  # fmt: skip

    command.__doc__ = text
    return options_from(settings)(command)


app.command("strokes", add_help_option=False)(_building(SynthStrokesConfig, STROKES))
app.command("layers", add_help_option=False)(_building(SynthLayersConfig, LAYERS))


for _name in ("verify", "pack", "unpack"):
    # the commands moved to `paintproc dataset`; the old names work for one release
    app.command(_name, hidden=True)(getattr(dataset, _name))


def _shard(index: int | None, count: int | None) -> tuple[int, int]:
    """Index and number of parts for this run: from the options, else from Slurm's job array, else all in one."""
    slurm = {name: os.environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("ID", "COUNT", "MIN", "STEP")}
    if index is None and count is None and slurm["ID"].isdecimal() and slurm["COUNT"].isdecimal():
        first, step = (int(slurm[name] or default) for name, default in (("MIN", "0"), ("STEP", "1")))
        index, count = (int(slurm["ID"]) - first) // max(1, step), int(slurm["COUNT"])
        if index >= count:
            raise UsageError("Slurm's job array has gaps.", "Pass --shard-index and --num-shards.")
        console.say(f"Slurm's job array: this is part {index} of {count}, counted from 0.")
    if index is not None and count is None:
        raise UsageError("--shard-index needs --num-shards.")
    if index is None and count not in (None, 1):
        raise UsageError("--num-shards needs --shard-index.")
    shard = index or 0, count or 1
    if shard[0] >= shard[1]:
        raise UsageError(f"--shard-index is {shard[0]}.", f"It must be less than --num-shards, {shard[1]}.")
    return shard


def _resources(kind: str, address: str | None, memory: float | None, gpus: float | None, verbose: bool) -> "Engine":
    """The engine that these options ask for; its GPUs are less than 0 where none were named."""
    from paintproc.jobs import Engine

    if kind == "local":
        for name, value in (("--address", address), ("--memory-per-item", memory), ("--gpus-per-item", gpus)):
            if value is not None:
                raise UsageError(f"{name} needs --engine ray.")
        return Engine()
    size = None if memory is None else int(memory * 1e9)
    return Engine("ray", address=address, memory=size, gpus=-1 if gpus is None else gpus, verbose=verbose)


def _share_of_gpu(engine: "Engine", networks: "SceneNetworks") -> "Engine":
    """Where networks use CUDA and no GPUs were named: one for each worker of a cluster; here all workers share one."""
    if engine.kind == "ray" and networks.device not in ("cpu", "cuda"):
        raise UsageError(f"--device {networks.device} does not go with --engine ray.", "Ray chooses the GPU: use cuda.")
    if engine.gpus >= 0:
        return engine
    wanted = 0.0 if not networks.names or networks.device == "cpu" else 1.0
    return replace(engine, gpus=wanted if engine.address is not None else int(wanted * 1e4 / engine.workers) / 1e4)


def _run(
    config: SynthConfig,
    inputs: list[str] | None,
    images_from: str | None,
    null: bool,
    output: Path,
    json: bool,
    dry_run: bool,
    weights: Path | None,
    **how: Any,
) -> None:
    """Find the inputs, build the dataset, report the result."""
    import time

    from paintproc.cli.inputs import read_list
    from paintproc.dataset.build import build_dataset
    from paintproc.scene.networks import SceneNetworks, choose_networks
    from paintproc.strokes.ops.compiling import announce_compilation
    from paintproc.synth.build import synth_build
    from paintproc.synth.sequences import needs_scene
    from paintproc.synth.sources import find_sources
    from paintproc.threads import thread_count

    if how["overwrite"] and how["shard"][1] > 1:
        raise UsageError("--overwrite does not work with --shard-index.", "Remove the dataset by hand.")
    if how["overwrite"] and how["extend"]:
        raise UsageError("--overwrite does not go with --extend.")
    begun = time.monotonic()
    sources = find_sources([*(inputs or []), *([] if images_from is None else read_list(images_from, null))])
    _refuse_unreadable(sources, inputs or [])
    networks = choose_networks(config.scene, config.device, weights) if needs_scene(config) else SceneNetworks()
    if networks.names:
        console.say(f"Regions are found by {networks}.")
    workers = how.pop("workers") or (thread_count() if how["engine"].address is None else 0)
    how["engine"] = _share_of_gpu(replace(how["engine"], workers=workers), networks)
    if how["time_limit"] is not None:
        how["time_limit"] *= 60
    build = synth_build(output, config, sources, networks, **how)
    announce_compilation(console.say)
    if dry_run:
        _say_estimate(build, sources, config, networks, json)
        return

    def tell(line: Mapping[str, Any], new: bool) -> None:
        if new and line["outcome"] == "failed":
            console.complain(f"paintproc: {line['error']}")
        if json:
            print_result(encoder.dumps(line))

    def warn(text: str) -> None:
        console.complain(f"paintproc: {text}")

    with console.progress_bar(f"painting {len(build.own())} pictures") as progress:
        report = build_dataset(build, progress=progress, check=check_stopped, tell=tell, warn=warn)
    _say_report(build, report, time.monotonic() - begun, json)


def _refuse_unreadable(sources: "list[Source]", named: list[str]) -> None:
    """InputError where no input at all can be read, before a dataset of nothing is begun."""
    if not all(source.broken for source in sources):
        return
    hint = "Download the pictures first; addresses are not read." if any("://" in name for name in named) else ""
    first = sources[0].broken
    raise InputError(first if len(sources) == 1 else f"No input can be read. The first: {first}", hint)


def _say_report(build: "Build", report: "Report", seconds: float, json: bool) -> None:
    counts = report.counts
    if json:
        state = "unfinished" if counts is None else "finished"
        print_result(encoder.dumps({"output": str(build.out), "state": state, "counts": counts}))
    else:
        print_result(str(build.out))
    if counts is None and build.shard[1] == 1:
        console.say("These inputs are done; the dataset is finished when the other commands for it have run.")
    elif counts is None:
        console.say(f"Part {build.shard[0]} of {build.shard[1]} is done; the dataset is finished when all parts are.")
    elif not report.worked_on:
        shards = ", in shards" if (build.out / "shards.jsonl").exists() else ""
        console.say(f"{build.out} is complete already{shards}: {counts_in_words(counts)}.")
    else:
        rate = report.sequences / max(seconds, 1e-9) * 3600
        console.say(f"{counts_in_words(counts)}.")
        console.say(f"{report.sequences} sequences made in {minutes(seconds)}, {rate:.0f} an hour.")
    if report.failed:
        listed = f"; they are listed in {build.out / 'failures.jsonl'}" if counts is not None else ""
        raise PartialError(f"{report.failed} inputs failed{listed}.")


def _say_estimate(
    build: "Build", sources: "list[Source]", config: SynthConfig, networks: "SceneNetworks", json: bool
) -> None:
    """Report an estimate of the whole work; one picture is painted for it and thrown away."""
    from paintproc.dataset.growing import free_bytes, inspect
    from paintproc.synth.estimate import estimate

    if not build.overwrite:
        inspect(build.out, build)
    own = [sources[place] for place in build.own()]
    with console.progress_bar("painting one of them, to see how long it takes"):
        found = estimate(own, config, networks, build.engine.workers if build.engine else 1)
    free = free_bytes(build)
    if json:
        for source in own:
            reason = {"error": source.broken} if source.broken else {"reason": source.skip} if source.skip else {}
            outcome = "failed" if source.broken else "skipped" if source.skip else "todo"
            print_result(encoder.dumps({"input": source.name, "outcome": outcome, **reason, "dry_run": True}))
        print_result(encoder.dumps({"output": str(build.out), "dry_run": True, **found, "free_bytes": free}))
    text = f"would paint {found['pictures']} pictures into {build.out}: {found['sequences']} sequences"
    skipped = (
        f"; {found['skipped']} inputs are skipped, {found['broken']} cannot be read"
        if found["skipped"] + found["broken"]
        else ""
    )
    size = found["bytes"] / 1e9
    console.say(
        f"{text}, about {size:.2f} GB ({free / 1e9:.0f} GB are free), about {minutes(found['seconds'])}{skipped}"
    )
