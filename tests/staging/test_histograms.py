"""Histograms that are counted where the tensors lie."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from asynccb._staging.histograms import BINS, can_count, histograms, row

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
_ROUNDING = 1e-6


@given(
    st.one_of(
        st.lists(numbers, min_size=1, max_size=200)
        for numbers in (finite, st.floats(-1e4, 1e4, width=32), st.floats(0, 2**-126, width=32))
    )
)
def test_a_row_is_the_range_and_how_many_values_are_in_each_bin(values: list[float]) -> None:
    least, most, *counts = row(torch.tensor(values)).tolist()
    assert (least, most) == (min(values), max(values))
    assert sum(counts) == len(values)
    if most == least:
        return
    places = [(value - least) / (most - least) for value in values]  # of 64 bits
    for bins, below in enumerate(accumulate(counts[:-1]), 1):
        border = bins / BINS
        # A value on the border of two bins may be rounded into either.
        surely = sum(place < border - _ROUNDING for place in places)
        assert surely <= below <= sum(place < border + _ROUNDING for place in places)


def test_counts_on_known_borders() -> None:
    values = torch.arange(0, 65, dtype=torch.float32)
    assert row(values).tolist() == [0.0, 64.0, *[1.0] * 63, 2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_counted_too(dtype: torch.dtype) -> None:
    least, most, *counts = row(torch.tensor([[0.0, 1.0], [1.0, 0.5]], dtype=dtype)).tolist()
    assert (least, most, sum(counts)) == (0.0, 1.0, 4.0)


def test_nan_and_infinity_are_counted_in_no_bin() -> None:
    values = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0, 3.0])
    least, most, *counts = row(values).tolist()
    assert (least, most, sum(counts)) == (1.0, 3.0, 2.0)
    least, most, *counts = row(values[:3]).tolist()
    assert least > most
    assert sum(counts) == 0.0


def test_deterministic_algorithms_count_the_same() -> None:
    values = torch.randn(10_000)
    usual = row(values)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(row(values), usual)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_model_has_a_row_for_each_tensor_that_is_wanted() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Embedding(4, 2, sparse=True))
    model[0].bias.requires_grad_(False)
    (model[0](torch.ones(1, 3)).sum() + model[1](torch.tensor([1])).sum()).backward()
    names = [name for name, _ in histograms(model, gradients=True, parameters=False)]
    assert names == ["gradients/0.weight"]  # a sparse gradient is left out
    names = [name for name, _ in histograms(model, gradients=False, parameters=True)]
    assert names == ["parameters/0.weight", "parameters/0.bias", "parameters/1.weight"]
    assert can_count()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_counting_on_a_device_never_waits_for_it() -> None:
    from asynccb.testing import no_sync

    model = nn.Linear(512, 512, device="cuda")
    model(torch.ones(8, 512, device="cuda")).sum().backward()
    with no_sync():
        found = dict(histograms(model, gradients=True, parameters=True))
    assert all(made.is_cuda and made.shape == (BINS + 2,) for made in found.values())
    expected = row(model.weight.cpu())
    assert torch.allclose(found["parameters/weight"].cpu()[:2], expected[:2])
    assert found["parameters/weight"][2:].sum().item() == model.weight.numel()
