"""The damage matrix: every form of file in a home, damaged in every way, and what commands do then.

In a copy of a finished study files are damaged. Then the study is resumed, driven to two more
trials, reported and exported. Figures are compared with those of the same commands on an undamaged
copy: of the trials and references that were there, of the trials that are new (the sampler draws
the same designs), of the exported network and its card. Four studies are damaged: clips, with a
text encoder that is tuned alone; the study `superfuse`; pictures with texts and sounds; and
built-in data, of which a few files of each form are damaged and nothing else. What lies in their
homes is listed by the kinds of `fusion-nas clean`, locks too.

In a case all files of several forms are damaged, each form in its own way: every third form, so
that a file and its checksum are not damaged together. Where such a case comes to anything else than
the undamaged study, its forms are damaged again one by one.

Writes JSON and, beside it, a table (.md). Exits with 1 after a wrong figure, a traceback or a kind
that no study left. Goes on where it was cut off.

    python benchmarks/damage.py --out FILE.json [--study NAME] [--parts 3]
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]

from damage import DAMAGE  # noqa: E402
from damage_matrix import SUBJECTS, Damaged, Matrix, never_found  # noqa: E402

COUNTS = ("files", "noticed", "as_before", "rewritten", "as_damaged", "absent")
HEAD = (
    "| form of file | damage | files | noticed | as before | rewritten | as damaged | absent |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|\n"
)
NOTES = """\
"Noticed" are the files that a line of the output names. After the commands a file has its content
of before, another one (results are appended to, readings are new ones), what the damage left, or is
absent: files that none of the commands needed are not made again. The second half of a checksum's
file is a name that nothing reads. Most locks are empty and have no content to lose.
"""


def main() -> int:
    """Damage, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", choices=SUBJECTS, action="append", help="all if left out")
    parser.add_argument("--parts", type=int, default=3, help="1 damages all forms at once")
    parser.add_argument("--out", type=Path, required=True, help="a .json file; its .md lies beside")
    asked = parser.parse_args()
    found = {"python": platform.python_version(), "machine": platform.machine(), "cases": []}
    if asked.out.exists():
        found = json.loads(asked.out.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        for name in asked.study or SUBJECTS:
            matrix = Matrix(Path(folder) / name.replace(" ", "-"), SUBJECTS[name])
            done = {
                (form, fate["damage"])
                for each in found["cases"]
                for form, fate in each["fates"].items()
                if each["study"] == name
            }
            for harms in cases_of(matrix, asked.parts):
                left = {form: harm for form, harm in harms.items() if (form, harm) not in done}
                for case in attributed(matrix, left) if left else ():
                    found["cases"].append({"study": name, **case})
                    write(asked.out, found)
    return int(any(found["totals"][name] for name in ("wrong", "tracebacks", "never_found")))


def cases_of(matrix: Matrix, parts: int) -> Iterator[dict[str, str]]:
    """Damage by form, for each case."""
    forms = [*matrix.forms]
    for shift in range(len(DAMAGE)):
        for part in range(parts):
            if harms := matrix.in_turn(shift, forms[part::parts]):
                yield harms


def attributed(matrix: Matrix, harms: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """What a case came to; of one that is not clean, what each of its forms does alone."""
    start_s = time.monotonic()
    done = matrix.case(harms)
    seconds = time.monotonic() - start_s
    print(f"{seconds:.0f} s, {len(harms)} forms: {summary(done)}", file=sys.stderr, flush=True)
    if done.is_clean or len(harms) == 1:
        yield asdict(done)
        return
    for form, harm in harms.items():
        alone = matrix.case({form: harm})
        print(f"  {form}, {harm}: {summary(alone)}", file=sys.stderr, flush=True)
        yield asdict(alone)


def summary(done: Damaged) -> str:
    """In a line, what differs from the undamaged study."""
    return "clean" if done.is_clean else str([done.wrong[:3], done.tracebacks, done.failed])[:400]


def write(out: Path, found: dict[str, Any]) -> None:
    """Write the JSON with its totals, and the table."""
    cases = found["cases"]
    fates = [(case, form, fate) for case in cases for form, fate in case["fates"].items()]
    found["totals"] = {
        "forms": len({(case["study"], form) for case, form, _ in fates}),
        "damaged": len(fates),
        "files": sum(fate["files"] for *_, fate in fates),
        "wrong": sum(len(case["wrong"]) for case in cases),
        "tracebacks": sum(len(case["tracebacks"]) for case in cases),
        "failed": sum(len(case["failed"]) for case in cases),
        "never_found": sorted(never_found(form for _, form, _ in fates)),
    }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    totals = found["totals"]
    text = (
        f"{totals['forms']} forms of files, {totals['damaged']} times damaged ({totals['files']} "
        f"files): {totals['wrong']} wrong figures, {totals['tracebacks']} tracebacks, "
        f"{totals['failed']} commands failed.\n\n{NOTES}{found.get('note', '')}\n"
    )
    for study in dict.fromkeys(case["study"] for case in cases):
        own = [(form, fate) for case, form, fate in fates if case["study"] == study]
        own.sort(key=lambda each: (each[0], [*DAMAGE].index(each[1]["damage"])))
        rows = "".join(
            f"| {form} | {fate['damage']} | {' | '.join(str(fate[name]) for name in COUNTS)} |\n"
            for form, fate in own
        )
        text += f"## {study}\n\n{HEAD}{rows}\n"
        for case in cases:
            for stage, said in case["failed"].items() if case["study"] == study else ():
                text += f"Failed: {stage} after {', '.join(case['fates'])}: {said}\n\n"
    out.with_suffix(".md").write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
