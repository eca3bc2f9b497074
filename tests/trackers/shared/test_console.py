"""Lines that a process prints, as a tracker hears them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from asynccb.trackers.shared.console import _KEPT, _LONGEST, Console


@contextmanager
def listening() -> Iterator[Console]:
    """Listen; in the test itself, because pytest changes the streams between fixture and test."""
    console = Console()
    console.open()
    try:
        yield console
    finally:
        console.close()


def texts(console: Console) -> list[tuple[bool, str]]:
    return [(line.is_error, line.text) for line in console.lines()]


def test_lines_go_where_they_went_and_are_heard_in_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with listening() as console:
        print("one\ntwo")
        print("oh", file=sys.stderr)
        sys.stdout.writelines(["thr", "ee\n"])
        assert texts(console) == [(False, "one"), (False, "two"), (True, "oh"), (False, "three")]
        assert capsys.readouterr() == ("one\ntwo\nthree\n", "oh\n")
        assert texts(console) == []


def test_a_line_is_heard_when_it_ends() -> None:
    with listening() as console:
        sys.stdout.write("half")
        assert texts(console) == []
        sys.stdout.write(" whole\nnext")
        assert texts(console) == [(False, "half whole")]


def test_of_a_progress_bar_the_last_state_is_left() -> None:
    with listening() as console:
        for done in range(100):
            sys.stderr.write(f"\r{done} %")
        sys.stderr.write("\r100 %\n")
        print("windows\r")
        assert texts(console) == [(True, "100 %"), (False, "windows")]


def test_threads_may_print_at_once() -> None:
    with listening() as console:

        def work(name: str) -> None:
            for number in range(200):
                sys.stdout.write(f"{name}{number}\n")

        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        heard = [text for _, text in texts(console)]
        for name in "ab":
            assert [t for t in heard if t[0] == name] == [f"{name}{n}" for n in range(200)]


def test_what_nobody_fetches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as console:
        for number in range(_KEPT + 10):
            sys.stdout.write(f"{number}\n")
        assert len(texts(console)) == _KEPT
        sys.stdout.write("x" * 100_000 + "\n")
        assert len(texts(console)[0][1]) == _LONGEST


def test_text_that_cannot_be_encoded_is_shown_as_it_can() -> None:
    with listening() as console:
        console.note(False, "\ud800\n")
        assert texts(console) == [(False, "\\ud800")]


def test_a_forked_child_is_not_heard() -> None:
    with listening() as console:
        child = os.fork()
        if child == 0:
            sys.stdout.write("child\n")
            os._exit(0 if not console._pieces else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_streams_are_put_back_unless_others_stand_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, errors = sys.stdout, sys.stderr
    console = Console()
    console.open()
    assert sys.stdout is not before
    assert sys.stdout.isatty() is False
    other = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - somebody else's
    console.close()
    assert sys.stdout is before
    assert sys.stderr is other
    sys.stderr = errors
    other.close()
