"""Tensors that are not plain ones: their number, or a word on what to log."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from asynccb import CallbackDispatcher
from tests.distributed.ranks import torchrun_ranks
from tests.staging.wrapped import EXACT, Unreadable, distributed_logs, transformed, wrapped
from tests.support.callbacks_for_tests import InCompanion

FULL = pytest.approx(
    11.3137085
)  # sixteen gradients of a weight and four of a bias, all 2: see below


@pytest.fixture
def run(tmp_path: Path) -> Iterator[CallbackDispatcher]:
    with CallbackDispatcher([], directory=tmp_path) as run:
        yield run


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def last(run: CallbackDispatcher) -> dict[str, Any]:
    return {key: value for key, value in run.state.log_history[-1].items() if key != "step"}


@pytest.mark.parametrize("name", list(wrapped("cpu")))
def test_a_tensor_of_any_class_dtype_and_layout_is_logged_as_its_number(
    run: CallbackDispatcher, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    run.step(logs={name: wrapped("cpu")[name]})
    assert last(run) == {name: EXACT.get(name, 3)}
    assert not caplog.records


@pytest.mark.usefixtures("one_rank")
def test_the_norm_of_fsdp_and_all_that_one_rank_has_is_logged_as_its_number(
    run: CallbackDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    whole, parts = distributed_logs("cpu")
    run.step(logs=whole | parts)
    seen = last(run)
    assert seen.pop("norm as it is") == seen.pop("grad_norm") == pytest.approx(80**0.5)
    assert seen == {"replicated": 3.0, "partial": 3.0, "sharded": 3.0}
    assert not caplog.records


@pytest.mark.usefixtures("one_rank")
def test_a_result_of_a_collective_that_is_on_its_way_is_waited_for(run: CallbackDispatcher) -> None:
    from torch.distributed._functional_collectives import AsyncCollectiveTensor, all_reduce

    reduced = all_reduce(torch.tensor(3.0), "sum", dist.group.WORLD)
    assert isinstance(reduced, AsyncCollectiveTensor)
    run.step(logs={"loss": reduced})
    assert last(run) == {"loss": 3.0}


def test_a_part_of_a_value_is_refused_by_name_without_a_word_to_other_ranks(tmp_path: Path) -> None:
    ranks = torchrun_ranks(tmp_path, "tests.staging.wrapped.log_on_ranks", tmp_path)
    for rank in ranks:
        first = rank["history"][0]
        assert first == {"grad_norm": pytest.approx(80**0.5), "replicated": 3.0, "step": 1}
    (_, *others), said = ranks[0]["history"], ranks[0]["said"]
    for entry in others:
        assert entry["partial"] == entry["sharded"] == "<DTensor>"
    for name in ("partial", "sharded"):
        (warned,) = [message for message in said if message.startswith(f"'{name}'")]
        assert "call its full_tensor() on all ranks, and log the result" in warned
    assert len(ranks[1]["history"]) == 1
    assert not ranks[1]["said"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.func uses it
def test_a_value_inside_of_a_transform_is_logged_unless_it_is_a_batch_of_them(
    run: CallbackDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    transformed(run, "cpu")
    assert [entry["loss"] for entry in run.state.log_history] == [*[14.0] * 4, "<Tensor>"]
    (record,) = caplog.records
    assert "'loss' was logged with a Tensor: it stands for all values" in record.getMessage()


@pytest.mark.parametrize(
    "value",
    [
        Unreadable(torch.tensor(3.0)),
        torch.empty((), device="meta"),
        torch.tensor(1, dtype=torch.uint8).view(torch.bits8),
        torch.nn.parameter.UninitializedParameter(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_tensor_that_nobody_can_read_goes_on_as_text(
    run: CallbackDispatcher, caplog: pytest.LogCaptureFixture, value: torch.Tensor
) -> None:
    for _ in range(2):
        run.step(logs={"odd": value, "deep": {"er": [value]}})
        run.emit("on_evaluate", metrics={"odd": value})
    assert last(run)["odd"] == f"<{type(value).__name__}>"
    assert len([record for record in caplog.records if "'odd'" in record.getMessage()]) == 1


DIRECT = {torch.float64, torch.float32, torch.int64, torch.int16, torch.int8, torch.uint8}
SLOTS = {True: torch.float64, False: torch.int64}
"""Dtypes of the slots, by whether they hold floats."""


@pytest.mark.parametrize("name", list(wrapped("cpu")))
def test_what_is_made_ready_for_slots_has_the_value_and_a_dtype_of_every_device(name: str) -> None:
    from asynccb._staging.unwrapping import _copied, for_slots, unwrap

    plain = unwrap(wrapped("cpu")[name]).detach()
    if type(plain) is not torch.Tensor:  # one of a device is copied; one of the host reads itself
        plain = _copied(plain)
    ready = for_slots(plain)
    assert type(ready) is torch.Tensor
    assert ready.dtype in DIRECT
    slot = torch.zeros(ready.shape, dtype=SLOTS[ready.dtype.is_floating_point])
    torch._foreach_copy_([slot], [ready])
    assert slot.item() == EXACT.get(name, 3)


def test_a_large_integer_without_sign_does_not_become_negative_in_a_slot() -> None:
    from asynccb._staging.unwrapping import for_slots

    assert for_slots(torch.tensor(2**64 - 1, dtype=torch.uint64)).item() == 2.0**64


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128, torch.complex32])
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_a_complex_value_has_no_slot(dtype: torch.dtype) -> None:
    from asynccb._staging.unwrapping import NoNumberError, for_slots

    with pytest.raises(NoNumberError, match="a complex value of a device is no number"):
        for_slots(torch.ones((), dtype=dtype))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_slots_are_written_inside_of_transforms_as_outside() -> None:
    from asynccb._staging.unwrapping import outside_transforms, unwrap

    seen = []

    def loss(x: torch.Tensor) -> torch.Tensor:
        value = (x * x).sum()
        plain = unwrap(value)
        with outside_transforms():
            slot = torch.zeros((), dtype=torch.float64)
            torch._foreach_copy_([slot], [plain.detach()])
        seen.append(slot)
        return value

    x = torch.tensor([1.0, 2.0, 3.0])
    torch.func.grad(loss)(x)
    torch.func.hessian(loss)(x)
    torch.func.functionalize(loss)(x)
    with torch.autograd.forward_ad.dual_level():
        loss(torch.autograd.forward_ad.make_dual(x, x))
    assert [slot.item() for slot in seen] == [14.0] * len(seen)


class Batch(MutableMapping[str, Any]):
    """Tensors by name that know a shape and a device of their own, as a TensorDict does."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.tensors = tensors
        self.batch_size = torch.Size([])
        self.device = torch.device("cpu")
        self.is_cuda = False
        self.ndim = 0

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def __setitem__(self, name: str, tensor: torch.Tensor) -> None:
        self.tensors[name] = tensor

    def __delitem__(self, name: str) -> None:
        del self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def test_a_dict_of_tensors_is_logged_as_a_dict_of_numbers(run: CallbackDispatcher) -> None:
    run.step(logs={"batch": Batch(a=torch.tensor(1.0), b=wrapped("cpu")["quantized"])})
    assert last(run) == {"batch": {"a": 1.0, "b": 3.0}}
    run.log(Batch(a=torch.tensor(1.0)))
    assert last(run) == {"a": 1.0}


class Hostile:
    """A value that raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


@pytest.mark.parametrize("event", ["on_log", "on_evaluate", "on_step_end"])
def test_a_value_that_raises_at_every_question_ends_no_training(tmp_path: Path, event: str) -> None:
    callback = InCompanion(tmp_path / "seen")
    with CallbackDispatcher([callback], directory=tmp_path / "run") as run:
        run.step(logs={"loss": Hostile()})
        run.emit(
            event,
            **{"on_log": {"logs": {"x": Hostile()}}}.get(event, {"metrics": {"x": Hostile()}}),
        )
        run.emit(event, other=Hostile(), several=[Unreadable(torch.tensor(1.0))])
    assert last(run) == {"loss": "<Hostile>"}
