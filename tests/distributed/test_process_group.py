"""Two ranks under `torchrun` with gloo: the same run as on one, told once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from asynccb._ground.exceptions import ConfigurationError
from asynccb.distributed import process_group as distributed
from tests.distributed.distributed_run import EVALUATED, SETTINGS, TRAINED
from tests.distributed.ranks import torchrun
from tests.support.regression import Line, Model, history, train, weights

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks ran."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(HERE / "distributed_run.py", str(folder))
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    """What the two ranks saw."""
    return [json.loads((folder / f"rank-{rank}.json").read_text())["noisy"] for rank in range(2)]


def test_all_ranks_end_with_the_same_weights_and_history(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["history"] == ranks[1]["history"]


def test_all_ranks_see_the_same_events(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["events"] == ranks[1]["events"]
    assert ranks[0]["events"].count("on_prediction_step") == 3 * 3


def test_two_ranks_learn_what_one_with_twice_the_batch_learns(tmp_path: Path, folder: Path) -> None:
    two = json.loads((folder / "rank-0.json").read_text())["plain"]
    data = {"train_dataset": Line(64), "eval_dataset": Line(EVALUATED, seed=1)}
    one = train(tmp_path, given=data, **SETTINGS | {"per_device_train_batch_size": 4})
    assert {name: float(w) for name, w in weights(one).items()} == pytest.approx(two["weights"])
    for ours, theirs in zip(history(one), two["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_evaluation_over_ranks_counts_each_sample_once_and_in_order(
    ranks: list[dict[str, Any]],
) -> None:
    data = Line(EVALUATED, seed=1)
    for rank in ranks:
        line = rank["weights"]["a"] * data.x + rank["weights"]["b"]
        assert rank["predictions"] == pytest.approx(line.tolist(), rel=1e-5)
        assert rank["labels"] == data.y.tolist()
        assert rank["loss"] == pytest.approx(float(((line - data.y) ** 2).mean()), rel=1e-5)


def test_a_run_of_two_ranks_resumes_bit_by_bit(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["resumed"]["weights"] == rank["weights"]
        assert rank["resumed"]["history"] == rank["history"]


def test_one_rank_goes_on_where_two_with_the_same_batches_have_been(
    tmp_path: Path, folder: Path
) -> None:
    data = {"train_dataset": Line(TRAINED), "eval_dataset": Line(EVALUATED, seed=1)}
    one = train(tmp_path, given=data, resume=folder / "noisy" / "checkpoint-5", **SETTINGS)
    # 40 samples were seen: 11 batches of two are left of the epoch, and 31 make the next.
    assert one.state.global_step == 5 + 6 + 16
    assert one.state.epoch == 2


def test_a_checkpoint_is_written_once_with_a_random_state_for_each_rank(folder: Path) -> None:
    run = folder / "noisy"
    assert TRAINED > 2 * EVALUATED  # so that there are two checkpoints and a last one
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoint-10",
        "checkpoint-15",
        "checkpoint-16",
        "checkpoint-5",
    ]
    own = {path.name for path in (run / "checkpoint-5").iterdir() if "_0." in path.name}
    assert own == {"rng_state_0.pth", "loop_0.pt"}
    assert (run / "checkpoint-5" / "rng_state_1.pth").is_file()


def test_a_rank_that_fails_ends_the_run_instead_of_hanging_it(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text(
        "from pathlib import Path\n"
        "from asynccb import distributed\n"
        "from tests.support.regression import Recorder, train\n"
        "def fail(state, control):\n"
        "    assert state.global_step < 2 or distributed.rank() == 0, 'rank 1 is out of paper'\n"
        f"train(Path({str(tmp_path)!r}), Recorder(on_step_end=fail), logging_steps=1)\n"
    )
    with pytest.raises(AssertionError, match="rank 1 is out of paper"):
        torchrun(script)


def test_alone_nothing_is_exchanged() -> None:
    value = torch.tensor(3.0)
    assert distributed.mean(value) is value
    assert distributed.total(value) is value
    assert distributed.gather("mine") == ["mine"]
    distributed.barrier()
    assert distributed.join(torch.device("cpu")) is False


def test_a_rank_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ConfigurationError, match="RANK is 'first'"):
        distributed.rank()


def test_a_backend_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="no distributed backend 'smoke-signals'"):
        distributed.join(torch.device("cpu"), "smoke-signals")


def test_the_model_that_takes_part_is_saved_without_its_wrapper(folder: Path) -> None:
    from asynccb.checkpoint.weights import load_weights

    load_weights(Model(), folder / "noisy" / "checkpoint-5")
