"""Generates src/rmom/_proto from the repository's messages.proto. With --check, reports whether the present files are
up to date.

Needs grpcio-tools, in the version given in pyproject.toml.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PACKAGE = Path(__file__).resolve().parent.parent
TARGET = PACKAGE / "src" / "rmom" / "_proto"
SOURCES = [PACKAGE.parent.parent / "proto" / "proto" / "messages.proto", PACKAGE / "proto" / "status.proto"]


def generate(folder: Path) -> dict[str, str]:
    """The generated files, by name."""
    # The folder below the include path becomes the package of the imports between generated files.
    home = folder / "rmom" / "_proto"
    home.mkdir(parents=True)
    out = folder / "out"
    out.mkdir()
    for source in SOURCES:
        shutil.copy(source, home)
    command = ["protoc", f"-I{folder}", f"--python_out={out}", f"--pyi_out={out}"]
    if protoc.main([*command, *(str(home / source.name) for source in SOURCES)]) != 0:
        sys.exit("protoc failed")
    # Only messages.proto has a service.
    if protoc.main(["protoc", f"-I{folder}", f"--grpc_python_out={out}", str(home / SOURCES[0].name)]) != 0:
        sys.exit("protoc failed")
    return {path.name: path.read_text() for path in (out / "rmom" / "_proto").iterdir()}


def main() -> None:
    """Generates or checks."""
    with tempfile.TemporaryDirectory() as folder:
        files = generate(Path(folder))
    if "--check" in sys.argv[1:]:
        stale = [
            name for name, text in files.items() if not (TARGET / name).exists() or (TARGET / name).read_text() != text
        ]
        if stale:
            sys.exit(f"not up to date: {', '.join(sorted(stale))}; run {Path(__file__).name}")
        return
    for name, text in files.items():
        (TARGET / name).write_text(text)


if __name__ == "__main__":
    main()
