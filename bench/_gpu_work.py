"""
Trainings for the GPU benches; each runs one step at a time and returns scalars on the device.

* `eager`: an MLP with about a hundred launches per step, so that the CPU limits it;
* `graph`: the same MLP, with the whole step captured into a CUDA graph and replayed; the scalars
  are in one static tensor that each replay overwrites;
* `gpt`: a small transformer, eager.

If this process is one of several ranks, DDP wraps the model; a graph cannot be captured then.

The eager trainings also run on a CPU (`--device cpu`), to try a script out. Their figures are
meaningless there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.nn.parallel import DistributedDataParallel

Scalars: TypeAlias = Mapping[str, Tensor]
"""0-d tensors of 32-bit floats on the device, by name."""

WORKLOADS: Final = ("eager", "graph", "gpt")
MOST_SCALARS: Final = 64

_WIDTH: Final = 256
_BATCH: Final = 256
_DEPTH: Final = 10
_WARM_UP: Final = 11
"""Steps before a capture, which CUDA graphs need, and before any measurement."""


class Workload(ABC):
    """A training that has been warmed up."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @abstractmethod
    def step(self) -> Scalars:
        """Launch one step and return its scalars, without waiting for the device."""

    def synchronize(self) -> None:
        """Wait until the device has finished all steps."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def make_workload(name: str, scalars: int, scale: float, device: torch.device) -> Workload:
    """
    Build a workload that returns `scalars` scalars per step, and warm it up.

    `scale` multiplies the number of layers, and so, roughly, the duration of a step. Raises
    ValueError for a graph without CUDA.
    """
    torch.manual_seed(0)
    if device.type == "cpu":
        torch.set_num_threads(1)
    layers = max(1, round((4 if name == "gpt" else _DEPTH) * scale))
    training = _Gpt(layers, device) if name == "gpt" else _Mlp(layers, device)
    if name == "graph":
        if device.type != "cuda":
            raise ValueError(f"the workload 'graph' needs a CUDA device, not {device}")
        return _Captured(training, scalars)
    return _Eager(training, scalars)


class _Training(ABC):
    """A model with its data and optimizer."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = model.to(device)
        if dist.is_initialized():
            self.model = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        self.device = device
        cuda = device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-4, foreach=True, capturable=cuda
        )

    @abstractmethod
    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the outputs, with at least `MOST_SCALARS` columns, and the loss."""

    def update(self, scalars: int) -> Tensor:
        """Train one step and return its scalars, the loss first, in a new 1-d tensor."""
        self._optimizer.zero_grad(set_to_none=True)
        outputs, loss = self.forward()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        columns = outputs.detach()[:, : scalars - 1].float()
        return torch.cat((loss.detach().float().reshape(1), columns.abs().mean(0)))


class _Mlp(_Training):
    def __init__(self, layers: int, device: torch.device) -> None:
        inner = [part for _ in range(layers - 1) for part in (nn.Linear(_WIDTH, _WIDTH), nn.ReLU())]
        super().__init__(nn.Sequential(*inner, nn.Linear(_WIDTH, MOST_SCALARS)), device)
        self._inputs = torch.randn(_BATCH, _WIDTH, device=device)
        self._targets = torch.randint(MOST_SCALARS, (_BATCH,), device=device)

    def forward(self) -> tuple[Tensor, Tensor]:
        outputs = self.model(self._inputs)
        return outputs, cross_entropy(outputs, self._targets)


class _Gpt(_Training):
    _BATCH: Final = 8
    _LENGTH: Final = 128
    _VOCABULARY: Final = 512

    def __init__(self, layers: int, device: torch.device) -> None:
        super().__init__(_Transformer(layers, self._LENGTH, self._VOCABULARY), device)
        shape = (self._BATCH, self._LENGTH + 1)
        self._tokens = torch.randint(self._VOCABULARY, shape, device=device)

    def forward(self) -> tuple[Tensor, Tensor]:
        outputs = self.model(self._tokens[:, :-1]).flatten(0, 1)
        return outputs, cross_entropy(outputs, self._tokens[:, 1:].flatten())


class _Transformer(nn.Module):
    """A decoder with learned positions."""

    def __init__(self, layers: int, length: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, _WIDTH)
        self.positions = nn.Parameter(torch.zeros(length, _WIDTH))
        self.blocks = nn.Sequential(*(_Block() for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, vocabulary))

    def forward(self, tokens: Tensor) -> Any:
        return self.head(self.blocks(self.tokens(tokens) + self.positions))


class _Block(nn.Module):
    _HEADS: Final = 8

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(_WIDTH)
        self.mix = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.out = nn.Linear(_WIDTH, _WIDTH)
        self.think = nn.Sequential(
            nn.LayerNorm(_WIDTH),
            nn.Linear(_WIDTH, 4 * _WIDTH),
            nn.GELU(),
            nn.Linear(4 * _WIDTH, _WIDTH),
        )

    def forward(self, states: Tensor) -> Any:
        mixed = self.mix(self.before(states)).unflatten(-1, (3, self._HEADS, -1))
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.out(seen.transpose(1, 2).flatten(2))
        return states + self.think(states)


def _names(count: int) -> tuple[str, ...]:
    return ("loss", *(f"metric_{number}" for number in range(1, count)))


class _Eager(Workload):
    def __init__(self, training: _Training, scalars: int) -> None:
        super().__init__(training.device)
        self._training = training
        self._names = _names(scalars)
        for _ in range(_WARM_UP):
            self.step()
        self.synchronize()

    def step(self) -> Scalars:
        values = self._training.update(len(self._names))
        return dict(zip(self._names, values.unbind(), strict=True))


class _Captured(Workload):
    def __init__(self, training: _Training, scalars: int) -> None:
        super().__init__(training.device)
        beside = torch.cuda.Stream(training.device)  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream(training.device))
        with torch.cuda.stream(beside):  # a capture needs its warm-up on another stream
            for _ in range(_WARM_UP):
                training.update(scalars)
        torch.cuda.current_stream(training.device).wait_stream(beside)
        self._training = training  # the graph uses its memory
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            values = training.update(scalars)
        self._scalars = dict(zip(_names(scalars), values.unbind(), strict=True))
        for _ in range(_WARM_UP):
            self.step()
        self.synchronize()

    def step(self) -> Scalars:
        self._graph.replay()
        return self._scalars
