"""What gives way stands behind all others; what is called at first priority does not."""

import subprocess
import sys

import pytest

from studies.infra.priority import LOWEST, can_give_way

pytestmark = pytest.mark.skipif(not can_give_way(), reason="threads have no priorities here")

SCRIPT = """
import os, subprocess, sys, threading
from studies.infra.priority import at_first_priority, give_way

def niceness_of_a_child():
    asked = [sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"]
    return int(subprocess.run(asked, capture_output=True, check=True).stdout)

def own():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

found, held, seen = [], threading.Event(), threading.Event()
def earlier():
    seen.set()
    held.wait()
    found.append(own())

before = threading.Thread(target=earlier)
before.start()
seen.wait()
first = at_first_priority(niceness_of_a_child)
began = own()
give_way()
give_way()
held.set()
before.join()
later = threading.Thread(target=lambda: found.append(own()))
later.start()
later.join()
again = at_first_priority(niceness_of_a_child)
print(began, own(), *found, niceness_of_a_child(), first(), again())
"""


def test_threads_and_children_give_way_but_for_those_of_calls_at_first_priority() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    began, own, earlier, later, child, first, again = map(int, done.stdout.split())
    assert (own, earlier, later, child) == (LOWEST, LOWEST, LOWEST, LOWEST)
    assert first == again == began < LOWEST


def test_what_a_call_at_first_priority_raises_is_raised() -> None:
    script = "from studies.infra import priority; priority.at_first_priority(lambda: 1 / 0)()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ZeroDivisionError" in done.stderr
