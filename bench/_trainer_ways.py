"""
The ways to log from a `transformers.Trainer` that `huggingface.py` compares, and its training.

Every step is logged to TensorBoard and MLflow, in the experiment that `MLFLOW_EXPERIMENT_NAME`
names. Each block of steps, or each woven pair, is a `train()` of a new Trainer. `callbacks()`
returns the callbacks for that Trainer, and `settle()` waits until all values have arrived.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import transformers
from _contenders import PATIENCE, Place
from torch.utils.data import Dataset

import asynccb

_clock = time.perf_counter


class Way(NamedTuple):
    """A contender that is ready to use."""

    callbacks: Callable[[], list[Any]]
    settle: Callable[[], object]


def _nothing_to_do() -> None:
    pass


@contextlib.contextmanager
def nothing(place: Place) -> Iterator[Way]:
    """`report_to="none"`: the baseline of all comparisons."""
    yield Way(list, _nothing_to_do)


@contextlib.contextmanager
def bridge(place: Place) -> Iterator[Way]:
    """Our TensorBoard and MLflow trackers in one `AsyncCallbacks`."""
    trackers = [
        asynccb.TensorBoardCallback(logging_dir=str(place.folder / "events")),
        asynccb.MLflowCallback(tracking_uri=place.server),
    ]
    with contextlib.redirect_stderr(io.StringIO()):  # its closing line would break the table
        with asynccb.AsyncCallbacks(trackers) as opened:
            yield Way(lambda: [opened], lambda: _flush(opened))
        _check(opened)


@contextlib.contextmanager
def offloaded(place: Place) -> Iterator[Way]:
    """The two callbacks of transformers, each on a thread by `offload`."""
    open_ones: list[asynccb.AsyncCallbacks] = []

    def callbacks() -> list[Any]:
        theirs = [asynccb.offload(callback) for callback in _their_callbacks(place)]
        open_ones.append(asynccb.AsyncCallbacks(theirs))
        return [open_ones[-1]]

    def settle() -> None:
        opened = open_ones.pop()
        _flush(opened)
        with contextlib.redirect_stderr(io.StringIO()):
            opened.close(PATIENCE)
        _check(opened)
        _settle_mlflow()

    yield Way(callbacks, settle)


@contextlib.contextmanager
def inline(place: Place) -> Iterator[Way]:
    """The two callbacks of transformers, inline as in its Trainer."""
    yield Way(lambda: _their_callbacks(place), _settle_mlflow)


WAYS: Final[dict[str, Callable[[Place], AbstractContextManager[Way]]]] = {
    "nothing": nothing,
    "asynccb": bridge,
    "offload": offloaded,
    "transformers": inline,
}
SENT: Final = ("asynccb", "offload", "transformers")
"""The contenders that send points."""


def _their_callbacks(place: Place) -> list[Any]:
    from transformers.integrations import MLflowCallback, TensorBoardCallback

    os.environ["TENSORBOARD_LOGGING_DIR"] = str(place.folder / "events")
    os.environ["MLFLOW_TRACKING_URI"] = place.server
    return [TensorBoardCallback(), MLflowCallback()]


def _settle_mlflow() -> None:
    import mlflow

    mlflow.flush_async_logging()


def _flush(opened: asynccb.AsyncCallbacks) -> None:
    if not opened.flush(PATIENCE):
        raise RuntimeError(f"not delivered within {PATIENCE:.0f} s: {opened.statistics()}")


def _check(opened: asynccb.AsyncCallbacks) -> None:
    counted = opened.statistics()
    if counted.dropped or any(each.is_troubled for each in counted.callbacks.values()):
        raise RuntimeError(f"asynccb did not deliver everything: {counted}")


class Tokens(Dataset[dict[str, torch.Tensor]]):
    """Random tokens, the same in every run."""

    def __init__(self, samples: int, length: int, vocabulary: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(vocabulary, (samples, length), generator=generator)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


class Size(NamedTuple):
    """The size of a step."""

    width: int
    layers: int
    length: int
    batch: int


SIZES: Final = {"cpu": Size(64, 2, 32, 4), "cuda": Size(256, 4, 128, 8)}
"""About 10 ms per step on a CPU core; on an H100, the calls from Python limit the step."""


class Times(NamedTuple):
    """The durations of steps, in seconds."""

    alone: list[float]
    """Each step without the callbacks."""
    beside: list[float]
    """Each step with the callbacks."""
    within: float
    """Time within the callbacks' hooks, of all steps together."""


