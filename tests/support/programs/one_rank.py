"""Run a function as the rank that torchrun made: BACKEND MODULE FUNCTION FOLDER [...]."""

import importlib
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

backend, module, function, folder, *arguments = sys.argv[1:]
rank = int(os.environ["RANK"])
device = torch.device("cuda", rank) if backend == "nccl" else None
if device is not None:
    torch.cuda.set_device(device)
dist.init_process_group(backend, device_id=device)
result = getattr(importlib.import_module(module), function)(rank, dist.get_world_size(), *arguments)
(Path(folder) / f"rank-{rank}.json").write_text(json.dumps(result))
dist.destroy_process_group()
