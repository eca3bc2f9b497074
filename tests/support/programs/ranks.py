"""Run a function as several ranks: BACKEND MODULE FUNCTION WORLD FOLDER [ARGUMENT...]."""

import importlib
import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist


def join(backend: str, rank: int, world: int, folder: Path) -> None:
    """Set up a process group; rank 0 keeps the store, at a port that it has been given."""
    address = folder / "port"
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, world, is_master=True, wait_for_workers=False)
        (folder / "port.new").write_text(str(store.port))
        (folder / "port.new").rename(address)
    else:
        while not address.exists():
            os.sched_yield()
        store = dist.TCPStore("127.0.0.1", int(address.read_text()), world)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    device = torch.device("cuda", rank) if backend == "nccl" else None
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, device_id=device)


def run(rank: int) -> None:
    backend, module, function, world, folder, *arguments = sys.argv[1:]
    join(backend, rank, int(world), Path(folder))
    result = getattr(importlib.import_module(module), function)(rank, int(world), *arguments)
    (Path(folder) / f"rank-{rank}.json").write_text(json.dumps(result))


ranks = range(int(sys.argv[4]))
children: dict[int, int] = {}
for rank in ranks:
    child = os.fork()
    if child == 0:
        run(rank)
        sys.exit()  # through the whole exit: a rank that cannot end shows
    children[child] = rank
stopped = set()
while children:
    pid, status = os.waitpid(-1, os.WUNTRACED | os.WCONTINUED)
    if os.WIFSTOPPED(status):
        stopped.add(pid)
    elif os.WIFCONTINUED(status):
        stopped.discard(pid)
    else:
        if os.WEXITSTATUS(status):
            print(f"rank {children[pid]} failed", flush=True)
        del children[pid]
    if set(children) == stopped:  # nobody is left who could continue them
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
        stopped.clear()
