"""The README's example, run as its reader would run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rmom_testing.clusters import DevCluster

README = Path(__file__).parent.parent / "README.md"
MANAGER = "http://127.0.0.1:8082"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_every_example_of_the_readme_runs(dev: DevCluster, tmp_path: Path) -> None:
    found = blocks()
    assert len(found) >= 3
    for number, code in enumerate(found):
        script = tmp_path / f"example_{number}.py"
        script.write_text(code.replace(MANAGER, dev.managers[0]).replace("8082", dev.managers[0].rsplit(":", 1)[1]))
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        # What the example says that it prints.
        for expected in re.findall(r"# prints (.*)", code):
            assert expected in done.stdout, done.stdout
