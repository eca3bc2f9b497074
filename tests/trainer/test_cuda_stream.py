"""The choice of the stream, without a GPU; that it is used on one is shown in `test_gpu.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from asynccb.trainer.cuda_stream import OwnStream

CUDA = torch.device("cuda", 0)


class Stream:
    """A stream in the place of CUDA's: a name, and what it waited for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waited: list[str] = []

    def wait_stream(self, other: Stream) -> None:
        self.waited.append(other.name)


class Device:
    """The streams of a device, in the place of `torch.cuda`."""

    def __init__(self) -> None:
        self.made: list[Stream] = []
        self.default = self.current = Stream("default")

    def Stream(self, device: torch.device) -> Stream:  # noqa: N802
        self.made.append(Stream(f"own {device}"))
        return self.made[-1]

    def current_stream(self, device: torch.device) -> Stream:
        return self.current

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before


def test_work_on_a_gpu_is_sent_to_a_stream_of_its_own() -> None:
    device = Device()
    own = OwnStream(CUDA, device)
    with own():
        assert device.current.name == "own cuda:0"
    with own():
        assert device.current is device.made[0]
    assert device.current is device.default
    assert len(device.made) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_the_stream_waits_for_earlier_work_and_later_work_for_the_stream(fails: bool) -> None:
    device = Device()
    own = OwnStream(CUDA, device)
    with pytest.raises(ZeroDivisionError) if fails else nullcontext(), own():
        assert device.made[0].waited == ["default"]
        assert device.default.waited == []
        if fails:
            raise ZeroDivisionError
    assert device.default.waited == ["own cuda:0"]
    assert device.current is device.default


def test_an_evaluation_within_a_training_uses_the_stream_of_the_training() -> None:
    device = Device()
    own = OwnStream(CUDA, device)
    with own(), own():
        assert device.current is device.made[0]


def test_there_is_no_stream_without_a_gpu() -> None:
    device = Device()
    with OwnStream(torch.device("cpu"), device)():
        assert device.current is device.default
    assert device.made == []
