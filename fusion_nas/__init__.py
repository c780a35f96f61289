"""Search fusion designs, load studies and time networks from Python.

The functions here do what the command does, with the same options and defaults::

    import fusion_nas as fn

    study = fn.search(data="mosi", trials=24)
    study.front.to_frame()
    design = study.best(latency_ms=2)
    design.export("best")
"""

from device_agent.wire.result import MeasureResult
from fusion_nas.measuring import measure
from fusion_nas.searching import Options, search
from fusion_nas.study import Design, Designs, Study, load
from search_space.design.genotype import Genotype
from search_space.errors import FusionNasError
from search_space.plugins import Plugin
from search_space.space.named import load_space
from search_space.space.space import SearchSpace as Space
from search_space.threads import let_waiting_threads_sleep
from studies.results.objectives import installed_plugins as plugins

__all__ = [
    "Design",
    "Designs",
    "FusionNasError",
    "Genotype",
    "MeasureResult",
    "Options",
    "Plugin",
    "Space",
    "Study",
    "load",
    "load_space",
    "measure",
    "plugins",
    "search",
]
let_waiting_threads_sleep()  # nothing above loads PyTorch
