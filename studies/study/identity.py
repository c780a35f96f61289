"""What a study is made of: its name, its conditions in words, what must stay the same."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection

from device_agent.wire.request import DeviceInfo, TimingProtocol
from evaluators.data import DataSet, most_frequent_share, summary
from evaluators.data.folds import pool
from evaluators.devices.runtimes import runtime_origins
from evaluators.onnx.builder import GRAPH_VERSION
from evaluators.quality.cross_validation import FOLDS
from evaluators.training.config import ADAPTERS
from evaluators.training.loop import TRAINING_VERSION, Trunks
from search_space.encoders.plugins import encoder_origins, names_plugin
from search_space.network.adapters import ADAPTERS_VERSION
from search_space.operators.registry import origins
from search_space.redaction import redacted_url
from search_space.space.named import names
from search_space.space.space import SearchSpace
from studies.ablations.designs import Grid
from studies.config.command import command_line
from studies.config.options import DeviceOptions, counts_threads, runtime_of
from studies.config.settings import Settings, stored_options
from studies.infra.locations import JOURNAL, StorageError, absolute_url, store_url
from studies.infra.storage import open_storage
from studies.results.objectives import Goals, objective_origins, stored_of_plugins
from studies.results.study_outcome import (
    BOARDS,
    COMMAND,
    CONDITIONS,
    ENCODER_PLUGINS,
    IDENTITY,
    PLUGINS,
    PROTOCOL,
    SETTINGS,
    SUBJECT,
    metrics,
)
from studies.search.early_stopping import PROMISING
from studies.study.context import StudyContext, data_label, study_name
from studies.study.lookup import remove_stored_password
from studies.study.training_protocol import in_words

TRAINING, GRAPHS = "training protocol or seed", "version of the exported graphs"
OBJECTIVE_PLUGINS = "version of the objectives' plugins"
RUNTIME_PLUGIN = "version of the runtime's plugin"
SAME_RESULTS = ("data", "space", TRAINING, PLUGINS, ENCODER_PLUGINS)
"""The parts of a study's identity that trained networks depend on."""

SEARCHES = "searches"
"""User attribute of a study: each way in which it has been searched, as values."""
DEVICE_IDENTITY = "device"
"""User attribute of a study: what latency depends on of its device, by name."""
STAGES = ("probe", "deferred_timing", "fine_tune")
"""The settings that say which designs are trained and timed."""

EVERY_STAGE = "every feasible design is timed and trained"
"""Of a study that stops none early."""


def directions_of(goals: Goals) -> list[StudyDirection]:
    """Which way each objective is better, as Optuna has it."""
    ways = {True: StudyDirection.MAXIMIZE, False: StudyDirection.MINIMIZE}
    return [ways[objective.higher] for objective in goals.objectives]


def open_study(context: StudyContext) -> optuna.Study:
    """The study of this context, made or resumed.

    Raises StorageError where the storage cannot be opened or holds a study of this name that was
    made under other conditions.
    """
    settings = context.settings
    storage = open_storage(settings.storage)
    directions = directions_of(settings.search.goals)
    name = study_name(settings, context.data, context.space)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=directions,
        load_if_exists=True,
    )
    remove_stored_password(study)
    known = study.user_attrs.get(IDENTITY)
    if known is None:
        # Empty, and nobody's: a trial, a direction or a note of others must not become ours.
        if study.get_trials(deepcopy=False) or study.directions != directions:
            raise StorageError(
                f"study {name!r} in {redacted_url(settings.storage)} was not made by fusion-nas: "
                "give another --storage or --name"
            )
        study.set_metric_names(metrics(settings.search.goals))
        study.set_user_attr(CONDITIONS, conditions(context))
        study.set_user_attr(SUBJECT, _subject(context))
        study.set_user_attr(DEVICE_IDENTITY, _device_identity(context))
        study.set_user_attr(SETTINGS, from_anywhere(settings).to_stored())
        study.set_user_attr(PROTOCOL, asdict(context.quality.protocol))
        study.set_user_attr(SEARCHES, [_search_of(settings)])
        study.set_user_attr(COMMAND, command_line(settings))
        study.set_user_attr(IDENTITY, _identity(context))  # last: without it the study is made anew
        return study
    check_identity(context, study)
    if study.user_attrs.get(COMMAND) != (command := command_line(settings)):
        study.set_user_attr(COMMAND, command)
    if context.grid is None:
        note_search(study, settings)
    return study


