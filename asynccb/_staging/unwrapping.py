"""
Tensors that only look like one: the plain tensor inside of a subclass or a wrapper.

Promises: nothing waits for a device, and no rank waits for another: a value that only a collective
could tell is refused, with what to log in its place. Nothing is imported for a library's tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import forward_ad

_torch: Final[Any] = torch
_hidden: Final = torch._C._DisableFuncTorch
_functorch: Final[Any] = torch._C._functorch
_DEEPEST: Final = 16
"""Most layers to look through; a tensor that is its own inner one has no end."""
_COPIED: Final = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    }
)
"""Dtypes that `torch._foreach_copy_` takes into slots on every device and in every version."""

_CONVERTED: Final = frozenset(
    found
    for name in (
        *("uint16", "uint32", "uint64"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if (found := getattr(torch, name, None)) is not None
)
"""Dtypes that are converted on the device first; an old version of torch lacks some of them."""


class NoNumberError(Exception):
    """A tensor's number cannot be had here; the message says why, and what to log."""


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Hide what is done from `torch.func`'s transforms and from forward-mode gradients."""
    with _hidden(), forward_ad._set_fwd_grad_enabled(False):
        yield


def unwrap(tensor: Tensor) -> Tensor:
    """
    Return the plain tensor that holds the value.

    A tensor of the host whose class computes everything itself is returned as it is. Raises
    `NoNumberError`, and whatever the code of a subclass raises.
    """
    with torch.no_grad(), _hidden():
        for _ in range(_DEEPEST):
            inner = _inner(tensor)
            if inner is tensor:
                return tensor
            tensor = inner
    raise NoNumberError("it is wrapped too often; log the number itself")


def for_slots(tensor: Tensor) -> Tensor:
    """Return a plain tensor of a device in a dtype that can be copied to slots."""
    dtype = tensor.dtype
    if dtype in _COPIED:
        return tensor
    if dtype.is_complex:
        raise NoNumberError("a complex value of a device is no number; log its .real or its .abs()")
    if dtype not in _CONVERTED:
        # The kernels of some other dtypes (bits8, say) fail on the device itself, and with them
        # everything that the process does there.
        raise NoNumberError(f"its dtype is {dtype}, which no slot can hold; convert it first")
    with torch.no_grad(), _hidden():
        # float64 holds every float8, and rounds a large uint64, which int64 would make negative.
        whole = dtype in (torch.uint16, torch.uint32)
        return tensor.to(torch.int64 if whole else torch.float64)


def _inner(tensor: Tensor) -> Tensor:
    """Look through one layer; return the same tensor if it is plain."""
    if _functorch.is_functorch_wrapped_tensor(tensor):  # these are of class `Tensor`
        return _from_transform(tensor)
    kind = type(tensor)
    if kind is Tensor:
        if tensor.is_quantized:
            return tensor.dequantize()
        return tensor if tensor.layout is torch.strided else tensor.to_dense()
    if kind.__torch_dispatch__ is Tensor.__torch_dispatch__:  # data like that of a plain tensor
        with torch._C.DisableTorchFunctionSubclass():
            return Tensor.as_subclass(tensor, Tensor)
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is not None and isinstance(tensor, distributed.DTensor):
        return _whole(tensor)
    if (wait := getattr(kind, "trigger_wait", None)) is not None:  # the result of a collective
        return wait(tensor)  # type: ignore[no-any-return]  # that this rank has joined already
    if kind.dequantize is not Tensor.dequantize:  # torchao's
        return tensor.dequantize()
    return _copied(tensor) if tensor.is_cuda else tensor


def _from_transform(tensor: Tensor) -> Tensor:
    """Take a tensor out of the wrapper of a transform of `torch.func`."""
    if _functorch.is_functionaltensor(tensor):
        _torch._sync(tensor)
        return _torch._from_functional_tensor(tensor)  # type: ignore[no-any-return]
    if _functorch.is_gradtrackingtensor(tensor):
        return _functorch.get_unwrapped(tensor)  # type: ignore[no-any-return]
    raise NoNumberError(
        "it stands for all values of a batch inside of vmap; return it, and log it outside"
    )


def _whole(tensor: Any) -> Tensor:
    """Return a distributed tensor's value, if this rank has all of it."""
    mesh, placements = tensor.device_mesh, tensor.placements
    parts = any(
        not placement.is_replicate() and mesh.size(dimension) > 1
        for dimension, placement in enumerate(placements)
    )
    if parts or mesh.get_coordinate() is None:
        raise NoNumberError(
            f"its placements are {placements}, and this rank has only a part of it; call its "
            "full_tensor() on all ranks, and log the result"
        )
    return tensor.to_local()  # type: ignore[no-any-return]


def _copied(tensor: Tensor) -> Tensor:
    """Have the subclass itself copy its value to a plain tensor of the same device."""
    plain = torch.zeros(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    plain.copy_(tensor)
    return plain
