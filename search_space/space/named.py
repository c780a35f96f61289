"""Search spaces by name, or from a TOML file of the user's own."""

import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from search_space.design.adapting import greatest_rank_of
from search_space.design.encoder import (
    MAX_IMAGE_SIZE,
    MAX_SECONDS,
    MIN_IMAGE_SIZE,
    SOUND_SECONDS,
    EncoderShape,
    EncoderSpec,
    Weights,
    spec_for,
)
from search_space.design.genotype import (
    ATTENTION_OVER,
    AUDIO_POOLINGS,
    IMAGE_TOKENS,
    MAX_ATTENTION_BLOCKS,
    MAX_FUSION_POINTS,
    MAX_TEXT_TOKENS,
    MIN_TEXT_TOKENS,
    PRECISIONS,
    TEXT_POOLINGS,
    VISION_POOLINGS,
)
from search_space.encoders.plugins import spec_of_plugin
from search_space.errors import USAGE, FusionNasError
from search_space.modality import MODALITIES, Modality
from search_space.operators.registry import is_operator, operator_of, why_unknown
from search_space.space.space import SearchSpace

_SHIPPED = files("search_space") / "spaces"
_OFFERED: dict[str, tuple[str, ...]] = {
    "attention_over": ATTENTION_OVER,
    "text_pooling": TEXT_POOLINGS,
    "vision_pooling": VISION_POOLINGS,
    "audio_pooling": AUDIO_POOLINGS,
    "precision": PRECISIONS,
}
_LISTS = ("operators", *_OFFERED)
_RANGES = {"fusion_points": (1, MAX_FUSION_POINTS), "attention_blocks": (0, MAX_ATTENTION_BLOCKS)}
_NUMBERS = {"text_tokens": (MIN_TEXT_TOKENS, MAX_TEXT_TOKENS), "widths": (0, 4096)}
_SILENT: Mapping[str, Any] = {
    "audio_encoder": [],
    "audio_pooling": ["mean"],
    "optional": [],
    "image_size": [],
    "image_tokens": [],
    "image_merging": [],
    "lora_rank": [],
}
"""What a space says that does not speak of audio, of doing without a modality, of the size or the
tokens of pictures, or of adapters."""
_KNOWN = {"name", "text_encoder", "vision_encoder", *_LISTS, *_RANGES, *_NUMBERS, *_SILENT}
_ENCODER_KEYS = {"name", "library", "source", "weights", "model_type", "config"}


class SpaceError(FusionNasError):
    """A search space cannot be had or is not well formed; the text names every problem."""

    exit_code = USAGE


def names() -> tuple[str, ...]:
    """The spaces that come with the toolkit."""
    return tuple(sorted(f.name.removesuffix(".toml") for f in _SHIPPED.iterdir()))


def _told_apart(specs: Sequence[EncoderSpec]) -> list[EncoderSpec]:
    """The encoders, one of pictures and one of sounds from one folder by names of their own.

    The later one of two modalities has its modality added to its name.
    """
    first: dict[str, Modality] = {}
    found = []
    for spec in specs:
        is_other = first.setdefault(spec.name, spec.modality) != spec.modality
        found.append(replace(spec, name=f"{spec.name}-{spec.modality}") if is_other else spec)
    return found


