"""Keeps the cores awake while something is measured, by work that gives way to everything else."""

import contextlib
import os
import subprocess
import sys

# Of no weight beside any other process: SCHED_IDLE. It ends with whoever started it, however that ended.
BUSY = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = {parent}
while os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


@contextlib.contextmanager
def cores(keep):
    """A busy loop for each core, if `keep`; all of them end with the block."""
    loops = []
    try:
        if keep:
            code = BUSY.format(parent=os.getpid())
            loops.extend(subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(os.cpu_count() or 1))
        yield
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()
