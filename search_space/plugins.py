"""Plugins: what other installed packages add, found by their entry points."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from traceback import walk_tb
from typing import Any, Generic, TypeVar

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
T = TypeVar("T")


class NotUsable(Exception):
    """What an entry point names is not what its group is for; the text says why."""


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package.

    Attributes:
        group: the entry point's group, for example `fusion_nas.operators`.
        name: the entry point's name, by which it is used.
        package: the distribution that has it, as pip names it.
        version: of that distribution.
        module: what it is imported from.
        failure: why it cannot be used; empty where it can.
    """

    group: str
    name: str
    package: str
    version: str
    module: str
    failure: str = ""

    @property
    def origin(self) -> str:
        """Package and version."""
        return f"{self.package} {self.version}"


@dataclass(frozen=True)
class Plugins(Generic[T]):
    """The plugins of one group.

    Attributes:
        usable: what those that can be used give, by name.
        found: every plugin, by name and package, with the reason where one cannot be used.
    """

    usable: Mapping[str, T] = field(default_factory=dict)
    found: tuple[Plugin, ...] = ()

    def origins(self, names: Iterable[str]) -> dict[str, str]:
        """Return package and version of those of these names that are of usable plugins."""
        wanted = set(names)
        return {p.name: p.origin for p in self.found if p.name in wanted and not p.failure}

    def failure(self, name: object) -> str:
        """Return in words why the plugin of this name cannot be used; empty if none failed."""
        for plugin in self.found:
            if plugin.name == name and plugin.failure:
                return f"{name!r} of the plugin {plugin.origin} cannot be used: {plugin.failure}"
        return ""


def load_plugins(group: str, make: Callable[[Any], T], built_in: Collection[str]) -> Plugins[T]:
    """Import every plugin of a group; one that fails is recorded and does not affect the others.

    Args:
        group: the entry points' group.
        make: turns what an entry point names into what is used. Raises NotUsable for another kind
            of object.
        built_in: names that plugins cannot have.
    """
    entries = sorted(metadata.entry_points(group=group), key=lambda e: (e.name, _package_of(e)[0]))
    usable, found = dict[str, T](), []
    for entry in entries:
        module = entry.value.partition(":")[0].strip()
        plugin = Plugin(group, entry.name, *_package_of(entry), module)
        others = [_package_of(e)[0] for e in entries if e.name == entry.name and e is not entry]
        try:
            if entry.name in built_in:
                raise NotUsable("fusion-nas has a built-in one of this name; rename it")
            if not _NAME.fullmatch(entry.name):
                raise NotUsable("its name must be lower-case letters and digits, with hyphens")
            if others:
                raise NotUsable(f"{', '.join(others)} has one of this name too; uninstall one")
            usable[entry.name] = make(entry.load())
        except NotUsable as error:
            plugin = replace(plugin, failure=str(error))
        except (Exception, SystemExit) as error:  # whatever code of others raises on import
            said = " ".join(f"{type(error).__name__}: {error}".split())
            plugin = replace(plugin, failure=f"{entry.value} cannot be loaded ({said})")
        found.append(plugin)
    return Plugins(usable, tuple(found))


def at_fault(error: BaseException, plugins: Iterable[Plugin]) -> Plugin | None:
    """Return which of these plugins has the code in which an error was raised, if one has."""
    packages = {_root(plugin.module): plugin for plugin in plugins}
    cause: BaseException | None = error
    while cause is not None:
        for frame, _ in walk_tb(cause.__traceback__):
            if plugin := packages.get(_root(frame.f_globals.get("__name__", ""))):
                return plugin
        cause = cause.__cause__ or cause.__context__
    return None


def _root(module: str) -> str:
    return module.partition(".")[0]


def _package_of(entry: metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that an entry point is of, as far as they are known."""
    name, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
    return name or "an unknown package", version or "?"
