"""Make anew what is generated: commands.md, python.md, benchmarks.md and the pictures.

    python docs/make.py [--pages | --check]

With --pages the pictures stay as they are. With --check nothing is written; exit 1 where a page is not current.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from python_page import python, table

DOCS = Path(__file__).parent
ROOT = DOCS.parent
COMMAND = Path(sys.executable).with_name("paintproc")


WEIGHTS = ("list", "get", "path", "verify", "convert")
SYNTH = ("strokes", "layers")
DATASET = ("info", "verify", "pack", "unpack", "merge", "split", "upgrade")
COMMANDS = (
    [],
    ["generate"],
    ["synth"],
    *(["synth", word] for word in SYNTH),
    ["dataset"],
    *(["dataset", word] for word in DATASET),
    ["render"],
    ["weights"],
    *(["weights", word] for word in WEIGHTS),
    ["doctor"],
)


def commands() -> str:
    """Every command's --help."""
    parts = ["# Commands\n\nMade by `make docs` from `--help`.\n"]
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}

    def help_text(words: list[str]) -> str:
        done = subprocess.run([COMMAND, *words, "--help"], capture_output=True, text=True, check=True, env=environment)
        return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())

    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(help_text, COMMANDS))
    for words, text in zip(COMMANDS, texts, strict=True):
        parts.append(f"## {' '.join(['paintproc', *words])}\n\n```text\n{text}\n```\n")
    parts.append(EXIT_CODES)
    return "\n".join(parts)


EXIT_CODES = """## Exit codes

| code | meaning |
| --- | --- |
| 0 | done, also when standard output was closed early |
| 1 | a bug of ours |
| 2 | usage: impossible settings |
| 3 | the one input is missing, damaged or of a wrong kind; `synth`: no input can be read |
| 4 | weights or an extra are missing, or ffmpeg cannot be started |
| 5 | no such device, no Ray cluster where one is to be, or out of memory |
| 6 | some of several items failed; the rest is written, and `failures.jsonl` lists them |
| 7 | the output cannot be written: it exists, is read-only, or the disk is full |
| 75 | stopped by SIGTERM, SIGUSR1 or SIGHUP, or at `--time-limit`; run the same command again to go on |
| 130 | Ctrl-C |

A signal stops a command within 10 seconds. Nothing half-written is left, and one sentence is said. What was finished
before is kept; where that is the whole result, the code is 0. A signal in the first moments, while Python itself
starts, ends the process as it ends any other. Under `nohup`, SIGHUP is ignored.

A setting comes from its option, else from its environment variable (`PAINTPROC_GENERATE_SIZE` for `--size` of
`generate`), else from the file named by `--config`, else from its default. `PAINTPROC_THREADS` limits the threads that
draw; the bytes do not depend on it.
"""


def benchmarks() -> str:
    """The committed results as tables."""
    parts = ["# Benchmarks\n\nMade by `make docs` from `benchmarks/results/`.\n"]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        data = json.loads(path.read_text())
        facts, results = data["machine"], data["results"]
        name = path.stem.split("--")[0]
        parts.append(f"## {TITLES[name]}\n")
        script = "stress" if name == "stress" else f"bench_{name}"
        parts.append(f"`benchmarks/{script}.py` on {facts['cpu']}, {facts['cores']} cores, "
                     f"{facts['memory_gib']} GiB, Python {facts['python']}.\n")  # fmt: skip
        parts.append(TABLES[name](results))
    return "\n".join(parts)


def fit_table(results: dict) -> str:
    rows = []
    for count, row in results["by_strokes"].items():
        own, other = row["ours"], row.get("yardstick", dict.fromkeys(("psnr", "ssim", "seconds"), ""))
        rows.append([count, own["psnr"], other["psnr"], own["ssim"], other["ssim"], own["seconds"], other["seconds"]])
    head = ["strokes", "PSNR dB", "prototype", "SSIM", "prototype", "seconds", "prototype"]
    text = f"Means over {results['pictures']} pictures of 512 pixels, compilation not counted.\n\n" + table(head, rows)
    famous = results.get("famous_1000_strokes")
    if famous:
        text += (
            f"\n{famous['pictures']} famous paintings at 1,000 strokes: {famous['psnr']} dB "
            f"({famous['psnr_min']} to {famous['psnr_max']}), SSIM {famous['ssim']}, {famous['seconds']} s.\n"
        )
    return text


def rasterize_table(results: list) -> str:
    head = ["canvas", "strokes", "forward ms", "with gradients ms", "prototype ms", "reference forward ms"]
    rows = [
        [
            " x ".join(map(str, row["canvas"])),
            row["strokes"],
            row["forward_ms"],
            row["forward_and_backward_ms"],
            row["yardstick_forward_and_backward_ms"] or "",
            row.get("reference_forward_ms", ""),
        ]
        for row in results
    ]
    return table(head, rows)


