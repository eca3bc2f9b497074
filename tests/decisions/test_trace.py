"""What a run decided, written down and applied again."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from asynccb import TraceError, TrainerState
from asynccb._state.control import Decision
from tests.decisions.deciding import Decides, lines_of, saves, saves_at, trace_of
from tests.support.launching import output_of
from tests.support.running import running


def recorded(directory: Path, *callbacks: Any, steps: int = 6, **options: Any) -> Path:
    with running(*callbacks, directory=directory, **options) as run:
        list(saves(run, steps))
    return trace_of(run)


def never(step: int) -> Decision:
    raise AssertionError("a hook that decides is not asked when a trace is replayed")


class TestTrace:
    def test_each_decision_is_a_line_with_its_boundary_event_callback_and_flags(
        self, tmp_path: Path
    ) -> None:
        path = recorded(tmp_path, Decides(saves_at(2), 2))
        assert lines_of(path) == [
            {
                "boundary": 4,
                "event": "on_log",
                "step": 2,
                "callback": "Decides",
                "flags": {"should_save": True},
                "outcome": "decided",
                "emission": 2,
            }
        ]

    def test_the_header_says_whose_decisions_they_are(self, tmp_path: Path) -> None:
        path = recorded(tmp_path, Decides(saves_at(2)), max_steps=9)
        assert json.loads(path.read_text().splitlines()[0]) == {
            "asynccb": "decisions",
            "format": 1,
            "deciders": [["Decides", "on_log", 1]],
            "max_steps": 9,
            "seed": 42,
        }

    def test_a_decision_that_was_skipped_or_lost_is_in_the_trace(self, tmp_path: Path) -> None:
        slow = Decides(saves_at(1), limit=0.01, on_late="skip")
        slow.open.clear()
        with running(slow, directory=tmp_path) as run:
            run.step(logs={"loss": 1.0})
            run.step(logs={"loss": 1.0})
            run.remove_callback(slow)
            run.step()
            slow.open.set()
        assert [line["outcome"] for line in lines_of(trace_of(run))] == ["skipped", "lost"]

    def test_a_request_is_in_the_trace(self, tmp_path: Path) -> None:
        with running(directory=tmp_path) as run:
            run.request(should_save=True)
            run.step()
        (line,) = lines_of(trace_of(run))
        assert (line["callback"], line["boundary"]) == ("request", 1)

    def test_no_file_is_made_without_a_decision_or_on_another_rank(self, tmp_path: Path) -> None:
        recorded(tmp_path, Decides(saves_at()))
        recorded(tmp_path, Decides(saves_at(1)), state=TrainerState(is_world_process_zero=False))
        assert list(tmp_path.rglob("decisions.jsonl")) == []

    def test_a_trace_that_cannot_be_written_costs_the_trace_only(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        with running(Decides(saves_at(1, 3)), directory=tmp_path / "file") as run:
            assert list(saves(run, 4)) == [2, 4]
        assert [r.levelno for r in caplog.records] == [logging.ERROR]


class TestReplay:
    def test_a_replayed_run_decides_the_same_and_asks_nobody(self, tmp_path: Path) -> None:
        first = recorded(tmp_path / "a", Decides(saves_at(1, 4)), Decides(saves_at(2), 0))
        again = [Decides(never), Decides(never, 0)]
        with running(*again, directory=tmp_path / "b", replay=first) as run:
            assert list(saves(run, 6)) == [2, 5]
            assert run.step().should_save is False
        assert lines_of(trace_of(run)) == lines_of(first)

    def test_a_folder_that_holds_a_trace_will_do(self, tmp_path: Path) -> None:
        first = recorded(tmp_path / "a", Decides(saves_at(1)))
        with running(Decides(never), directory=tmp_path / "b", replay=first.parent) as run:
            assert list(saves(run, 3)) == [2]

    def test_requests_are_replayed(self, tmp_path: Path) -> None:
        with running(directory=tmp_path) as run:
            run.step()
            run.request(should_save=True)
            run.step()
        with running(replay=trace_of(run), directory=tmp_path) as again:
            assert list(saves(again, 3)) == [2]

    def test_what_is_requested_beside_what_is_replayed_is_one_request_in_the_trace(
        self, tmp_path: Path
    ) -> None:
        def flags(run: Any, asked: str | None) -> tuple[bool, bool]:
            if asked is not None:
                run.request(**{asked: True})
            control = run.step()
            return control.should_save, control.should_log

        with running(directory=tmp_path) as run:
            flags(run, "should_save")
        with running(replay=trace_of(run), directory=tmp_path) as run:
            assert flags(run, "should_log") == (True, True)
        with running(replay=trace_of(run), directory=tmp_path) as run:
            assert flags(run, None) == (True, True)

    def test_a_callback_that_is_added_after_some_steps_decides_the_same(
        self, tmp_path: Path
    ) -> None:
        def program(*, answers: Any, **options: Any) -> tuple[list[int], Path]:
            with running(directory=tmp_path, **options) as run:
                run.step()
                run.add_callback(Decides(answers))
                return list(saves(run, 4)), trace_of(run)

        found, path = program(answers=saves_at(2))
        assert found == [3]
        assert program(answers=never, replay=path)[0] == found

    def test_hooks_that_do_not_decide_are_called_as_ever(self, tmp_path: Path) -> None:
        class Also(Decides):
            seen: list[int] = []  # noqa: RUF012

            async def on_step_end(self, args, state, control, **kwargs):
                self.seen.append(state.global_step)

        first = recorded(tmp_path / "a", Also(saves_at(1)))
        Also.seen.clear()
        with running(Also(never), directory=tmp_path / "b", replay=first) as run:
            list(saves(run, 3))
            assert run.flush(20)
        assert Also.seen == [1, 2, 3]

    def test_a_second_training_of_the_same_dispatcher_is_replayed_too(self, tmp_path: Path) -> None:
        def twice(*callbacks: Any, **options: Any) -> tuple[list[int], Path]:
            with running(*callbacks, directory=tmp_path, **options) as run:
                found = list(saves(run, 5))
                run.state.global_step = 0
                found += list(saves(run, 5))
            return found, trace_of(run)

        found, first = twice(Decides(saves_at(2, 5)))
        assert found == [3, 3]
        assert twice(Decides(never), replay=first)[0] == found


class TestRefusals:
    def refused(self, path: Path, what: str, *callbacks: Any, **options: Any) -> None:
        with (
            pytest.raises(TraceError, match=what),
            running(*(callbacks or [Decides(never)]), replay=path, **options) as run,
        ):
            list(saves(run, 9))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.jsonl", r"none.*no trace can be read there \(No such")
        self.refused(tmp_path, "no trace can be read there")

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "decisions.jsonl").write_text("")
        self.refused(tmp_path, "line 1 of .* is damaged")

    @pytest.mark.parametrize("line", ['{"boundary": 1', "[]", '{"boundary":1}', "\xff"])
    def test_a_damaged_line_with_its_number(self, tmp_path: Path, line: str) -> None:
        path = recorded(tmp_path, Decides(saves_at(1)))
        path.write_bytes(path.read_bytes() + line.encode("latin-1"))
        self.refused(path, "line 3 of .* is damaged")

    def test_flags_that_do_not_exist(self, tmp_path: Path) -> None:
        path = recorded(tmp_path, Decides(saves_at(1)))
        path.write_text(path.read_text().replace("should_save", "should_halt"))
        self.refused(path, "line 2 .*unknown flags")

    def test_another_format(self, tmp_path: Path) -> None:
        path = recorded(tmp_path, Decides(saves_at(1)))
        path.write_text(path.read_text().replace('"format":1', '"format":2'))
        self.refused(path, "has format 2; this version reads 1")

    def test_another_runs_deciders(self, tmp_path: Path) -> None:
        path = recorded(tmp_path, Decides(saves_at(1)))
        self.refused(path, r"trace of another run: its deciders is .*", Decides(never, 2))

    def test_another_runs_length(self, tmp_path: Path) -> None:
        path = recorded(tmp_path, Decides(saves_at(1)), max_steps=9)
        self.refused(path, "its max_steps is 9, and here it is 8", max_steps=8)

    def test_a_decision_on_another_event(self, tmp_path: Path) -> None:
        path = recorded(tmp_path, Decides(saves_at(3)))
        path.write_text(path.read_text().replace('"step":3', '"step":2'))
        self.refused(path, "there Decides decided on on_log of step 2, where here comes .* step 3")

    def test_a_boundary_that_passes_without_the_event(self, tmp_path: Path) -> None:
        path = recorded(tmp_path, Decides(saves_at(3)))
        path.write_text(path.read_text().replace('"emission":3', '"emission":77'))
        self.refused(path, "on_log of step 3 for step 4, and here that step has passed")

    def test_a_second_process_that_replays_the_same_trace(self, tmp_path: Path) -> None:
        path = recorded(tmp_path, Decides(saves_at(1)))
        with running(Decides(never), replay=path):
            assert "is being replayed by another process" in output_of("replay", path)[0]
        assert "replaying" in output_of("replay", path)[0]


class TestFinding:
    def test_the_last_line_of_a_run_names_its_trace(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = recorded(tmp_path, Decides(saves_at(2)))
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == f"asynccb: replay={str(path)!r} repeats the decisions of this run"

    def test_a_run_without_decisions_names_none(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        recorded_nothing = Decides(saves_at())
        with running(recorded_nothing, directory=tmp_path) as run:
            run.step(logs={"loss": 1.0})
        assert "replay=" not in capsys.readouterr().err

    @pytest.mark.parametrize("below", [".", "asynccb"])
    def test_the_folder_above_the_only_run_will_do(self, tmp_path: Path, below: str) -> None:
        recorded(tmp_path / below, Decides(saves_at(2)))
        with running(Decides(never), directory=tmp_path / "again", replay=tmp_path) as run:
            assert list(saves(run, 6)) == [3]

    def test_of_several_runs_the_error_lists_the_traces(self, tmp_path: Path) -> None:
        paths = [recorded(tmp_path, Decides(saves_at(step))) for step in (1, 2)]
        with pytest.raises(TraceError, match="several runs have left a trace") as raised:
            running(Decides(never), replay=tmp_path).__enter__()
        assert all(str(path) in str(raised.value) for path in paths)