def load_space(
    name_or_file: str,
    text_encoders: Sequence[str] = (),
    vision_encoders: Sequence[str] = (),
    audio_encoders: Sequence[str] = (),
    weights: Weights | None = None,
    modalities: Collection[Modality] = (),
    image_sizes: Sequence[int] = (),
    image_tokens: Sequence[int] = (),
    lora_ranks: Sequence[int] = (),
    image_merging: Sequence[int] = (),
) -> SearchSpace:
    """The space of this name or in this TOML file.

    Encoders that are given (folders, timm names, hub ids) replace the space's own of that
    modality; with audio encoders, operators that cannot fuse so many are left out. `weights`
    overrides where all weights come from; encoders of other `modalities` than those named, if any
    are, are left out. Raises SpaceError for a space that is unknown or malformed, or that lacks a
    modality that is named, or of whose `lora_ranks` one is above the width of an encoder;
    EncoderError for an encoder that cannot be had, or that does not take one of the `image_sizes`.
    These, `image_tokens`, `image_merging` and `lora_ranks` replace the space's own. SpaceError,
    too, where no vision encoder merges tokens, or one merges none of the numbers in
    `image_merging`.
    """
    fields = _read(name_or_file)
    given = {"text": text_encoders, "vision": vision_encoders, "audio": audio_encoders}
    specs: list[EncoderSpec] = []
    for modality in (m for m in MODALITIES if m in modalities or not modalities):
        sources = given[modality]
        if sources:
            specs += [_named(modality, source, weights) for source in sources]
        else:
            specs += [_spec(modality, entry) for entry in fields[f"{modality}_encoder"]]
    operators, read = tuple(fields["operators"]), {spec.modality for spec in specs}
    for modality in modalities:
        if modality not in read:
            raise SpaceError(
                f"search space {name_or_file} has no {modality} encoder: give --{modality}-encoder"
            )
    if len(read) > 1 and (audio_encoders or modalities):  # the space was made for others
        operators = tuple(o for o in operators if operator_of(o).signature.fuses(read))
        if not operators:
            raise SpaceError(
                f"search space {name_or_file}: none of its operators fuses "
                f"{', '.join(m for m in MODALITIES if m in read)}; give another --space"
            )
    if weights is not None:
        specs = [replace(spec, weights=weights) for spec in specs]
    specs = _told_apart(specs)
    names_given = [spec.name for spec in specs]
    repeated = sorted({name for name in names_given if names_given.count(name) > 1})
    if repeated:
        raise SpaceError(f"encoder {', '.join(repeated)} named twice: give each its own name")
    sizes = sorted(image_sizes or fields["image_size"])
    if problems := _size_problems(sizes):
        raise SpaceError("; ".join(problems))
    counts = sorted(image_tokens or fields["image_tokens"])
    if problems := _image_token_problems({**fields, "image_tokens": counts}):
        raise SpaceError("; ".join(problems))
    ranks = sorted(lora_ranks or fields["lora_rank"])
    if problems := _rank_problems(ranks):
        raise SpaceError("; ".join(problems))
    if sizes:
        specs = [each for spec in specs for each in _at_sizes(spec, sizes)]
    pairs = sorted(image_merging or fields["image_merging"])
    if problems := _merging_problems(pairs):
        raise SpaceError("; ".join(problems))
    if any(spec.modality == "vision" for spec in specs):
        specs = _with_merging(specs, pairs)
    else:
        pairs = []
    shapes = _shapes(specs)
    if problems := _ranks_above_widths(ranks, shapes):
        raise SpaceError("; ".join(problems))
    return SearchSpace(
        name=fields["name"],
        encoders=tuple(specs),
        shapes=shapes,
        text_tokens=tuple(fields["text_tokens"]),
        fusion_points=tuple(fields["fusion_points"]),
        operators=operators,
        widths=tuple(fields["widths"]),
        attention_blocks=tuple(fields["attention_blocks"]),
        attention_over=tuple(fields["attention_over"]),
        text_poolings=tuple(fields["text_pooling"]),
        vision_poolings=tuple(fields["vision_pooling"]),
        audio_poolings=tuple(fields["audio_pooling"]),
        optional=tuple(m for m in fields["optional"] if any(s.modality == m for s in specs)),
        precisions=tuple(fields["precision"]),
        image_sizes=tuple(sizes) if any(s.modality == "vision" for s in specs) else (),
        image_tokens=tuple(counts),
        image_merging=tuple(pairs),
        lora_ranks=tuple(ranks),
    )