def startup_table(results: dict) -> str:
    return table(["command", "median s"], [[f"`{name}`", row["median"]] for name, row in results.items()])


def generate_table(results: dict) -> str:
    rows = []
    for name, row in results.items():
        if isinstance(row, dict):
            rows.append([name, row["seconds_median"], row["peak_mib"]])
    return table(["`paintproc generate`", "wall s", "peak MiB of the process tree"], rows)


def plan_table(results: dict) -> str:
    names = ("cost_db", "psnr", "locality", "monotone", "order", "coarse_to_fine", "stage_times_within_bounds",
             "purposeful", "ghost", "regions", "scene_seconds", "paint_seconds", "free_seconds")  # fmt: skip
    sets = [name for name in ("bench8", "famous") if name in results]
    head = ["figure", *(f"{name} ({results[name]['pictures']}) {kind}" for name in sets for kind in ("mean", "worst"))]
    rows = [[name, *(results[s][name][kind] for s in sets for kind in ("mean", "worst"))] for name in names]
    return f"The {results['plan']} plan, against the free order with as many strokes.\n\n" + table(head, rows)


def scene_table(results: dict) -> str:
    rows = []
    for name, row in results["methods"].items():
        plan = row.get("plan", {})
        figures = [plan.get(key, "") for key in ("cost_db", "locality", "order", "purposeful", "ghost")]
        rows.append(
            [name, *(row[key] for key in ("together", "apart", "order", "regions", "seconds_median")), *figures]
        )
    head = ["scene by", "together", "apart", "order", "regions", "seconds", "plan: cost dB", "locality", "order",
            "purposeful", "ghost"]  # fmt: skip
    return f"{results['pictures']} famous paintings; see [scene.md](scene.md).\n\n" + table(head, rows)


def synth_table(results: dict) -> str:
    rows = [
        [f"`synth {words}`", row["sequences_an_hour"], row.get("asked", ""), row["seconds_a_sequence"]]
        for words, row in results["methods"].items()
    ]
    workers = ", ".join(f"{row['sequences_an_hour']} with {n}" for n, row in results["fit_by_workers"].items())
    memory = results["memory"]
    return (
        "What further pictures cost once the command runs, paintings of 512 pixels, 8 frames, PNG writing included, "
        "2 workers.\n\n"
        + table(["command", "sequences an hour", "asked", "seconds"], rows)
        + f"\n`fit` by workers, an hour: {workers}. Memory of the whole process tree over {memory['items']} items, by "
        f"tenths of the run, MiB: {', '.join(map(str, memory['mib_by_tenth']))}. A frame is "
        f"{results['bytes_a_frame'] / 1000:.0f} kB.\n"
    )


def stress_table(results: dict) -> str:
    rows = [[name, row["count"], len(row["problems"]), row["seconds"]] for name, row in results.items()]
    return (
        "After each, but where SIGTERM comes at any moment or in chosen calls, the same command was run again, and the "
        "tree compared byte for byte with an undisturbed one. Of those signals, each must end the command within 10 s "
        "with 75, or with 0 and a whole result; nothing else is said, and nothing left, no process either. The machine "
        "was busy with other work.\n\n" + table(["what was done to it", "how often", "problems", "seconds"], rows)
    )


def dataset_table(results: dict) -> str:
    rows = [[name, value] for name, value in results["epoch_seconds"].items()]
    text = (
        f"An epoch of {results['sequences']} sequences: {results['chosen']} of {results['frames']} frames and the "
        f"picture at {results['size']} x {results['size']} pixels, as float tensors. `datasets` is Hugging Face's.\n\n"
    )
    return text + table(["read from, by", "seconds"], rows)


def builder_table(results: dict) -> str:
    names = {
        "of_a_tenth": "a tenth of them, in this process",
        "stopped_half_way": "the first half, in this process",
        "gone_on": "the second half, and the end",
        "again": "all done already",
        "two_processes_a_tenth": "a tenth of them, in two processes",
    }
    rows = [[text, *(results[name][key] for key in ("inputs", "seconds", "peak_mib"))] for name, text in names.items()]
    return f"{results['count']:,} inputs on which no work is done.\n\n" + table(
        ["what", "inputs worked on", "seconds", "peak MiB"], rows
    )


def engines_table(results: dict) -> str:
    rows = [
        [n, row["local_an_hour"], row["ray_an_hour"], row["ratio_median"], ", ".join(map(str, row["ratios"]))]
        for n, row in results["workers"].items()
    ]
    head = ["workers", "local, an hour", "Ray, an hour", "Ray / local", "each turn"]
    short = next(iter(results["workers"].values()))
    few = next(key.removeprefix("ray_seconds_of_") for key in short if key.startswith("ray_seconds_of_"))
    starts = ", ".join(f"{row[f'{engine}_seconds_of_{few}']} s ({engine}, {n})"
                       for n, row in results["workers"].items() for engine in ("local", "ray"))  # fmt: skip
    return (
        f"`synth strokes --method fit --strokes 1000 --size 256`, {results['pictures']} pictures, the engines in turn "
        f"({results['turns']} turns), what further pictures cost once the command runs. The machine did other work at "
        f"the same time (load {results['load']}): the ratios say more than the rates.\n\n"
        + table(head, rows)
        + f"\nA run of {few} pictures from start to end, by engine and workers: {starts}.\n"
    )


