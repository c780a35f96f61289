"""Which designs of a space NVIDIA's parser and builder take, asked without a GPU.

A few designs are chosen that have every operator, pooling and encoder of the space between them.
Each is built in each precision and handed to `device_agent.runtimes.tensorrt_rtx` in a process of
its own.
"""

import json
import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from device_agent.jobs.child import own_command
from device_agent.runtimes.tensorrt_rtx import CANNOT_LOAD, HINT, Taken
from evaluators.devices.recipes import RuntimeMissing
from evaluators.onnx.builder import OnnxBuilder, ParityError
from search_space.design.genotype import Genotype, Precision
from search_space.network.rewrites import ALL
from search_space.space.space import SearchSpace

SAMPLES = 3000
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
DEADLINE_S = 1800.0
Facet = tuple[str, str]
"""Kind and name, such as `operator` and `gated`."""


@dataclass(frozen=True)
class Checked:
    """A design in a precision, and what was said of it.

    Attributes:
        genotype: the design; its precision is the one that was built.
        nodes: nodes of its ONNX graph.
        taken: what parser and builder say.
    """

    genotype: Genotype
    nodes: int
    taken: Taken

    @property
    def accepted(self) -> bool:
        """Whether all that was asked took it."""
        return self.taken.parsed and self.taken.built is not False


def facets(genotype: Genotype) -> set[Facet]:
    """What a design has of what a space offers."""
    fused = genotype.points if genotype.is_fused else ()
    found: set[Facet] = {("operator", point.operator) for point in fused}
    found |= {("encoder", name) for name in genotype.encoders.values()}
    found |= {(f"{m} pooling", genotype.pooling(m)) for m in genotype.encoders}
    if genotype.attention_blocks:
        found.add(("attention over", genotype.attention_over))
    if genotype.image_tokens:
        found.add(("image tokens", str(genotype.image_tokens)))
    return found


def covering(space: SearchSpace, samples: int = SAMPLES) -> list[Genotype]:
    """Designs of a space that have between them whatever a few thousand random ones have."""
    generator = random.Random(0)
    drawn = [space.sample(generator) for _ in range(samples)]
    missing = set().union(*map(facets, drawn))
    chosen: list[Genotype] = []
    while missing:
        best = max(drawn, key=lambda genotype: len(facets(genotype) & missing))
        chosen.append(best)
        missing -= facets(best)
    return chosen


def check_space(
    space: SearchSpace,
    folder: Path,
    build: bool,
    precisions: Sequence[Precision] = PRECISIONS,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Checked]:
    """Have the covering designs of a space parsed, and built where asked.

    Raises:
        RuntimeMissing: NVIDIA's packages are not installed, or do not load.
    """
    designs = [replace(g, precision=p) for g in covering(space) for p in precisions]
    return check_designs(space, designs, folder, build, progress)


def check_designs(
    space: SearchSpace,
    designs: Sequence[Genotype],
    folder: Path,
    build: bool,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Checked]:
    """Have designs of a space parsed in their own precisions, and built where asked.

    Raises:
        RuntimeMissing: NVIDIA's packages are not installed, or do not load.
    """
    encoders = {spec.name: spec for spec in space.encoders}
    builder = OnnxBuilder(encoders, space.shapes, 2, folder, "tensorrt", ALL)
    found = []
    for done, genotype in enumerate(designs):
        progress(done, len(designs))
        found.append(_checked(builder, genotype, build))
    return found


def _checked(builder: OnnxBuilder, genotype: Genotype, build: bool) -> Checked:
    import onnx

    try:
        made = builder.build(genotype)
    except ParityError as error:
        return Checked(genotype, 0, Taken("", False, refused=str(error)))
    try:
        nodes = len(onnx.load(str(made.path), load_external_data=False).graph.node)
        return Checked(genotype, nodes, ask(made.path, build))
    finally:
        made.discard()


def ask(file: Path, build: bool) -> Taken:
    """Have one file parsed, and built where asked, in a process of its own.

    Raises:
        RuntimeMissing: NVIDIA's packages are not installed, or do not load.
    """
    command = own_command("tensorrt-takes", *(["--build"] if build else []), str(file))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        return Taken("", False, refused=f"no answer in {DEADLINE_S:g} s")
    if done.returncode == CANNOT_LOAD:
        said = " ".join(done.stderr.split())[-1500:]
        raise RuntimeMissing(said.removesuffix(f": {HINT}"), HINT)
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-300:]
        refused = f"the process ended with status {done.returncode}: {said}"
        return Taken("", False, refused=refused)
    return Taken(**json.loads(done.stdout.splitlines()[-1]))