def _at_sizes(spec: EncoderSpec, sizes: Sequence[int]) -> list[EncoderSpec]:
    """A vision encoder once for each size, its own size first, then from the largest down.

    At its own size an encoder is the same as without sizes, so designs on it keep their keys.
    """
    if spec.modality != "vision":
        return [spec]
    from search_space.encoders.loading import describe  # it imports torch, which takes seconds

    own = describe(spec).image_size
    others = [spec.at(size) for size in sorted(sizes, reverse=True) if size != own]
    return [*([spec] if own in sizes else []), *others]


def _with_merging(specs: list[EncoderSpec], pairs: Sequence[int]) -> list[EncoderSpec]:
    """Every ViT once for each number of token pairs that its layers can merge, fewest first.

    The others stay as they are. Raises SpaceError where no encoder merges tokens, or one merges
    none of these numbers.
    """
    if not pairs:
        return specs
    from search_space.encoders.loading import describe  # it imports torch, which takes seconds

    most = {s.name: describe(s).most_merged for s in specs if s.modality == "vision"}
    if any(pairs) and not any(most.values()):
        raise SpaceError(
            f"image_merging = {list(pairs)!r}: {', '.join(most)} does not merge tokens (ViT and "
            "DINOv2 of transformers and VisionTransformer of timm do): leave it out"
        )
    found = []
    for spec in specs:
        able = [count for count in pairs if count <= most.get(spec.name, 0)]
        if most.get(spec.name) and not able:
            raise SpaceError(
                f"image_merging = {list(pairs)!r}: a layer of {spec.name} merges at most "
                f"{most[spec.name]} pairs of tokens: give a number up to that"
            )
        found += [spec.with_merging(count) for count in able] if most.get(spec.name) else [spec]
    return found


def with_shorter_sounds(space: SearchSpace, seconds: int) -> SearchSpace:
    """The space with audio encoders that read at most so many seconds.

    Raises EncoderError for an encoder that cannot read so short a sound.
    """
    from search_space.encoders.sounds import shortened

    specs = [shortened(s, seconds) if s.modality == "audio" else s for s in space.encoders]
    if tuple(specs) == space.encoders:
        return space
    return replace(space, encoders=tuple(specs), shapes=_shapes(specs))


def _read(name_or_file: str) -> dict[str, Any]:
    if name_or_file in names():
        text = (_SHIPPED / f"{name_or_file}.toml").read_text(encoding="utf-8")
    else:
        file = Path(name_or_file).expanduser()
        if not file.is_file():
            raise SpaceError(
                f"no search space {name_or_file!r}: choose {' or '.join(names())}, "
                "or give a TOML file"
            )
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpaceError(f"search space {name_or_file}: cannot be read ({error})") from error
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpaceError(f"search space {name_or_file}: not TOML ({error})") from error
    fields = {**_SILENT, **fields}
    problems = _problems(fields)
    if problems:
        raise SpaceError(f"search space {name_or_file}: " + "; ".join(problems))
    return fields