def _search_of(settings: Settings) -> dict[str, Any]:
    """How designs are searched, of what a resumed study may change."""
    options = settings.to_options()
    return {name: options[name] for name in ("sampler", *STAGES)}


def note_search(study: optuna.Study, settings: Settings) -> None:
    """Adds to a resumed study's conditions how it is searched from now on, if that is new."""
    known, own = _searches(study), _search_of(settings)
    if own in known:
        return
    said = dict(study.user_attrs[CONDITIONS])
    began_listed = SEARCHES in study.user_attrs
    if own["sampler"] not in [each["sampler"] for each in known]:
        phrase = f", then {own['sampler']}"
        # Version 0.1.0 listed no searches: what it resumed is told by its words alone.
        if began_listed or phrase not in said["sampler"]:
            said["sampler"] += phrase
    if not any(all(own[name] == each[name] for name in STAGES) for each in known):
        phrase = f"; then {_stages(settings)}"
        if began_listed or phrase not in said.get("stages", ""):
            said["stages"] = said.get("stages", EVERY_STAGE) + phrase
    if said != study.user_attrs[CONDITIONS]:
        study.set_user_attr(CONDITIONS, said)
    study.set_user_attr(SEARCHES, [*known, own])


def _searches(study: optuna.Study) -> list[dict[str, Any]]:
    """How the study has been searched so far, the search that began it first.

    Earlier versions kept the settings of that one alone, and its first stages not at all where
    there were none to choose.
    """
    stored = stored_options(study.user_attrs[SETTINGS])
    began = {"probe": False, "deferred_timing": False, "fine_tune": 0, **stored}
    found: list[dict[str, Any]] = study.user_attrs.get(SEARCHES) or [
        {name: began[name] for name in ("sampler", *STAGES)}
    ]
    return found


def _stages(settings: Settings) -> str:
    """Which designs are trained and timed, in words."""
    said = []
    if settings.search.probe:
        said.append(
            "trained: after a closed-form probe on frozen trunks, designs that few others beat in "
            "what it explains, of the taps alone, and in latency"
        )
    if settings.search.deferred_timing:
        said.append(
            f"timed: after training, designs that may add {100 * PROMISING:g} % to the hypervolume"
        )
    if settings.training.fine_tune:
        said = said or [EVERY_STAGE]
        said.append(
            f"fine-tuned whole: at the end, {settings.training.fine_tune} designs, first by "
            "non-dominated rank; they are a front of their own"
        )
    return ", ".join(said) or EVERY_STAGE


def check_identity(
    context: StudyContext, study: optuna.Study, parts: Sequence[str] | None = None
) -> None:
    """Raises StorageError where a study was made under other conditions, in `parts` or at all."""
    known, identity = study.user_attrs[IDENTITY], _identity(context)
    if isinstance(known["timing"], str):
        identity["timing"] = timing_of_0_1_0(context.latency.protocol)
    other = sorted(key for key in parts or identity if identity[key] != known.get(key))
    if other:
        stored = f" (--threads {known['threads']})" if other == ["threads"] else ""
        if other == ["latency limit"]:
            stored = " (`fusion-nas report --latency-limit` reads it under another limit)"
        if GRAPHS in other:
            stored = " (one of a version that exported other graphs cannot be resumed)"
        for part in (PLUGINS, ENCODER_PLUGINS, OBJECTIVE_PLUGINS, RUNTIME_PLUGIN):
            if part in other:
                began = ", ".join((known.get(part) or {}).values()) or "none"
                stored = f" (it began with {began}: install that version)"
        if TRAINING in other:
            stored = " (one of a version that trained by another recipe cannot be resumed)"
        if other == ["device"]:
            stored = _device_changes(context, study)
        raise StorageError(
            f"study {study.study_name!r} in {redacted_url(context.settings.storage)} was made "
            f"with another {', '.join(other)}: repeat its command{stored} to go on with it, or "
            "give a new --name or --storage"
        )


def _device_identity(context: StudyContext) -> dict[str, Any]:
    """What latency depends on of the device, as JSON gives it back."""
    found: dict[str, Any] = json.loads(json.dumps(context.latency.device().identity))
    return found


def _device_changes(context: StudyContext, study: optuna.Study) -> str:
    """How the device differs from the study's own; nothing of a study that did not keep that."""
    now = _device_identity(context)
    known = study.user_attrs.get(DEVICE_IDENTITY, now)
    changes = [
        f"{name.replace('_', ' ')} {known.get(name)}, now {now.get(name)}"
        for name in {**known, **now}
        if known.get(name) != now.get(name)
    ]
    return f" on a device as it was ({'; '.join(changes)})" if changes else ""


