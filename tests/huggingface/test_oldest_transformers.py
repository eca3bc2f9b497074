"""
The bridge with another transformers than the one that is installed: the oldest that it supports.

Runs only where `ASYNCCB_OLDEST_TRANSFORMERS` names a folder that was made by, for example,

    pip install --no-deps --target FOLDER transformers==5.0.0 'huggingface_hub<2' tokenizers==0.22.2
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = os.environ.get("ASYNCCB_OLDEST_TRANSFORMERS")
TESTS = (
    "huggingface/test_bridge.py",
    "huggingface/test_resume.py",
    "callbacks/test_offload.py",
    "trainer/test_oracle.py",
    "huggingface/test_their_callbacks.py",
)


@pytest.mark.skipif(not FOLDER, reason="ASYNCCB_OLDEST_TRANSFORMERS names no folder")
def test_the_bridge_works_with_the_oldest_transformers() -> None:
    tests = Path(__file__).parents[1]
    paths = [str(FOLDER), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    version = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        "import transformers as t; print(t.__version__)",
    ]
    found = subprocess.run(
        version, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.strip() == "5.0.0"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *TESTS],
        cwd=tests,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:]
