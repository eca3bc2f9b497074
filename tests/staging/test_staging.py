"""From what is logged to plain values."""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from asynccb._ring.slots import Slots
from asynccb._staging.staging import LONGEST, Staging


@pytest.fixture
def staging() -> Staging:
    return Staging(Slots, lambda: 0, "block")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (torch.tensor(0.5), 0.5),
        (torch.tensor([0.5]), 0.5),
        (torch.tensor([[0.5]]), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor(0.5, dtype=torch.float16), 0.5),
        (torch.tensor(3), 3),
        (torch.tensor(True), True),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0]),
        (torch.tensor([], dtype=torch.float32), []),
        (torch.tensor([1.0, 2.0], requires_grad=True), [1.0, 2.0]),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        (np.longdouble(0.5), 0.5),
        (np.array([0.5, 2], np.longdouble), [0.5, 2.0]),
        ((1, torch.tensor(2)), [1, 2]),
        ({"deep": torch.tensor(2)}, {"deep": 2}),
    ],
)
def test_tensors_and_arrays_become_numbers(staging: Staging, value: object, plain: object) -> None:
    result = staging.plain({"key": value})["key"]
    assert result == plain
    assert type(result) is type(plain)
    assert staging.odd == 0


def test_plain_logs_come_back_as_the_same_dict(staging: Staging) -> None:
    logs = {"a": 1, "b": 0.5, "c": "x", "d": True, "e": None}
    assert staging.plain(logs) is logs


def test_the_users_dict_is_not_changed(staging: Staging) -> None:
    loss = torch.tensor(0.5)
    logs = {"loss": loss}
    staging.plain(logs)
    assert logs == {"loss": loss}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_stay_what_they_are(staging: Staging, value: float) -> None:
    logs = {"a": value, "b": torch.tensor(value)}
    first, second = staging.plain(logs).values()
    assert repr(first) == repr(second) == repr(value)


def test_integers_that_no_record_can_hold_become_floats_and_huge_ones_text(
    staging: Staging,
) -> None:
    logs = {"small": 2**64 - 1, "big": 2**64, "negative": -(2**63) - 1, "huge": 10**400}
    plain = staging.plain(logs)
    assert plain == {
        "small": 2**64 - 1,
        "big": 2.0**64,
        "negative": -(2.0**63),
        "huge": str(10**400),
    }
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plain)) == plain


def test_subclasses_of_plain_types_become_plain(staging: Staging) -> None:
    class Metres(float): ...

    class Name(str):
        __slots__ = ()

    plain = staging.plain({"a": Metres(2.0), "b": Name("x")})
    assert plain == {"a": 2.0, "b": "x"}
    assert [type(value) for value in plain.values()] == [float, str]


def test_keys_become_text(staging: Staging) -> None:
    assert staging.plain({1: torch.tensor(2)}) == {"1": 2}  # type: ignore[dict-item]


def test_plain_values_under_keys_that_are_no_text_get_text_keys_too(staging: Staging) -> None:
    assert staging.plain({1: 2.0}) == {"1": 2.0}  # type: ignore[dict-item]


class Unreadable:
    def __str__(self) -> str:
        raise ZeroDivisionError


CIRCULAR: dict[str, Any] = {}
CIRCULAR["itself"] = CIRCULAR


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(2, 3), "<Tensor of shape (2, 3)>"),
        (np.zeros((2, 3)), "<ndarray of shape (2, 3)>"),
        (torch.zeros(LONGEST + 1), f"<Tensor of shape ({LONGEST + 1},)>"),
        (1 + 2j, "(1+2j)"),
        (10**5000, "<int>"),
        (torch.empty(1, device="meta"), "<Tensor>"),
        (Unreadable(), "<Unreadable>"),
        (CIRCULAR, "<dict>"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_metric_goes_on_as_text_and_is_counted(
    staging: Staging, caplog: pytest.LogCaptureFixture, value: object, text: str
) -> None:
    assert staging.plain({"key": value}) == {"key": text}
    assert staging.odd == 1
    assert f"'key' was logged with a {type(value).__name__}" in caplog.text


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        (np.zeros((2, 3)), "log its mean, its norm or some of its quantiles"),
        (torch.zeros(LONGEST + 1), "log its mean, its norm or some of its quantiles"),
        (Figure(), "no tracker takes figures or images from a log; give a SummaryWriter to Tens"),
        (Image.new("L", (2, 2)), "no tracker takes figures or images from a log; give a Summary"),
        (object(), "log the number that matters, as a float"),
    ],
    ids=["array", "tensor", "figure", "image", "object"],
)
def test_the_warning_says_what_to_do_instead(
    staging: Staging, caplog: pytest.LogCaptureFixture, value: object, instead: str
) -> None:
    for _ in range(2):
        staging.plain({"key": value})
    (record,) = caplog.records
    assert f"Instead: {instead}" in record.getMessage()


def test_a_warning_is_given_once_per_key_and_every_value_is_counted(
    staging: Staging, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        staging.plain({"a": object(), "b": object()})
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [message.split()[0] for message in warned] == ["'a'", "'b'"]
    assert staging.odd == 6


def test_the_warning_is_readable(staging: Staging, caplog: pytest.LogCaptureFixture) -> None:
    staging.plain({"a": object()})
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert '"' not in record.getMessage()
    assert "it goes on as text (said once per key)" in record.getMessage()