TITLES = {
    "engines": "Engines",
    "dataset": "Dataset",
    "builder": "Builder",
    "synth": "Synthetic sequences",
    "stress": "What synth survives",
    "scene": "Scenes",
    "plan": "The human order",
    "fit": "Quality and seconds of fitting",
    "rasterize": "Rasterizer",
    "startup": "Start",
    "generate": "The whole command",
}
TABLES = {
    "engines": engines_table,
    "dataset": dataset_table,
    "builder": builder_table,
    "synth": synth_table,
    "stress": stress_table,
    "scene": scene_table,
    "plan": plan_table,
    "fit": fit_table,
    "rasterize": rasterize_table,
    "startup": startup_table,
    "generate": generate_table,
}


def pictures() -> None:
    """The README's strip and the gallery's sheets, as paintproc makes them."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted((ROOT / "examples").glob("*.jpg")):
            for frames, name in ((8, "strip"), (12, path.stem)):
                if name == "strip" and path.stem != "wheat-field":
                    continue
                folder = Path(scratch, f"{path.stem}-{frames}")
                arguments = ["--num-frames", str(frames), "--format", "sheet", "--scene", "builtin", "-o", str(folder)]
                subprocess.run(
                    [COMMAND, "generate", "-q", "--image", path, *arguments], check=True, stdout=subprocess.DEVNULL
                )
                sheet = Image.open(folder / "sheet.png")
                sheet.thumbnail((1600, 1600), Image.Resampling.LANCZOS)
                sheet.save(DOCS / "images" / f"{name}.jpg", quality=84, optimize=True)


def strips() -> None:
    """One strip of eight frames for every way of making synthetic sequences."""
    import numpy as np
    from PIL import Image

    from paintproc.config.synth import METHODS, SynthLayersConfig, SynthStrokesConfig
    from paintproc.media import load_picture
    from paintproc.synth.sequences import make_sequence, methods

    configs = [SynthStrokesConfig(method=(method,)) for method in METHODS]
    configs += [
        SynthLayersConfig(order=order, render=render)
        for order in ("near-to-far", "far-to-near")
        for render in ("paste", "strokes")
    ]
    for config in configs:
        (method,) = methods(config)
        rows = []
        for name in ("still-life", "harvesters"):
            picture = load_picture(ROOT / "examples" / f"{name}.jpg", max_side=512)
            frames = [Image.fromarray(frame) for frame in make_sequence(picture, config, method).frames]
            rows.append(np.concatenate([np.asarray(frame.resize((196, 148))) for frame in frames], 1))
        Image.fromarray(np.concatenate(rows)).save(DOCS / "images" / f"synth-{method}.jpg", quality=82, optimize=True)


def scenes() -> None:
    """The examples' scenes, built in and by MobileSAM, where its weights are at hand."""
    import numpy as np
    from PIL import Image

    from paintproc.media import load_picture
    from paintproc.scene.find import find_scene
    from paintproc.scene.networks import SceneNetworks, observe
    from paintproc.scene.picture import scene_picture
    from paintproc.weights.manifest import named
    from paintproc.weights.store import state, weights_folder

    if state(named("mobile-sam"), weights_folder()) != "here":
        print("docs/images/scene-*.jpg stay as they are: `paintproc weights get mobile-sam` brings what they need")
        return
    for path in sorted((ROOT / "examples").glob("*.jpg")):
        picture = load_picture(path, max_side=512).pixels
        found = [find_scene(picture), find_scene(picture, observe(picture, SceneNetworks("mobile-sam")))]
        pair = [scene_picture(picture, scene)[:, : picture.shape[1]] for scene in found]
        image = Image.fromarray(np.concatenate(pair, 1))
        image.thumbnail((900, 900), Image.Resampling.LANCZOS)
        image.save(DOCS / "images" / f"scene-{path.stem}.jpg", quality=82, optimize=True)


PAGES = {"commands.md": commands, "python.md": python, "benchmarks.md": benchmarks}


def main() -> int:
    stale = [name for name, make in PAGES.items() if (DOCS / name).read_text() != make()] if CHECK else []
    for name in stale:
        print(f"docs/{name} is not current; run `make docs`")
    if not CHECK:
        for name, make in PAGES.items():
            (DOCS / name).write_text(make())
        if "--pages" not in sys.argv:
            pictures()
            strips()
            scenes()
    return bool(stale)


CHECK = "--check" in sys.argv

if __name__ == "__main__":
    sys.exit(main())
