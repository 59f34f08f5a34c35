"""What is made wrong on purpose: a module, and what is done to it once it is loaded.

Decoders that misbehave are what the command must survive; writers that do are what the harness must catch.
"""

import contextlib
import os
import sys
import time
from types import SimpleNamespace


def _bad_decoder(module):  # type: ignore[no-untyped-def]
    """A picture that holds one of these words takes its decoder down."""
    load = module.load_picture

    def load_picture(data, *rest):  # type: ignore[no-untyped-def]
        if b"CRASH" in data:
            os.abort()
        if b"HANG" in data:
            time.sleep(1000)
        if b"HOG" in data:
            return bytearray(1 << 45)
        return load(data, *rest)

    module.load_picture = load_picture
    # the command, not its workers, waits for the decoder that hangs: not for 15 minutes here
    building = sys.modules.get("paintproc.building")
    if building is not None:
        run = building.run_jobs
        building.run_jobs = lambda *given, **options: run(*given, **(options | {"time_limit": 4.0}))


def _naive_writer(module):  # type: ignore[no-untyped-def]
    """Writes where the item is to be, and takes a folder that is there for a finished one."""

    @contextlib.contextmanager
    def whole_folder(target, **_):  # type: ignore[no-untyped-def]
        target.mkdir(parents=True, exist_ok=True)
        time.sleep(0.1)
        yield target

    class Taken:
        """What stands for the layout of a folder that is not whole."""

        def __init__(self, folder):  # type: ignore[no-untyped-def]
            self.name, self.kept, self.provenance = folder.name, (), SimpleNamespace(id=folder.name)

        def line(self):  # type: ignore[no-untyped-def]
            return {"id": self.name}

    import paintproc.dataset.folder as folders
    import paintproc.dataset.items as items

    honest = items.whole_item

    def whole_item(folder):  # type: ignore[no-untyped-def]
        return honest(folder) or (Taken(folder) if folder.exists() else None)

    items.whole_folder = whole_folder
    items.whole_item = folders.whole_item = module.whole_item = whole_item


def _slow_writer(module):  # type: ignore[no-untyped-def]
    """Writes as it should, and takes its time, so that more of the kills hit it."""
    whole_folder = module.whole_folder

    @contextlib.contextmanager
    def slowly(*given, **options):  # type: ignore[no-untyped-def]
        with whole_folder(*given, **options) as scratch:
            yield scratch
            time.sleep(0.1)

    module.whole_folder = slowly


def _untidy(module):  # type: ignore[no-untyped-def]
    """Leaves what dead processes left."""
    import paintproc.dataset.items as items

    _slow_writer(items)
    module.remove_dead_scratch = lambda *_: None


def _forgetful_writer(module):  # type: ignore[no-untyped-def]
    """Says nothing when an item could not be written."""
    write = module.write_item

    def write_item(*given):  # type: ignore[no-untyped-def]
        with contextlib.suppress(Exception):
            write(*given)

    def finish_dataset(folder, counts, lines):  # type: ignore[no-untyped-def]
        there = {path.parent.name for path in folder.glob("*/*/sequence.json")}
        lines = [line | {"sequences": [name for name in line["sequences"] if name in there]} for line in lines]
        return finish(folder, counts, lines)

    module.write_item = write_item
    import paintproc.dataset.build as build

    finish, build.finish_dataset = build.finish_dataset, finish_dataset


def _telltale(module):  # type: ignore[no-untyped-def]
    """Lets the bytes depend on the process and the clock."""
    make = module.make_sequence

    def make_sequence(*given):  # type: ignore[no-untyped-def]
        sequence = make(*given)
        sequence.info["made"] = f"{os.getpid()} {time.time()}"
        return sequence

    module.make_sequence = make_sequence


def _one_scratch(module):  # type: ignore[no-untyped-def]
    """All processes write to one place before they rename."""
    module._scratch = lambda target: target.with_name(f".{target.name}.paintproc-part")


def _hushed(module):  # type: ignore[no-untyped-def]
    """Takes what cannot be read for done."""
    paint = module.paint_source

    def paint_source(task):  # type: ignore[no-untyped-def]
        try:
            return paint(task)
        except Exception:
            return {"outcome": "done", "sha256": "0" * 64, "sequences": [], "made": 0}

    module.paint_source = paint_source


def _lingering(module):  # type: ignore[no-untyped-def]
    """Never looks for signals, and is watched by nobody."""
    module.check_stopped = lambda: None
    module.GRACE = module.PATIENCE = 1000.0
    module._State.grace = 1000.0


def _slow_drawing(module):  # type: ignore[no-untyped-def]
    """Takes its time with every drawing."""
    in_parallel = module.in_parallel

    def slowly(*given):  # type: ignore[no-untyped-def]
        time.sleep(1)
        return in_parallel(*given)

    module.in_parallel = slowly


def _blaming(module):  # type: ignore[no-untyped-def]
    """Takes what a signal does for a fault of the input."""
    from paintproc.errors import InputError

    def check_stopped():  # type: ignore[no-untyped-def]
        if module._state.signal:
            raise InputError("picture.png is damaged.")

    module.check_stopped, module.stopped = check_stopped, lambda: 0


def _littering(module):  # type: ignore[no-untyped-def]
    """Removes nothing."""
    module.shutil.rmtree = lambda *given, **options: None


def _tiny_weights(module):  # type: ignore[no-untyped-def]
    """Knows one file of weights, at an address that is given."""
    source = module.Source("address", os.environ["SHIM_ADDRESS"])
    file = module.WeightFile("tiny.pth", os.environ["SHIM_SHA256"], int(os.environ["SHIM_SIZE"]), (source,))
    weight = module.Weight("tiny", "Tiny", "MIT", (file,))
    module.read_manifest = lambda: {"tiny": weight}


def _few_points(module):  # type: ignore[no-untyped-def]
    """Looks at a third of the points, so that more signals fit into an hour."""
    module.POINTS = 48


def serve_and_stay(connection, work, memory):  # type: ignore[no-untyped-def]
    """A worker that does its work, hears no parent die, and does not end."""
    import paintproc.jobs.local as jobs

    jobs._die_with_parent = lambda: None
    jobs.stopping.leave = lambda code: time.sleep(1000)
    jobs.honest_serve(connection, work, memory)
    time.sleep(1000)


def _orphans(module):  # type: ignore[no-untyped-def]
    """Workers outlive their parent."""
    module.honest_serve, module._serve = module._serve, serve_and_stay


def _roomy(module):  # type: ignore[no-untyped-def]
    """Takes the disk for larger than it is."""
    module.free_bytes = lambda build: 1 << 50


bad_decoder = "paintproc.synth.items", _bad_decoder
naive_writer = "paintproc.synth.items", _naive_writer
untidy = "paintproc.dataset.folder", _untidy
forgetful_writer = "paintproc.synth.items", _forgetful_writer
telltale = "paintproc.synth.items", _telltale
one_scratch = "paintproc.files", _one_scratch
hushed = "paintproc.synth.items", _hushed
lingering = "paintproc.stopping", _lingering
slow_drawing = "paintproc.threads", _slow_drawing
blaming = "paintproc.stopping", _blaming
littering = "paintproc.stopping", _littering
few_points = "paintproc.scene.segment", _few_points
tiny_weights = "paintproc.weights.manifest", _tiny_weights
orphans = "paintproc.jobs.local", _orphans
roomy = "paintproc.dataset.growing", _roomy
slow_writer = "paintproc.dataset.items", _slow_writer
