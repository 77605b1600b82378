"""The examples of both READMEs, run as a reader would run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from rmom_testing.clusters import DevCluster

PACKAGE = Path(__file__).parent.parent
MANAGER = "http://127.0.0.1:8082"


def blocks(readme: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)


def test_the_repositorys_example_prints_what_it_pushed(dev: DevCluster) -> None:
    (code,) = blocks(PACKAGE.parent.parent / "README.md")
    command = [sys.executable, "-u", "-c", code.replace(MANAGER, dev.managers[0])]
    # Readers run an example more than once.
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "one coffee\n"
            running.kill()


def test_every_example_of_the_readme_runs(dev: DevCluster, tmp_path: Path) -> None:
    found = blocks(PACKAGE / "README.md")
    assert len(found) >= 3
    # Readers run an example more than once.
    for number, code in enumerate(found * 2):
        script = tmp_path / f"example_{number}.py"
        script.write_text(code.replace(MANAGER, dev.managers[0]).replace("8082", dev.managers[0].rsplit(":", 1)[1]))
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        # The output that the example promises.
        for expected in re.findall(r"# prints (.*)", code):
            assert expected in done.stdout, done.stdout
