"""Generates the original's stubs, from a proto that has only the original's fields."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).parent
_stubs = tempfile.mkdtemp(prefix="rmom-compat-")
atexit.register(shutil.rmtree, _stubs, ignore_errors=True)
_arguments = [f"-I{HERE / 'proto'}", f"--python_out={_stubs}", f"--grpc_python_out={_stubs}"]
assert protoc.main(["protoc", *_arguments, str(HERE / "proto" / "messages.proto")]) == 0
sys.path.insert(0, _stubs)
