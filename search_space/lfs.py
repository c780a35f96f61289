"""Git-LFS pointers: small text files that lie where a clone without LFS left the content out."""

from pathlib import Path

_START = b"version https://git-lfs.github.com/spec/"
_LARGEST_BYTES = 1024


def is_pointer(file: Path) -> bool:
    """Whether a file is a Git-LFS pointer; one that cannot be read is none."""
    try:
        if not file.is_file() or file.stat().st_size > _LARGEST_BYTES:
            return False
        with open(file, "rb") as opened:
            return opened.read(len(_START)) == _START
    except OSError:
        return False


def pointer_in(folder: Path) -> Path | None:
    """The first file of a folder that is a Git-LFS pointer, by name; None where none is."""
    return next((file for file in sorted(folder.iterdir()) if is_pointer(file)), None)


def advice(file: Path) -> str:
    """What a pointer is and what to do about it."""
    return f"{file.name} is a Git-LFS pointer: run `git lfs pull` in {file.parent}"
