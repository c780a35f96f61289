"""Flags of `run` from a TOML file: `--config FILE`."""

import inspect
import tomllib
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer

from search_space.redaction import redacted
from studies.config.usage import UsageError

OWN = ("config", "dry_run")
"""Flags that no file can give."""
_WORDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number"}


def with_config(context: typer.Context, file: Path | None) -> tuple[dict[str, Any], str]:
    """Return the parameters of a command with those of a file below the command line's.

    Keys of the file are the names of flags, with or without the leading dashes; `-` and `_` are
    the same.

    Returns:
        Values by parameter name, and what the file gave, in words; empty without a file.

    Raises:
        UsageError: The file cannot be read, a key is no flag, or a value is of another type.
    """
    values = dict(context.params)
    if file is None:
        return values, ""
    flags, kinds = _flags(context), get_type_hints(inspect.unwrap(context.command.callback))  # type: ignore[arg-type]
    used, overridden = [], []
    for key, value in _read(file).items():
        name = key.lstrip("-").replace("_", "-")
        if name not in flags:
            near = get_close_matches(name, flags, n=3, cutoff=0.6)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UsageError(f"--config {file}: {key}: run has no such flag{hint}")
        parameter = flags[name]
        checked = _checked(f"--config {file}: {key}", value, kinds[parameter])
        source: Any = context.get_parameter_source(parameter)
        if source is not None and source.name == "COMMANDLINE":
            overridden.append(name)
            continue
        values[parameter] = checked
        used.append(redacted(f"{name} = {value!r}"))
    said = f"{file.name}: {', '.join(used) or 'nothing'}"
    if overridden:
        said += f"; given on the command line: {', '.join(overridden)}"
    return values, said


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file}: {error.strerror}") from error
    except ValueError as error:  # of TOML and of UTF-8
        raise UsageError(f"--config {file}: not TOML ({error})") from error


def _flags(context: typer.Context) -> dict[str, str]:
    """The parameters of a command by each of their flags, without dashes."""
    return {
        flag.lstrip("-"): parameter.name
        for parameter in context.command.params
        for flag in parameter.opts
        if parameter.name is not None and parameter.name not in (*OWN, "help")
    }


def _checked(what: str, value: Any, annotation: Any) -> Any:
    """The value as the command line gives it, for `int | None`, `list[str] | None` and the like."""
    is_optional = get_origin(annotation) in (Union, UnionType)
    kinds = get_args(annotation) if is_optional else (annotation,)
    kind = next(each for each in kinds if each is not type(None))
    is_list = get_origin(kind) is list
    kind = get_args(kind)[0] if is_list else kind
    known: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float)}
    takes = known.get(kind, (str,))
    given = value if is_list and isinstance(value, list) else [value]
    if not all(isinstance(v, takes) and isinstance(v, bool) == (kind is bool) for v in given):
        words = _WORDS.get(kind, "a text") + (", or a list of such" if is_list else "")
        raise UsageError(f"{what} = {value!r}: give {words}")
    if not all(v.strip() for v in given if isinstance(v, str)):
        raise UsageError(f"{what} = {value!r}: it is empty; give a text, or leave the key out")
    made = [kind(each) for each in given]
    return made if is_list else made[0]
