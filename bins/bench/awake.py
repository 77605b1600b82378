"""Keeps the cores awake while something is measured, by work that gives way to everything else."""

import contextlib
import subprocess
import time

# Seconds in which it shows whether the system allows it.
TRIAL = 0.5


@contextlib.contextmanager
def cores(program, keep):
    """A busy loop for each core, if `keep`. They end with the block, and with this process, however that ends."""
    if not keep:
        yield
        return
    with subprocess.Popen(["chrt", "--idle", "0", str(program), "keep-awake"]) as loops:
        try:
            time.sleep(TRIAL)
            if loops.poll() is not None:
                raise SystemExit("the cores cannot be kept awake here; try --let-cores-sleep")
            yield
        finally:
            loops.kill()
