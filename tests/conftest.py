"""
What several tests share: servers, and the processor.

`pytest -n auto` runs the suite in one process more than there are cores, since many tests wait for
processes, servers and clocks, whole files to each (`--dist loadfile`): then a file's tests share
what is dear to start. Plain `pytest` runs all in one. `python tests/faults/kills.py COUNT` and the
programs named in tests/support/programs do at length what the tests do a few times.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

# Before anything imports torch: the models are tiny, and threads that spin for work take the
# cores from the other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Nor is the package to be compiled anew in each process that a test starts.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A job in the background of a shell ignores Ctrl-C, and so would each process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import HealthCheck, settings

from tests.support.surroundings import go_home
from tests.trackers.clearml.schema import Schema
from tests.trackers.clearml.schema import clearml_schema as opened_schema
from tests.trackers.clearml.server import ClearMLServer, clearml_server
from tests.trackers.comet_ml.server import CometServer, comet_server
from tests.trackers.gate import Gate, gate
from tests.trackers.mlflow.server import RealMLflow
from tests.trackers.swanlab.reader import SwanLabReader
from tests.trackers.swanlab.server import KEY as SWANLAB_KEY
from tests.trackers.swanlab.server import SwanLabServer, swanlab_server
from tests.trackers.trackio.server import RealTrackio
from tests.trackers.wandb.server import KEY, WandbServer, wandb_server

# How long an example takes says something of the machine alone.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_xdist_auto_num_workers() -> int:
    """Say how many processes `-n auto` means."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A folder for the journals of runs."""
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMLflow]:
    """A real MLflow server; a test that stops it starts it again."""
    with closing(RealMLflow(tmp_path_factory.mktemp("mlflow"))) as server:
        server.start()
        yield server


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    """A name for the test's experiment: the server is shared with tests of other files."""
    return request.node.nodeid


@pytest.fixture
def mlflow_gate(mlflow_server: RealMLflow) -> Iterator[Gate]:
    """An address of the real MLflow server that a test may shut: it takes 10 s to start again."""
    with gate(mlflow_server.uri) as it:
        yield it


@pytest.fixture(scope="session")
def trackio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTrackio]:
    """A real Trackio server; a test that stops it starts it again."""
    with closing(RealTrackio(tmp_path_factory.mktemp("trackio"))) as server:
        server.start()
        yield server


@pytest.fixture
def mlflow_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, proxy or file of the machine that would change what an MLflow tracker does."""
    go_home(monkeypatch, tmp_path, "MLFLOW")


@pytest.fixture(scope="session")
def clearml_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Schema]:
    """What asks the vendor's own request classes."""
    with opened_schema(tmp_path_factory.mktemp("clearml")) as schema:
        yield schema


@pytest.fixture
def clearml(
    clearml_schema: Schema, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ClearMLServer]:
    """A ClearML server, its credentials in the environment, and nothing of the machine's."""
    go_home(monkeypatch, tmp_path, "CLEARML", "TRAINS")
    with clearml_server(clearml_schema) as server:
        for name, value in server.credentials().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    """A W&B server, its key in the environment, and nothing that the machine may have there."""
    go_home(monkeypatch, tmp_path, "WANDB", "NETRC")
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server


@pytest.fixture
def comet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CometServer]:
    """A Comet server, its key in the environment, and nothing that the machine may have there."""
    go_home(monkeypatch, tmp_path, "COMET")
    with comet_server() as server:
        monkeypatch.setenv("COMET_URL_OVERRIDE", f"{server.url}/clientlib/")
        monkeypatch.setenv("COMET_API_KEY", server.key)
        yield server


@pytest.fixture
def swanlab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SwanLabServer]:
    """A SwanLab server, its key in the environment, and nothing that the machine may have there."""
    go_home(monkeypatch, tmp_path, "SWANLAB")
    with swanlab_server() as server:
        monkeypatch.setenv("SWANLAB_API_HOST", server.url)
        monkeypatch.setenv("SWANLAB_API_KEY", SWANLAB_KEY)
        yield server


@pytest.fixture(scope="session")
def swanlab_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwanLabReader]:
    """The vendor's own reader of run files."""
    if find_spec("swanlab") is None:
        pytest.skip("needs the package swanlab")
    reader = SwanLabReader(tmp_path_factory.mktemp("swanlab"))
    yield reader
    reader.close()


NVML = """
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned int gpu, memory; } rates;
static int devices[2] = {0, 1};
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **d) { *d = &devices[i]; return 0; }
int nvmlDeviceGetUUID(void *d, char *s, unsigned int n) {
    strcpy(s, *(int *)d ? "GPU-bbbb" : "GPU-aaaa"); return 0; }
int nvmlDeviceGetMemoryInfo(void *d, memory *m) {
    m->total = 80ull << 30; m->used = (unsigned long long)(*(int *)d + 1) << 30; return 0; }
int nvmlDeviceGetUtilizationRates(void *d, rates *r) { r->gpu = 97; r->memory = 5; return 0; }
int nvmlDeviceGetPowerUsage(void *d, unsigned int *mw) { *mw = 350500; return 0; }
int nvmlDeviceGetTemperature(void *d, int s, unsigned int *t) { *t = 61; return 0; }
"""


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, as the driver's library would tell of them; one of its functions is missing."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    (tmp_path / "nvml.c").write_text(NVML)
    library = tmp_path / "lib" / "libnvidia-ml.so.1"
    library.parent.mkdir()
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
