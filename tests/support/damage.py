"""Kinds of damage that a cached file may take, by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

PAGE = 4096


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def _zero_page(file: Path) -> None:
    content = bytearray(file.read_bytes())
    first = PAGE if len(content) > 2 * PAGE else 0
    content[first : first + PAGE] = bytes(len(content[first : first + PAGE]))
    file.write_bytes(content)


def _zero_tail(file: Path) -> None:
    content = file.read_bytes()
    whole = min(PAGE, len(content) // 2)
    file.write_bytes(content[:whole] + bytes(len(content) - whole))


def _truncate(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "inside").write_text("anything")


DAMAGE: Mapping[str, Callable[[Path], None]] = {
    "byte flipped": _flip,
    "page zeroed": _zero_page,
    "tail zeroed": _zero_tail,
    "truncated": _truncate,
    "emptied": lambda file: file.write_bytes(b""),
    "a directory": _folder,
    "removed": Path.unlink,
}
