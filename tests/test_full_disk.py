"""A whole run on a small disk of its own that gets full; needs user namespaces."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from callbacks_for_tests import read_lines
from launching import command, environment

SIZE = 40 << 20


def small_disk(path: Path) -> list[str]:
    """Return what a command begins with to have a disk of its own mounted on a folder."""
    path.mkdir()
    mount = f'mount -t tmpfs -o size={SIZE} none "{path}" && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    tried = subprocess.run([*small_disk(tmp_path / "tried"), "true"], capture_output=True)
    if tried.returncode:
        pytest.skip(f"no disk can be mounted here: {tried.stderr.decode().strip()}")
    return tmp_path / "disk"


@pytest.mark.parametrize("then", ["freed", "full to the end"])
def test_the_training_goes_on_and_what_is_lost_is_counted_and_said(
    disk: Path, tmp_path: Path, then: str
) -> None:
    begin = time.monotonic()
    done = subprocess.run(
        [*small_disk(disk), *command("fill_disk", disk, tmp_path / "tracked", then)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps, dropped = map(int, done.stdout.split()[:2])
    assert time.monotonic() - begin < 100
    assert "the journal cannot be written ([Errno 28] No space left on device)" in done.stderr
    lines = read_lines(tmp_path / "tracked")
    seen = [line["step"] for line in lines if "step" in line]
    assert seen == sorted(set(seen))
    if then == "freed":
        assert seen[-1] == steps
        assert len(seen) + dropped == steps
        assert dropped > 0
        assert lines[-1]["status"] == "finished"
        assert f"{dropped} events were dropped meanwhile" in done.stderr
    else:
        assert "NOT delivered" in done.stderr