def from_anywhere(settings: Settings) -> Settings:
    """The settings with local files and folders named so that every folder finds them."""

    def absolute(source: str) -> str:
        path = Path(source).expanduser()
        return str(path.resolve()) if path.exists() else source

    def encoder(source: str) -> str:
        if not names_plugin(source):
            return absolute(source)
        name, colon, folder = source.partition(":")
        return f"{name}:{absolute(folder)}" if colon else name

    def absolute_study(given: str) -> str:
        name, at, file = given.rpartition("@")
        if file.startswith(JOURNAL):
            return f"{name}@{absolute_url(file)}"
        return given if not at or "://" in given else f"{name}@{absolute(file)}"

    data, space, earlier = settings.data, settings.space, settings.search.from_study
    return replace(
        settings,
        search=replace(
            settings.search,
            from_study=earlier and absolute_study(earlier),
            store=store_url(settings.search.store),
        ),
        data=data
        if data.source is None or data.built_in is not None
        else replace(data, source=absolute(data.source)),
        space=replace(
            space,
            name=space.name
            if space.name is None or space.name in names()
            else absolute(space.name),
            text_encoders=tuple(map(encoder, space.text_encoders)),
            vision_encoders=tuple(map(encoder, space.vision_encoders)),
            audio_encoders=tuple(map(encoder, space.audio_encoders)),
        ),
    )


def _identity(context: StudyContext) -> dict[str, Any]:
    """What must be the same for results to stand in one study."""
    space = {
        "decisions": [[d.name, d.kind, list(d.choices)] for d in context.space.decisions],
        "encoders": [replace(spec, source="").as_json() for spec in context.space.encoders],
    }
    return {
        "data": context.data.fingerprint,
        "space": _digest(space),
        TRAINING: _digest(
            [TRAINING_VERSION, asdict(context.quality.protocol), *_adapters(context.space)]
        ),
        PLUGINS: origins(context.space.operators) or None,
        ENCODER_PLUGINS: encoder_origins(context.space.encoders) or None,
        OBJECTIVE_PLUGINS: objective_origins(context.settings.search.goals) or None,
        RUNTIME_PLUGIN: runtime_origins(context.settings.device.runtime) or None,
        GRAPHS: GRAPH_VERSION,
        "device": context.latency.device().fingerprint,
        "timing": context.latency.protocol.as_json(),
        "boards": _boards_identity(context),
        **_identity_of_settings(context.settings),
        "list of designs": context.grid
        and _digest([[d.name, d.genotype.key] for d in context.grid.designs]),
    }


def _boards_identity(context: StudyContext) -> dict[str, Any] | None:
    """What latencies on the boards beside the first one depend on, by board; None without any."""
    found = {}
    for options in context.settings.device.unlike:
        (name,) = options.names
        fingerprint = context.boards[name].device().fingerprint
        found[name] = [fingerprint, options.runtime, options.runtime_threads]
    return found or None


def _adapters(space: SearchSpace) -> list[Any]:
    """The recipe of adapters, of a space whose designs may have some."""
    return [ADAPTERS_VERSION, asdict(ADAPTERS)] if any(space.lora_ranks) else []


def _identity_of_settings(settings: Settings) -> dict[str, Any]:
    """The parts of a study's identity that need neither data nor device."""
    return {
        "threads": settings.device.runtime_threads,
        "runtime": settings.device.runtime,
        "rewrites": settings.device.rewrites,
        "latency limit": settings.search.latency_limit_ms,
        "selection (--cv or not)": f"{FOLDS}-fold" if settings.training.cv else "valid",
        "objectives": [each.name for each in settings.search.goals.more] or None,
        "noise": settings.search.noise,
        "limits": list(settings.search.limits) or None,
        "reuse": dict(settings.search.reuse_shares.shares) or None,
    }


def other_settings(study: optuna.Study, settings: Settings) -> list[str]:
    """Parts of a study's identity that these settings would change, as far as they alone tell."""
    known = study.user_attrs.get(IDENTITY, {})
    own = _identity_of_settings(settings)
    return sorted(key for key in own if key in known and own[key] != known[key])