def _problems(fields: Mapping[str, Any]) -> list[str]:
    found = [f"{key} is missing" for key in sorted(_KNOWN - fields.keys())]
    found += [f"{key} is not a setting" for key in sorted(fields.keys() - _KNOWN)]
    if not _is_text(fields.get("name", "a name")):
        found.append(f"name = {fields['name']!r}: give a text")
    for key in _LISTS:
        values = fields.get(key, ["concatenation"] if key == "operators" else [*_OFFERED[key]])
        if not isinstance(values, list) or not values or _repeats(values):
            found.append(f"{key} = {values!r}: give a list without repetition")
        elif key == "operators":
            found += [f"operators: {why_unknown(v)}" for v in values if not is_operator(v)]
        else:
            allowed = _OFFERED[key]
            found += [
                f"{key}: {v!r} is none of {', '.join(allowed)}" for v in values if v not in allowed
            ]
    for key, (low, high) in _NUMBERS.items():
        values = fields.get(key, [low])
        whole = isinstance(values, list) and values and all(type(v) is int for v in values)
        if not whole or sorted(set(values)) != values or not low <= values[0] <= values[-1] <= high:
            found.append(f"{key} = {values!r}: give rising whole numbers from {low} to {high}")
    for key, (low, high) in _RANGES.items():
        values = fields.get(key, [low, high])
        two = isinstance(values, list) and len(values) == 2 and all(type(v) is int for v in values)
        if not two or not low <= values[0] <= values[1] <= high:
            found.append(f"{key} = {values!r}: give [least, most] within {low} and {high}")
    found += _size_problems(fields.get("image_size", []))
    found += _image_token_problems(fields)
    found += _merging_problems(fields.get("image_merging", []))
    found += _rank_problems(fields.get("lora_rank", []))
    optional = fields.get("optional")
    if not isinstance(optional, list) or _repeats(optional) or not set(optional) <= set(MODALITIES):
        found.append(f"optional = {optional!r}: give some of {', '.join(MODALITIES)}")
    for modality in MODALITIES:
        if f"{modality}_encoder" in fields:
            found += _encoder_problems(modality, fields[f"{modality}_encoder"])
    if all(fields.get(f"{modality}_encoder") == [] for modality in MODALITIES):
        found.append("its lists of encoders are all empty: give at least one encoder")
    return found


def _size_problems(sizes: Any) -> list[str]:
    """What is wrong with sides of pictures, in words."""
    whole = isinstance(sizes, list) and all(type(size) is int for size in sizes)
    if not whole or sorted(set(sizes)) != sizes or _out_of_range(sizes):
        return [
            f"image_size = {sizes!r}: give rising whole numbers from {MIN_IMAGE_SIZE} to "
            f"{MAX_IMAGE_SIZE}"
        ]
    return []


def _image_token_problems(fields: Mapping[str, Any]) -> list[str]:
    """What is wrong with numbers of image tokens, in words."""
    counts = fields.get("image_tokens", [])
    whole = isinstance(counts, list) and all(type(count) is int for count in counts)
    if not whole or sorted(set(counts)) != counts or not set(counts) <= set(IMAGE_TOKENS):
        return [
            f"image_tokens = {counts!r}: give rising numbers of "
            f"{', '.join(map(str, IMAGE_TOKENS))} (0 for all)"
        ]
    operators = fields.get("operators")
    if not counts or not isinstance(operators, list) or not all(map(is_operator, operators)):
        return []
    attends = fields.get("attention_blocks") != [0, 0]
    if attends and "tokens" in (fields.get("attention_over") or ()):
        return []
    if any("vision" in operator_of(name).signature.tokens for name in operators):
        return []
    return [
        f"image_tokens = {counts!r}: no operator of this space takes an image's tokens, nor does "
        'its attention: leave it out, or add attention_over = ["tokens"] or an operator of tokens'
    ]


def _merging_problems(pairs: Any) -> list[str]:
    """What is wrong with numbers of token pairs to merge, in words."""
    whole = isinstance(pairs, list) and all(type(count) is int for count in pairs)
    if not whole or sorted(set(pairs)) != pairs or any(count < 0 for count in pairs):
        return [f"image_merging = {pairs!r}: give rising whole numbers from 0 (no merging)"]
    return []


def _rank_problems(ranks: Any) -> list[str]:
    """What is wrong with ranks of adapters, in words."""
    whole = isinstance(ranks, list) and all(type(rank) is int for rank in ranks)
    if not whole or sorted(set(ranks)) != ranks or any(rank < 0 for rank in ranks):
        return [f"lora_rank = {ranks!r}: give rising whole numbers from 0 (no adapters)"]
    return []


