"""Run a study from Python."""

import signal
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict, Unpack, get_args, get_origin, get_type_hints

from evaluators.devices.registry import LOCAL
from fusion_nas.progress import Bars
from fusion_nas.study import Study
from search_space.design.genotype import Precision
from search_space.modality import Modality
from studies.config.settings import load_settings, unknown_option
from studies.config.usage import UsageError
from studies.infra.locations import sqlite_url
from studies.report.progress import Reporter, Silent


class Options(TypedDict, total=False):
    """The options of `search`; see the classes of `studies.config.options`."""

    data: str | Path
    accept_faults: bool
    text_only: bool
    modalities: Sequence[Modality]
    seconds: int
    score_classes: int
    space: str | Path
    text_encoders: Sequence[str | Path]
    vision_encoders: Sequence[str | Path]
    audio_encoders: Sequence[str | Path]
    weights: str
    precisions: Sequence[Precision]
    image_sizes: Sequence[int]
    image_tokens: Sequence[int]
    image_merging: Sequence[int]
    lora_ranks: Sequence[int]
    devices: Sequence[str]
    threads: int
    timing: str
    rewrites: str
    runtime: str
    final_readings: int
    retime: bool
    trials: int
    sampler: str
    seed_paper: bool
    latency_limit_ms: float
    objectives: Sequence[str]
    limits: Sequence[str]
    noise: float
    probe: bool
    deferred_timing: bool
    time_missing: bool
    reuse: Sequence[str]
    workers: int
    engine: str
    scheduler: str | None
    store: str | Path
    take_over: bool
    from_study: str
    hours: float
    track: Sequence[str]
    patience: int
    protocol: str
    trunks: str
    compile: bool
    cv: bool
    fine_tune: int
    seed: int
    seeds: int
    storage: str | Path
    name: str


def search(preset: str = "pareto", *, progress: bool = True, **options: Unpack[Options]) -> Study:
    """Run a study to its total, or go on with it, and return it.

    Does what `fusion-nas run` does: the same options, defaults and storage, so a study can be
    begun by one and continued by the other. Works in a thread and in a notebook cell; when it is
    interrupted, the same call goes on from there. With `workers`, which need boards, a script has
    to guard the call by `if __name__ == "__main__":`.

    Args:
        preset: a preset by name, or a TOML file.
        progress: show progress bars on stderr.
        **options: as `Options` lists them. `storage` may also be the path of an SQLite file.

    Raises:
        TypeError: for an option that there is not, or a value of another type.
        FusionNasError: for what a user can resolve, see its subclasses.

    Example:
        >>> import fusion_nas as fn
        >>> fn.search(trails=3)
        Traceback (most recent call last):
            ...
        TypeError: trails: there is no such option; did you mean trials?
    """
    for name in options:
        if name not in get_type_hints(Options):
            raise TypeError(unknown_option(name))
    given = {name: _checked(name, value) for name, value in options.items()}
    if isinstance(storage := options.get("storage"), str | Path):
        given["storage"] = sqlite_url(storage)
    settings = load_settings(preset, given)
    if settings.preset.superfuse is not None or settings.data.beside is not None:
        raise UsageError(
            f"{preset}: run this study by the command, fusion-nas run --study {preset}"
        )
    if settings.search.workers > 1 and LOCAL in settings.device.names:
        raise UsageError(
            f"workers={settings.search.workers} on {LOCAL}: it lowers the priority of the whole "
            "process; run this study by the command, or on a board"
        )
    # These load PyTorch: importing the package does not.
    from studies.infra.signals import interrupts_taken
    from studies.infra.storage import quiet_optuna
    from studies.study.run import check_useful, run_to_end

    check_useful(settings)
    quiet_optuna()
    with interrupts_taken(signal.SIGINT), ExitStack() as stack:
        reporter: Reporter = stack.enter_context(Bars()) if progress else Silent()
        return Study(run_to_end(settings, reporter))


def _checked(name: str, value: object) -> object:
    """Return a value as the command line gives it: paths as text, sequences as tuples."""
    kind = get_type_hints(Options)[name]
    if get_origin(kind) is Sequence:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise TypeError(f"{name}={value!r}: give a list")
        return tuple(str(each) if isinstance(each, Path) else each for each in value)
    takes = (int, float) if kind is float else get_args(kind) or (kind,)
    if not isinstance(value, takes) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(each.__name__ for each in takes)
        raise TypeError(f"{name}={value!r}: give {names}")
    return str(value) if isinstance(value, Path) else value
