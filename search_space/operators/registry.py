"""Fusion operators by name: those built in, and those of plugins.

A plugin is a class like those of `definitions`, registered by an installed package as an entry
point of the group `fusion_nas.operators`; the entry point's name is the operator's. Plugins are
looked for once, when a name is asked for that is not built in.
"""

from collections.abc import Iterable, Mapping
from functools import cache

from search_space.errors import USAGE, FusionNasError
from search_space.operators.definitions import FUSION_OPERATORS
from search_space.operators.operator import FusionOperator, Operator, Signature
from search_space.plugins import NotUsable, Plugin, Plugins, load_plugins

GROUP = "fusion_nas.operators"


class UnknownOperator(FusionNasError):
    """An operator is neither built in nor of a plugin that works."""

    exit_code = USAGE


class PluginError(FusionNasError):
    """The operator of a plugin does not do what its class must."""

    exit_code = USAGE


def operator_of(name: Operator) -> FusionOperator:
    """Return the operator of this name. Raises UnknownOperator."""
    if name in FUSION_OPERATORS:
        return FUSION_OPERATORS[name]
    usable = _plugins().usable
    if name not in usable:
        raise UnknownOperator(f"operator {why_unknown(name)}")
    return usable[name]


def fusion_operators() -> Mapping[Operator, FusionOperator]:
    """Return all operators, those of plugins last."""
    return {**FUSION_OPERATORS, **_plugins().usable}


def is_operator(name: object) -> bool:
    """Whether there is an operator of this name."""
    return isinstance(name, str) and (name in FUSION_OPERATORS or name in _plugins().usable)


def why_unknown(name: object, package: str = "") -> str:
    """Return what to say of a name that no operator has; `package` is known to have had it."""
    if failure := _plugins().failure(name):
        return failure
    if package:
        return f"{name!r} is of the plugin {package}, which is not installed: install it"
    known = ", ".join(fusion_operators())
    return f"{name!r} is none of {known}: choose one, or install the plugin that has it"


def operator_plugins() -> tuple[Plugin, ...]:
    """Return every plugin found, with the reason where one cannot be used."""
    return _plugins().found


def origins(names: Iterable[Operator]) -> dict[Operator, str]:
    """Return package and version of those of these operators that are of plugins."""
    others = {name for name in names if name not in FUSION_OPERATORS}
    return _plugins().origins(others) if others else {}


@cache
def _plugins() -> Plugins[FusionOperator]:
    return load_plugins(GROUP, _operator, FUSION_OPERATORS)


def _operator(found: object) -> FusionOperator:
    """Return the operator of a class. Raises NotUsable."""
    if not (isinstance(found, type) and issubclass(found, FusionOperator)):
        raise NotUsable(f"{found!r} is not a subclass of fusion_nas.operators.FusionOperator")
    if not isinstance(getattr(found, "signature", None), Signature):
        raise NotUsable(f"{found.__name__}.signature is not a fusion_nas.operators.Signature")
    return found()
