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
    # In a session of their own: some kernels share the cores among sessions before they look at priorities.
    with subprocess.Popen(["chrt", "--idle", "0", str(program), "keep-awake"], start_new_session=True) as loops:
        try:
            time.sleep(TRIAL)
            if loops.poll() is not None:
                raise SystemExit("the cores cannot be kept awake here; try --let-cores-sleep")
            yield
        finally:
            loops.kill()
