"""What `synth` asks of the dataset builder: which inputs, what is done with each, how much room that takes."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paintproc.config.synth import SynthConfig, SynthLayersConfig
from paintproc.dataset.growing import Build
from paintproc.scene.networks import SceneNetworks
from paintproc.synth.estimate import bytes_needed
from paintproc.synth.items import Task, paint_in_worker
from paintproc.synth.sequences import dataset_settings, needs_scene
from paintproc.synth.sources import Source, inputs_digest


def synth_build(
    out: Path, config: SynthConfig, sources: Sequence[Source], networks: SceneNetworks | None = None, **how: Any
) -> Build:
    """The build of a dataset of synthetic sequences; `how` is what `Build` has beside the inputs and the work."""
    networks = networks or SceneNetworks()

    def task(place: int, folder: Path) -> Task:
        return Task(sources[place], config, networks, folder)

    return Build(
        out=out,
        facts={
            "kind": "layers" if isinstance(config, SynthLayersConfig) else "strokes",
            "settings": dataset_settings(config),
            "scene": str(networks) if needs_scene(config) else None,
        },
        names=[source.name for source in sources],
        digest=inputs_digest(sources),
        task=task,
        work=paint_in_worker,
        bytes_needed=functools.partial(bytes_needed, sources, config),
        bound_memory=not networks.names,
        **how,
    )