def timing_of_0_1_0(protocol: TimingProtocol) -> str:
    """Return the text that version 0.1.0 stored instead of the protocol's values."""
    percent = (protocol.interval_share, protocol.block_tolerance, protocol.reference_tolerance)
    wide, blocks, anchors = (f"{100 * one:g} %" for one in percent)
    board = slower = ""
    if protocol.watch_board:
        board = ", other programs ran, or the board lowered its clocks"
        slower = f"; not trusted with an anchor over {anchors} slower than in an earlier trial"
    return (
        f"median of at least {protocol.min_repeats} runs in {protocol.blocks} blocks between two "
        f"readings of a drift anchor, after warm-up; more blocks until its 95 % interval is "
        f"{wide} wide; taken again, up to {protocol.retries} times, where its halves are over "
        f"{blocks} apart or anchors over {anchors}{board}{slower}"
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def conditions(context: StudyContext) -> dict[str, str]:
    """Everything that a reader needs to repeat the study, in words."""
    info, protocol, data = context.latency.device(), context.quality.protocol, context.data
    device = context.settings.device
    split = ", ".join(f"{len(data.split(s))} {s}" for s in ("train", "valid", "test"))
    found = {
        "data": f"{data_label(data)}: {split}; {_classes_in_words(data)}",
        "search space": f"{context.space.name}: {context.space.size:.3g} vectors "
        f"of {len(context.space.decisions)} choices",
        "encoders": ", ".join(f"{s.name} ({s.weights} weights)" for s in context.space.encoders),
        "training": in_words(protocol, adapters=any(context.space.lora_ranks)),
        "selection": (
            f"by {FOLDS}-fold cross-validation over the {len(pool(data))} samples of train and "
            "valid, grouped by video or shared picture (where there is neither, by identical text)"
            if context.settings.training.cv
            else "on the validation split"
        )
        + "; test is looked at once, at the end",
        "device": f"{', '.join(device.boards.first)}: {_board_in_words(info)}",
        "runtime": _runtime_in_words(info, device),
        **_boards_in_words(context),
        "timing": context.latency.timing(),
        **_latency_in_words(context.settings),
        "rewrites before timing": _rewrites(context),
        "sampler": f"{context.settings.search.sampler}, seed {context.settings.training.seed}",
        "stages": _stages(context.settings),
    }
    plugins = (
        origins(context.space.operators)
        | encoder_origins(context.space.encoders)
        | objective_origins(context.settings.search.goals)
        | runtime_origins(context.settings.device.runtime)
    )
    if plugins:
        found["plugins"] = ", ".join(f"{name} of {origin}" for name, origin in plugins.items())
    if context.grid is not None:
        del found["sampler"], found["stages"]
        found["designs"] = f"a fixed list of {len(context.grid.designs)}, none sampled"
        found["selection"] = "none among designs; test is looked at once, at the end, for them all"
    goals = context.settings.search.goals
    if goals.more:
        found["objectives"] = "; ".join(each.words for each in goals.objectives)
    if context.settings.search.noise is not None:
        found["noise"] = (
            f"Gaussian, on what the fusion reads, factors 0 to {context.settings.search.noise:g}; "
            "robustness is the mean accuracy over them"
        )
    if goals.limits:
        found["limits"] = "; ".join(
            f"{limit.objective.words} {'at least' if limit.objective.higher else 'at most'} "
            f"{limit.value:g}"
            for limit in goals.limits
        )
    if context.settings.configuration:
        found["configuration"] = context.settings.configuration
    if data.faults:
        found["data check"] = (
            f"failed, and accepted: {summary(data.faults)}; first, {data.faults[0].text}"
        )
    if data.dropped:
        found["left out"] = (
            f"{len(data.dropped)} rows, {data.dropped[0].id} first: {data.dropped[0].why}"
        )
    return found


def _classes_in_words(data: DataSet) -> str:
    named = f"classes {', '.join(data.classes)}"
    return f"any number of {named}" if data.multi_label else named


def _board_in_words(info: DeviceInfo) -> str:
    """Model, processors and power mode of a device."""
    return ", ".join(
        str(part)
        for part in (
            info.board.model,
            info.board.machine,
            f"{info.board.cores} cores",
            info.board.power_mode and f"power mode {info.board.power_mode}",
            info.board.l4t and f"L4T {info.board.l4t}",
        )
        if part
    )


def _runtime_in_words(info: DeviceInfo, options: DeviceOptions) -> str:
    """Runtime of a device with its version, and its threads where they count."""
    runtime, provider = runtime_of(options.runtime)
    version = next((r.version for r in info.runtimes if r.name == runtime), None)
    threads = ""
    if counts_threads(options.runtime):
        threads = f", {options.runtime_threads or 'all'} threads"
    return f"{runtime} {version or '?'}, {provider}, batch 1{threads}"


def _boards_in_words(context: StudyContext) -> dict[str, str]:
    """A condition for each board beside the first one."""
    found = {}
    for options in context.settings.device.unlike:
        (name,) = options.names
        info = context.boards[name].device()
        found[f"board {name}"] = f"{_board_in_words(info)}; {_runtime_in_words(info, options)}"
    return found


def _rewrites(context: StudyContext) -> str:
    """Which exact rewrites designs go through, and what the data mean for them, in words."""
    rewrites = context.settings.device.rewrites
    if rewrites == "none":
        return "none: designs are timed as written"
    lengths = []
    for name in context.space.text_encoders:
        found = context.quality.trainer.preprocessing.text_lengths(context.space.encoder(name))
        lengths.append(f"{name} {sum(found) / len(found):.1f}, {max(found)}")
    padding = {
        "all": "padding cut to the longest text",
        "own-length": "each text at its own length, timed at their mean (where a fusion reads "
        "tokens: padded to the longest)",
    }
    return (
        f"{rewrites}: attention over one key folded, {padding[rewrites]} "
        f"(tokens of all texts, mean and longest: {'; '.join(lengths)})"
    )


def _subject(context: StudyContext) -> dict[str, Any]:
    data = context.data
    of_plugins = stored_of_plugins(context.settings.search.goals)
    cautions = []
    if data.faults:
        cautions.append(
            "The data failed the check and were used all the same (--accept-faults): "
            f"{summary(data.faults)}. First: {data.faults[0].text}."
        )
    stays: dict[Trunks, str] = {
        "frozen": "Trunks stay as they were loaded",
        "text-tuned": "Text trunks are fine-tuned alone, all others stay as they were loaded",
    }
    adapters = any(context.space.lora_ranks)  # which train trunks, so "auto" leaves them frozen
    automatic = context.settings.training.trunks == "auto" and not adapters
    if automatic and context.quality.protocol.trunks in stays:
        what = stays[context.quality.protocol.trunks]
        cautions.append(
            f"{what}: training designs whole would take too long on this CPU. "
            "--trunks by-stage does it all the same."
        )
    if context.quality.protocol.by_stage is not None:
        cautions.append(
            "Designs are trained as published, each stage by settings of its own: differences "
            "between stages are differences of training too. --protocol fair trains all alike."
        )
    return {
        "title": context.settings.preset.title,
        "data_name": data_label(data),
        "data_note": data.note,
        **({"multi_label": True} if data.multi_label else {}),
        "cv": context.settings.training.cv,
        "majority": [100 * _majority(data, context.settings.training.cv), None],
        "ceilings": {k: 100 * v for k, v in (data.ceilings or {}).items()},
        "latency_limit_ms": context.settings.search.latency_limit_ms,
        "objectives": list(context.settings.search.objectives),
        **({"objectives of plugins": of_plugins} if of_plugins else {}),
        "limits": list(context.settings.search.limits),
        **_boards_of(context.settings),
        "latency_is": context.settings.search.reuse_shares.words(),
        "cautions": cautions,
        **({} if context.grid is None else {"grid": _grid(context.grid, context.settings)}),
    }


def _boards_of(settings: Settings) -> dict[str, Any]:
    """The boards of a study of several unlike ones, the first one first."""
    boards = settings.device.boards
    if not boards.unlike:
        return {}
    return {BOARDS: [boards.first[0], *(board.name for board in boards.unlike)]}


def _latency_in_words(settings: Settings) -> dict[str, str]:
    """What stands for the latency of a design, where it is not that of one inference."""
    said = settings.search.reuse_shares.words()
    if not said:
        return {}
    return {"latency": f"{said}: encoders and fusion are timed alone, and added up by their shares"}


def _grid(grid: Grid, settings: Settings) -> dict[str, Any]:
    """What a report needs of a fixed list, as plain JSON values."""
    points = [asdict(point) for point in grid.points]
    about = " ".join(settings.preset.about.split())
    return {"kind": grid.kind, "about": about, "points": points, "notes": list(grid.notes)}


def _majority(data: DataSet, cv: bool) -> float:
    """Share of the most frequent class among the samples that the search chooses by.

    Of multi-label data, that of the most frequent set of classes.
    """
    if not cv:
        return most_frequent_share(data.split("valid"))
    return most_frequent_share(pool(data))
