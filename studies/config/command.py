"""The command line that runs a study with given settings."""

import shlex
from typing import Any

from search_space.redaction import redacted, redacted_url
from studies.config.settings import Settings, load_settings
from studies.config.usage import UsageError

_FLAGS = {
    "devices": "device",
    "text_encoders": "text-encoder",
    "vision_encoders": "vision-encoder",
    "audio_encoders": "audio-encoder",
    "precisions": "precision",
    "modalities": "modality",
    "image_sizes": "image-size",
    "lora_ranks": "lora-rank",
    "objectives": "objective",
    "limits": "limit",
    "latency_limit_ms": "latency-limit",
    "accept_faults": "accept-faults",
    "from_study": "from",
}
"""Flags that are not called like their option."""
_OF_A_PRESET = ("preset", "title", "grid", "about", "superfuse")
_OF_ONE_RUN = ("store", "take_over", "retime", "configuration")
"""Options that say nothing of the study, or whose values are options of their own."""


def command_line(settings: Settings) -> str:
    """Return the command that gives these settings: the flags that differ from the preset's own.

    A password in the storage's URL is left out.
    """
    options, own = settings.to_options(), {}
    try:
        own = load_settings(settings.preset.name).to_options()
        preset = settings.preset.name
    except UsageError:  # a file of one's own
        preset = f"{settings.preset.name}.toml"
    words = ["fusion-nas", "run", "--study", preset]
    for name, value in options.items():
        if name in (*_OF_A_PRESET, *_OF_ONE_RUN) or value == own.get(name):
            continue
        words += _flag(name, value)
    return shlex.join(words)


def _flag(name: str, value: Any) -> list[str]:
    flag = f"--{_FLAGS.get(name, name.replace('_', '-'))}"
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    if isinstance(value, tuple):
        return [word for each in value for word in (flag, str(each))]
    if name == "storage":
        return [flag, redacted_url(str(value))]
    return [flag, redacted(str(value))]
