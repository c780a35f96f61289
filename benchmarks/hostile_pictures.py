"""Peak memory of a data set of huge and hostile pictures.

A child process checks the data set as `fusion-nas data check` does, then reads every picture that
passed at 224 pixels from eight threads, as training does. The files are hard links of a few:
bombs that state billions of pixels, files cut short, metadata beyond the limit; a part is as
large as is still decoded: 64 million pixels with transparency, in 16 bits, with a palette, in CMYK,
and JPEGs of 250 million. Prints JSON; exits with 1 if the peak exceeds 2 GB.

    python benchmarks/hostile_pictures.py [--files 2000] [--decoded 40] [--out FILE]
"""

import argparse
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, PngImagePlugin

from evaluators.data.checking import check
from evaluators.data.errors import DataError
from evaluators.data.media.images import read_image

MOST_BYTES = 2e9
SIZE = 224
THREADS = 8
SIDE = 8_000


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(path: Path) -> None:
    """A PNG of 60,000 x 60,000 pixels in a few kilobytes."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0)
    body = zlib.compress(bytes(10_000_000), 9)
    signature = b"\x89PNG\r\n\x1a\n"
    path.write_bytes(
        signature + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")
    )


def _metadata(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "y" * 40_000_000, zip=True)
    Image.new("RGB", (64, 64)).save(path, "PNG", pnginfo=info)


def _cut(path: Path) -> None:
    Image.effect_noise((2000, 2000), 90).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:200_000])


def _animated(path: Path) -> None:
    frames = [Image.new("RGB", (1500, 1500), (k, k, k)) for k in range(40)]
    frames[0].save(path, "PNG", save_all=True, append_images=frames[1:])


def _plain(mode: str, side: int = SIDE, **options: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        form = "JPEG" if mode in ("CMYK", "L") else "PNG"
        Image.new(mode, (side, side)).save(path, form, **options)

    return write


REFUSED: Mapping[str, Callable[[Path], None]] = {
    "bomb": _bomb, "metadata": _metadata, "cut": _cut,
    "over": _plain("RGB", SIDE + 100),
    "progressive": _plain("L", SIDE + 100, progressive=True),
}  # fmt: skip
DECODED: Mapping[str, Callable[[Path], None]] = {
    "rgba": _plain("RGBA"), "sixteen": _plain("I;16"), "palette": _plain("P"),
    "grey-alpha": _plain("LA"), "cmyk": _plain("CMYK"), "jpeg": _plain("L", 15_800),
    "animated": _animated,
}  # fmt: skip


def make(folder: Path, files: int, decoded: int) -> None:
    """Write the data set: `files` pictures, of which `decoded` can be read."""
    kinds = folder / "kinds"
    kinds.mkdir(parents=True)
    (folder / "images").mkdir()
    for name, write in {**REFUSED, **DECODED}.items():
        write(kinds / name)
    rows = ["id,text,label,mode"]
    for k in range(files):
        among = tuple(DECODED if k < decoded else REFUSED)
        # Readers go by the content; the suffix is one that is looked for.
        os.link(kinds / among[k % len(among)], folder / "images" / f"p{k}.png")
        split = ("train", "train", "valid", "test")[k // 2 % 4]
        rows.append(f"p{k},a text of number {k},{'neg' if k % 2 else 'pos'},{split}")
    (folder / "label.csv").write_text("\n".join(rows) + "\n")


def read(folder: Path) -> None:
    """Check the data set, then read what passed; print what came of it."""
    checked = check(folder, cache=folder.parent / "cache")
    refused = sum(fault.kind == "picture" for fault in checked.faults)
    files = sorted((folder / "images").iterdir())

    def can(file: Path) -> bool:
        try:
            return read_image(file, SIZE).shape == (3, SIZE, SIZE)
        except DataError:
            return False

    start_s = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        done = sum(pool.map(can, files))
    seconds = round(time.monotonic() - start_s, 1)
    print(json.dumps({"refused": refused, "read": done, "read_s": seconds, "peak_bytes": _peak()}))


def _peak() -> int:
    """Highest resident memory of this program; `getrusage` has that of its parent in it too."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def main() -> int:
    """Make the data set, read it in a child, and print its peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--decoded", type=int, default=40)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="file for the JSON, instead of standard output")
    asked = parser.parse_args()
    if asked.read:
        read(asked.read)
        return 0
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
        make(Path(folder) / "set", asked.files, asked.decoded)
        start_s = time.monotonic()
        command = [sys.executable, __file__, "--read", str(Path(folder) / "set")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.monotonic() - start_s
    result = {
        "python": platform.python_version(),
        "files": asked.files,
        "of_decodable_kinds": asked.decoded,
        **json.loads(done.stdout),
        "seconds": round(seconds, 1),
        "bound_bytes": int(MOST_BYTES),
    }
    text = json.dumps(result, indent=2)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    return int(result["peak_bytes"] > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
