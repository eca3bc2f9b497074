"""Tensors as libraries wrap them, for the tests on the host and on a device."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.utils._pytree import tree_map_only

from asynccb import CallbackDispatcher


class Wrapper(torch.Tensor):
    """A tensor without data of its own, around another; each operation is that of the other."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapper:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=torch.float32, device=inner.device
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = tree_map_only(cls, lambda tensor: tensor.inner, (args, kwargs or {}))
        return func(*given[0], **given[1])


class Quantized(Wrapper):
    """One like torchao's: integers and a scale, and few operations."""

    def dequantize(self) -> torch.Tensor:  # type: ignore[override]
        return self.inner * 0.5

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        raise NotImplementedError(f"Quantized has no {func}")


class Unreadable(Quantized):
    """One that tells nobody its value."""

    dequantize = torch.Tensor.dequantize  # type: ignore[assignment]


class Marked(torch.Tensor):
    """One with data, whose functions are its own, as those of images are."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.__name__ in {"reshape", "tolist", "detach"}:
            raise ValueError("not for images")
        return super().__torch_function__(func, types, args, kwargs)


def wrapped(device: str) -> dict[str, torch.Tensor]:
    """Return tensors of each kind whose value is 3."""
    three = torch.tensor(3.0, device=device)
    tensors = {
        "parameter": nn.Parameter(three),
        "row of one": nn.Parameter(three.reshape(1)),
        "wrapper": Wrapper(three),
        "wrapped twice": Wrapper(nn.Parameter(three)),
        "quantized": Quantized(torch.tensor(6, dtype=torch.int8, device=device)),
        "of its own functions": three.clone().as_subclass(Marked),
        "sparse": three.to_sparse(),
    }
    dtypes = (
        "float8_e4m3fn",
        "float8_e5m2",
        "uint16",
        "uint32",
        "uint64",
        "int8",
        "int16",
        "uint8",
    )
    tensors |= {name: three.to(getattr(torch, name)) for name in dtypes}
    if hasattr(torch, "float8_e8m0fnu"):  # which has powers of two only
        tensors["float8_e8m0fnu"] = torch.tensor(4.0, device=device).to(torch.float8_e8m0fnu)
    return tensors


EXACT = {"float8_e8m0fnu": 4.0}
"""The values that are not 3."""


def transformed(run: CallbackDispatcher, device: str) -> None:
    """Log 14 four times and a batch, all as `loss`, from inside of transforms of functions."""

    def loss(x: torch.Tensor) -> torch.Tensor:
        value = (x * x).sum()
        run.step(logs={"loss": value})
        return value

    x = torch.tensor([1.0, 2.0, 3.0], device=device)
    torch.func.grad(loss)(x)
    torch.func.functionalize(loss)(x)
    torch.func.jvp(loss, (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        loss(torch.autograd.forward_ad.make_dual(x, x))
    torch.func.vmap(loss)(torch.stack([x, x]))


def distributed_logs(device: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return distributed values in which a rank has all, and others that depend on the ranks."""
    world = dist.get_world_size()
    mesh = init_device_mesh(device, (world,))
    model = nn.Linear(4, 4, device=device)
    with torch.no_grad():
        model.weight.fill_(0.5)
        model.bias.fill_(0.0)
    fully_shard(model, mesh=mesh)
    model(torch.ones(2, 4, device=device)).sum().backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    value = torch.tensor(3.0, device=device)
    return (
        {
            "grad_norm": norm.full_tensor() if isinstance(norm, DTensor) else norm,
            "replicated": DTensor.from_local(value, mesh, [Replicate()], run_check=False),
        },
        {
            "norm as it is": norm,
            "partial": DTensor.from_local(value, mesh, [Partial()], run_check=False),
            "sharded": DTensor.from_local(value.reshape(1), mesh, [Shard(0)], run_check=False),
        },
    )


def log_on_ranks(rank: int, world: int, directory: str) -> dict[str, Any]:
    """Log what a rank has all of, and on the first rank alone what it has a part of."""
    said: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logging.getLogger("asynccb").addHandler(Listening())
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    run = CallbackDispatcher([], directory=f"{directory}/{rank}")
    run.emit("on_train_begin")
    whole, parts = distributed_logs(device)
    run.step(logs=whole)
    if not rank:  # a collective would wait for the other rank
        for _ in range(2):
            run.step(logs=parts)
    dist.barrier()
    run.settle()
    history = [dict(entry) for entry in run.state.log_history]
    run.close()
    return {"history": history, "said": said}
