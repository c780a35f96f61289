"""Runtimes of plugins, for this machine: found by the entry points `fusion_nas.runtimes`."""

from functools import cache
from importlib import metadata

from device_agent.runtime import PluginRuntime
from device_agent.runtimes import RUNTIMES
from device_agent.runtimes.plugin import PluginSource
from search_space.plugins import NotUsable, Plugin, Plugins, load_plugins

GROUP = "fusion_nas.runtimes"
BUILT_IN = ("cpu", "cuda", "tensorrt", "openvino")
"""What --runtime takes without plugins."""


def plugin_runtime(name: str) -> PluginRuntime | None:
    """Return the runtime of this name; None where no plugin that can be used has it."""
    return None if name in BUILT_IN else _plugins().usable.get(name)


def runtime_names() -> tuple[str, ...]:
    """Return what --runtime takes, runtimes of plugins last."""
    return (*BUILT_IN, *_plugins().usable)


def why_unusable(name: str) -> str:
    """Return why the plugin of this name cannot be used; empty if none of this name failed."""
    return _plugins().failure(name)


def runtime_plugins() -> tuple[Plugin, ...]:
    """Return every plugin found, with the reason where one cannot be used."""
    return _plugins().found


def runtime_origins(name: str) -> dict[str, str]:
    """Return package and version of the plugin that a runtime is of, if it is of one."""
    return {} if name in BUILT_IN else _plugins().origins([name])


def for_agent(name: str) -> PluginSource | None:
    """Return what is passed to a local agent for a plugin's runtime; None for others."""
    runtime = plugin_runtime(name)
    if runtime is None:
        return None
    (plugin,) = (each for each in _plugins().found if each.name == name)
    folder = str(metadata.distribution(plugin.package).locate_file(""))
    made = type(runtime)
    return PluginSource(name, plugin.origin, made.__module__, made.__name__, folder)


@cache
def _plugins() -> Plugins[PluginRuntime]:
    return load_plugins(GROUP, _runtime, {*BUILT_IN, *RUNTIMES})


def _runtime(found: object) -> PluginRuntime:
    """Return the runtime of a class. Raises NotUsable."""
    from search_space.design.genotype import PRECISIONS

    if not (isinstance(found, type) and issubclass(found, PluginRuntime)):
        raise NotUsable(f"{found!r} is not a subclass of device_agent.runtime.PluginRuntime")
    if not isinstance(found.provider, str) or not found.provider:
        raise NotUsable(f"{found.__name__}.provider is not a text")
    if not found.precisions or any(each not in PRECISIONS for each in found.precisions):
        known = ", ".join(PRECISIONS)
        raise NotUsable(f"{found.__name__}.precisions are not some of {known}")
    return found()