class Turns(transformers.TrainerCallback):
    """
    A callback that passes events on to other callbacks, and times the turns of steps.

    If `woven`, every other turn runs without callbacks, and the order changes from pair to pair.
    The lead-in, which is not timed, and the begin and end of the training always include the
    callbacks.
    """

    def __init__(
        self, callbacks: list[Any], lead_in: int, turn: int, device: str, *, woven: bool
    ) -> None:
        self._callbacks = callbacks
        self._woven = woven
        self._lead_in = lead_in
        self._turn = turn
        self._device = device
        self._on = True
        self._begin: float | None = None
        self.seconds: dict[bool, list[float]] = {False: [], True: []}
        """Seconds of each step, without the callbacks (False) and with them (True)."""
        self.within = 0.0
        """Seconds within the callbacks' hooks, of all turns."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin a turn if one is due."""
        passed = state.global_step - self._lead_in
        if passed >= 0:
            begins = passed % self._turn == 0
            self._end_step(waits=begins)
            if begins:
                self._on = not self._woven or passed // self._turn % 4 in (1, 2)
            self._begin = _clock()
        self._hand_on("on_step_begin", args, state, control, kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the last turn before the callbacks end their runs."""
        self._end_step(waits=True)
        self._on = True
        self._hand_on("on_train_end", args, state, control, kwargs)

    def _end_step(self, *, waits: bool) -> None:
        if waits and self._device == "cuda":
            torch.cuda.synchronize()
        if self._begin is not None:
            self.seconds[self._on].append(_clock() - self._begin)
            self._begin = None

    def _hand_on(self, event: str, args: Any, state: Any, control: Any, given: Any) -> None:
        if self._on:
            begin = _clock()
            for callback in self._callbacks:
                getattr(callback, event)(args, state, control, **given)
            if self._begin is not None:
                self.within += _clock() - begin


def _handing_on(event: str) -> Callable[..., None]:
    def hand_on(self: Turns, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._hand_on(event, args, state, control, kwargs)

    return hand_on


for _event in asynccb.Event:
    if _event not in vars(Turns):
        setattr(Turns, _event, _handing_on(_event))


class Training:
    """A small GPT-2 that logs every step."""

    def __init__(self, device: str, lead_in: int, steps: int, turn: int, folder: Path) -> None:
        if device == "cpu":
            torch.set_num_threads(1)
        size = SIZES[device]
        self._device, self._lead_in, self._steps, self._folder = device, lead_in, steps, folder
        self._turn = turn
        self._batch = size.batch
        self._data = Tokens(64 * size.batch, size.length, 512)
        self._model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=512,
                n_positions=size.length,
                n_embd=size.width,
                n_layer=size.layers,
                n_head=4,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        self._model.loss_type = "ForCausalLM"  # otherwise transformers warns about its guess

    def time_steps(self, callbacks: list[Any]) -> Times:
        """Train; return the times of the steps after the lead-in."""
        if self._turn < self._steps:
            beside = self._train(callbacks, 2 * self._steps, woven=True)
            alone = beside.seconds[False]
        else:
            alone = self._train([], self._steps, woven=False).seconds[True]
            beside = self._train(callbacks, self._steps, woven=False)
        return Times(alone, beside.seconds[True], beside.within)

    def _train(self, callbacks: list[Any], steps: int, *, woven: bool) -> Turns:
        gc.collect()
        turns = Turns(callbacks, self._lead_in, self._turn, self._device, woven=woven)
        arguments = transformers.TrainingArguments(
            str(self._folder),
            max_steps=self._lead_in + steps,
            per_device_train_batch_size=self._batch,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=self._device == "cpu",
            dataloader_pin_memory=self._device == "cuda",
        )
        trainer = transformers.Trainer(
            self._model, arguments, train_dataset=self._data, callbacks=[turns]
        )
        trainer.remove_callback(transformers.PrinterCallback)  # prints a line for every step
        trainer.train()
        return turns
