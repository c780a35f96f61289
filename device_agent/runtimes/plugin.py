"""The runtime of an installed package, as the host that starts the agent on its machine names it.

The host names it in the environment. That of a board's agent is not the host's, so that a board has
the runtimes of the agent alone.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from device_agent.board.description import RuntimeInfo
from device_agent.runtime import PluginRuntime, Session, Unavailable
from device_agent.wire.request import MeasureRequest

VARIABLE = "FUSION_NAS_RUNTIME"


@dataclass(frozen=True)
class PluginSource:
    """Where the runtime of a plugin is found.

    Attributes:
        name: by which it is asked for.
        origin: package and version; a part of the runtime's version.
        module: what it is imported from.
        type: its class there.
        folder: where the package is installed.
    """

    name: str
    origin: str
    module: str
    type: str
    folder: str

    def environment(self) -> dict[str, str]:
        """Return what names it to an agent that is started on this machine."""
        return {VARIABLE: json.dumps(asdict(self))}

    def load(self) -> PluginRuntime:
        """Import it; raises `Unavailable`, and says which plugin is at fault."""
        if self.folder not in sys.path:
            sys.path.append(self.folder)
        try:
            loaded: PluginRuntime = getattr(importlib.import_module(self.module), self.type)()
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise Unavailable(
                f"runtime {self.name!r} of the plugin {self.origin} cannot be loaded by "
                f"{sys.executable}: {said}"
            ) from error
        return loaded


@dataclass(frozen=True)
class OfPlugin:
    """Implements `Runtime` with the runtime of a plugin, which is imported when it is needed.

    Attributes:
        name: by which it is asked for.
        origin: package and version; a part of the runtime's version.
        load: gives the plugin's runtime; raises `Unavailable`.
    """

    name: str
    origin: str
    load: Callable[[], PluginRuntime]

    def describe(self) -> RuntimeInfo:
        """Return version and provider; the ONNX versions that it takes are not known."""
        try:
            return RuntimeInfo(self.name, self.version(), (self.load().provider,))
        except Unavailable as error:
            return RuntimeInfo(self.name, problem=str(error))

    def version(self) -> str:
        """Return its version and that of its package; raises `Unavailable`."""
        return f"{self.load().version()} ({self.origin})"

    def prepare(self, model: Path, request: MeasureRequest, scratch: Path, kept: Path) -> Session:
        """Compile by the plugin; see `Runtime.prepare`."""
        return self.load().prepare(model, request, scratch, kept)


def named_by_host() -> list[OfPlugin]:
    """Return the runtime that the host named, if it named one."""
    said = os.environ.get(VARIABLE)
    if not said:
        return []
    source = PluginSource(**json.loads(said))
    return [OfPlugin(source.name, source.origin, source.load)]