def _ranks_above_widths(ranks: Sequence[int], shapes: Mapping[str, EncoderShape]) -> list[str]:
    """Ranks that an encoder is too narrow for, and ranks that no encoder has a use for."""
    most = {name: greatest_rank_of(shape) for name, shape in shapes.items()}
    if any(ranks) and not any(most.values()):
        return [
            f"lora_rank = {ranks!r}: none of {', '.join(most)} takes adapters (text and vision "
            "encoders of transformers with two layers or more do): leave it out"
        ]
    return [
        f"lora_rank = {ranks!r}: the last layers of {name} are {width} features wide at the "
        f"narrowest: give ranks up to {width}"
        for name, width in most.items()
        if width and max(ranks, default=0) > width
    ]


def _out_of_range(sizes: Sequence[int]) -> bool:
    return any(not MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE for size in sizes)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _repeats(values: list[Any]) -> bool:
    return any(value in values[:k] for k, value in enumerate(values))


def _encoder_problems(modality: str, entries: Any) -> list[str]:
    if not isinstance(entries, list):
        return [
            f"{modality}_encoder: give at least one [[{modality}_encoder]], or "
            f"{modality}_encoder = [] for designs without"
        ]
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            found.append(f"{modality}_encoder = {entry!r}: give a table [[{modality}_encoder]]")
            continue
        here = f"{modality}_encoder {entry.get('name', '?')!r}"
        keys = _ENCODER_KEYS | ({"seconds"} if modality == "audio" else set())
        found += [f"{here}: {key} is not a setting" for key in sorted(entry.keys() - keys)]
        seconds = entry.get("seconds", SOUND_SECONDS)
        if type(seconds) is not int or not 1 <= seconds <= MAX_SECONDS:
            found.append(f"{here}: seconds = {seconds!r}: give a whole number up to {MAX_SECONDS}")
        if "source" not in entry:
            found.append(f"{here}: source is missing (a hub id, timm/NAME or a folder)")
        found += [
            f"{here}: {key} = {entry[key]!r}: give a text"
            for key in ("name", "source", "model_type")
            if key in entry and not _is_text(entry[key])
        ]
        libraries = ("transformers",) if modality == "text" else ("transformers", "timm")
        if entry.get("library", "transformers") not in libraries:
            found.append(f"{here}: library {entry['library']!r} is not {' or '.join(libraries)}")
        if entry.get("weights", "random") not in ("pretrained", "random"):
            found.append(f"{here}: weights {entry['weights']!r} is neither pretrained nor random")
        if not isinstance(entry.get("config", {}), dict):
            found.append(f"{here}: config = {entry['config']!r}: give a table of settings")
        elif _reads_no_config(entry):
            found.append(f"{here}: config without model_type: nothing would read it")
    return found


def _reads_no_config(entry: Mapping[str, Any]) -> bool:
    from_library = entry.get("library") == "transformers"
    return from_library and bool(entry.get("config")) and "model_type" not in entry


def _named(modality: Modality, source: str, weights: Weights | None) -> EncoderSpec:
    """Return the encoder of a plugin, a folder, timm or the hub that a text names."""
    of_plugin = spec_of_plugin(modality, source, weights)
    return of_plugin or spec_for(modality, source, weights or "pretrained")


def _spec(modality: Modality, entry: Mapping[str, Any]) -> EncoderSpec:
    if "library" not in entry:
        found = _named(modality, entry["source"], entry.get("weights"))
        return replace(
            found,
            name=entry.get("name", found.name),
            model_type=entry.get("model_type", found.model_type),
            config=entry.get("config", {}),
            seconds=entry.get("seconds", SOUND_SECONDS),
        )
    return EncoderSpec(
        name=entry.get("name", entry["source"]),
        modality=modality,
        library=entry["library"],
        source=entry["source"],
        weights=entry.get("weights", "pretrained"),
        model_type=entry.get("model_type"),
        config=entry.get("config", {}),
        seconds=entry.get("seconds", SOUND_SECONDS),
    )


def _shapes(specs: Sequence[EncoderSpec]) -> dict[str, EncoderShape]:
    from search_space.encoders.loading import describe  # it imports torch, which takes seconds

    return {spec.name: describe(spec) for spec in specs}
