"""The test kit, where there is no device."""

from __future__ import annotations

import pytest
import torch

import asynccb
from asynccb.testing import no_sync


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/test_gpu.py has the other half")
def test_no_sync_is_refused_where_nothing_could_fail() -> None:
    with pytest.raises(asynccb.ConfigurationError, match="no CUDA device"), no_sync():
        pass
