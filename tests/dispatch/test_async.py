"""`async def` hooks on the thread: what they get, and what their errors do."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from asynccb import CallbackError, TrainerCallback, TrainerState
from asynccb._ground.events import EVENTS
from tests.support.callbacks_for_tests import FileTracker, read_lines
from tests.support.running import Everything, Logs, running
from tests.support.waiting import eventually


class Fails(TrainerCallback):
    """Fail at each log, once `open` is set."""

    def __init__(self, on_error: Any = "warn") -> None:
        self.on_error = on_error
        self.open = threading.Event()
        self.open.set()

    async def on_log(self, args, state, control, **kwargs):
        while not self.open.is_set():
            await anyio.sleep(0.001)
        raise KeyError("the cause")


class TestWhatHooksGet:
    def test_every_event_arrives_in_the_order_of_emission(self) -> None:
        everything = Everything()
        with running(everything) as run:
            for _ in range(20):
                for event in EVENTS:
                    run.emit(event)
            assert run.flush(20)
        assert [each[0] for each in everything.seen] == list(EVENTS) * 20

    def test_the_state_is_as_it_was_when_the_event_was_emitted(self) -> None:
        everything = Everything()
        everything.open.clear()
        with running(everything) as run:
            for number in range(5):
                run.state.best_metric = number / 2
                run.step(logs={"loss": number})
            run.state.best_metric = None
            run.state.log_history.append({"loss": -1, "step": 99})
            everything.open.set()
            assert run.flush(20)
        states = [state for event, _, state, _, _ in everything.seen if event == "on_log"]
        assert [state.global_step for state in states] == [1, 2, 3, 4, 5]
        assert [state.best_metric for state in states] == [0.0, 0.5, 1.0, 1.5, 2.0]
        assert [len(state.log_history) for state in states] == [1, 2, 3, 4, 5]
        assert states[1].log_history == [{"loss": 0, "step": 1}, {"loss": 1, "step": 2}]
        assert all(isinstance(state, TrainerState) for state in states)

    def test_the_control_is_as_the_inline_hooks_left_it(self) -> None:
        class Wants(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_save = state.global_step == 2

        everything = Everything()
        everything.open.clear()
        with running(everything, Wants()) as run:
            for _ in range(3):
                run.step()
            everything.open.set()
            assert run.flush(20)
        assert [control.should_save for _, _, _, control, _ in everything.seen] == [
            False,
            True,
            False,
        ]

    def test_live_objects_and_arguments_are_the_runs_own(self) -> None:
        everything = Everything()
        model, optimizer = object(), object()
        with running(everything, model=model, optimizer=optimizer) as run:
            run.emit("on_step_end")
            assert run.flush(20)
            args = run.args
        ((_, seen_args, _, _, keywords),) = everything.seen
        assert seen_args is args
        assert (keywords["model"], keywords["optimizer"]) == (model, optimizer)

    def test_tensors_in_logs_arrive_as_numbers(self) -> None:
        import torch

        logs = Logs()
        with running(logs) as run:
            run.step(logs={"loss": torch.tensor(0.5), "counts": torch.tensor([1, 2])})
            assert run.flush(20)
        assert logs.seen == [(1, {"loss": 0.5, "counts": [1, 2]})]

    def test_what_the_loop_does_to_its_dict_after_the_emission_is_not_seen(self) -> None:
        everything = Everything()
        everything.open.clear()
        with running(everything) as run:
            logs = {"loss": 1.0}
            run.emit("on_log", logs=logs)
            logs["loss"] = 2.0
            everything.open.set()
            assert run.flush(20)
        assert everything.seen[0][4]["logs"] == {"loss": 1.0}

    def test_hooks_run_on_one_other_thread(self) -> None:
        threads: set[int] = set()

        class Where(TrainerCallback):
            async def on_step_end(self, args, state, control, **kwargs):
                threads.add(threading.get_ident())

        class There(Where): ...

        with running(Where(), There()) as run:
            for _ in range(10):
                run.step()
            assert run.flush(20)
        assert len(threads) == 1
        assert threading.get_ident() not in threads


class TestErrors:
    def test_a_failing_hook_keeps_nothing_from_the_others_and_is_counted(self) -> None:
        logs = Logs()
        with running(Fails(), logs) as run:
            for _ in range(50):
                run.step(logs={"loss": 1.0})
            assert run.flush(20)
            counts = run.statistics().callbacks
        assert logs.steps == list(range(1, 51))
        assert (counts["Fails"].failed, counts["Logs"].delivered) == (50, 50)

    def test_raise_raises_at_a_later_event_from_the_cause(self) -> None:
        fails = Fails("raise")
        fails.open.clear()
        with running(fails) as run:
            run.emit("on_log", logs={})
            fails.open.set()
            assert run.flush(20)
            with pytest.raises(CallbackError, match="Fails failed: KeyError: 'the cause'") as error:
                run.emit("on_train_begin")
            assert isinstance(error.value.__cause__, KeyError)
            run.emit("on_train_begin")

    def test_raise_is_raised_by_a_step_too(self) -> None:
        fails = Fails("raise")
        fails.open.clear()
        with running(fails) as run:
            run.emit("on_log", logs={})
            fails.open.set()
            assert run.flush(20)
            with pytest.raises(CallbackError):
                run.step(logs={"loss": 1.0})

    def test_disable_gives_the_callback_no_more_events(self) -> None:
        logs = Logs()
        with running(Fails("disable"), logs) as run:
            for _ in range(10):
                run.step(logs={"loss": 1.0})
                assert run.flush(20)
            counts = run.statistics().callbacks["Fails"]
        assert (counts.failed, counts.dropped, counts.disabled) == (1, 9, True)
        assert len(logs.seen) == 10


class TestComingAndGoing:
    def test_a_removed_callback_gets_what_was_emitted_before_and_nothing_after(self) -> None:
        leaves, stays = Everything(), Logs()
        leaves.open.clear()
        with running(leaves, stays) as run:
            for _ in range(10):
                run.emit("on_log", logs={})
            run.remove_callback(leaves)
            for _ in range(10):
                run.emit("on_log", logs={})
            leaves.open.set()
            assert run.flush(20)
        assert (len(leaves.seen), len(stays.seen)) == (10, 20)

    def test_a_callback_added_during_training_gets_what_comes_then(self) -> None:
        with running(Logs()) as run:
            run.step(logs={"loss": 1.0})
            late = Everything()
            run.add_callback(late)
            run.step(logs={"loss": 2.0})
            assert run.flush(20)
        assert [each[0] for each in late.seen] == ["on_step_end", "on_log"]
        assert [len(each[2].log_history) for each in late.seen] == [1, 2]

    def test_the_counts_of_a_removed_callback_stay_in_the_statistics(self) -> None:
        logs = Logs()
        with running(logs) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
            run.remove_callback(logs)
            assert run.statistics().delivered == 1

    @pytest.mark.parametrize(
        ("ranks", "state", "runs"),
        [
            ("all", TrainerState(is_world_process_zero=False, is_local_process_zero=False), True),
            ("local_zero", TrainerState(is_world_process_zero=False), True),
            ("world_zero", TrainerState(is_world_process_zero=False), False),
            ("local_zero", TrainerState(is_local_process_zero=False), False),
        ],
    )
    def test_a_callback_runs_on_the_ranks_that_it_asks_for(
        self, ranks: Any, state: TrainerState, runs: bool
    ) -> None:
        logs = Logs()
        logs.ranks = ranks
        with running(logs, state=state) as run:
            run.step(logs={"loss": 1.0})
            assert run.flush(20)
        assert bool(logs.seen) is runs


def test_a_tracker_on_the_thread_sends_what_it_has_while_events_come_without_a_pause(
    tmp_path: Path,
) -> None:
    tracker = FileTracker(str(tmp_path / "sent"))
    tracker.placement, tracker.interval = "thread", 0.2
    with running(tracker, directory=tmp_path / "runs") as run:

        def stepped() -> bool:
            run.step(logs={"loss": 1.0})
            return bool(read_lines(tmp_path / "sent"))

        eventually(stepped)
