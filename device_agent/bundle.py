"""The one file that is sent to a device: this package as a zipapp, the same bytes every time."""

import hashlib
import io
import os
import tempfile
import zipfile
from pathlib import Path

from device_agent.storage.store import remove

SHEBANG = b"#!/usr/bin/env python3\n"
START = "import sys\n\nfrom device_agent.__main__ import main\n\nsys.exit(main())\n"
LONG_AGO = (1980, 1, 1, 0, 0, 0)


def zipapp() -> bytes:
    """Return the content of the agent's one file."""
    return SHEBANG + _archive()


def zipapp_name(content: bytes) -> str:
    """Return the name of a file of this content, which tells one version from another."""
    return f"fusion-nas-agent-{hashlib.sha256(content).hexdigest()[:16]}.pyz"


def build_zipapp(folder: Path) -> Path:
    """Write the agent to `folder` and return the path of the file.

    The name is `fusion-nas-agent-<first 16 digits of its SHA-256>.pyz`; it runs with
    `python3 -I <file> serve --home DIR` on Python 3.10 or later. Nothing is written when it is
    there already; a half written one never has that name.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    content = zipapp()
    final = folder / zipapp_name(content)
    if final.is_file() and final.read_bytes() == content:
        return final
    folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=folder, prefix=".agent-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        if final.is_dir():  # damage: no folder has such a name
            remove(final)
        os.replace(part, final)
    except BaseException:
        os.unlink(part)
        raise
    return final


def _archive() -> bytes:
    top = Path(__file__).resolve().parent
    sources = {
        path.relative_to(top.parent).as_posix(): path.read_bytes() for path in top.rglob("*.py")
    }
    sources["__main__.py"] = START.encode()
    archive = io.BytesIO()
    # Stored, not deflated: the bytes must not depend on the version of zlib.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as writer:
        for name in sorted(sources):
            entry = zipfile.ZipInfo(name, LONG_AGO)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            writer.writestr(entry, sources[name])
    return archive.getvalue()
