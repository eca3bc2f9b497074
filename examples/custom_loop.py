"""
The model of the quick start in a hand-written loop: no `Trainer`, callbacks in three places.

    python examples/custom_loop.py

It shows `CallbackDispatcher` as a context manager around a loop, `step` called with tensors as they
are, and the control that `step` returns. The three places are marked 1 to 3.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from quickstart import GPT, Characters, Diary
from torch.utils.data import DataLoader

from asynccb import CallbackDispatcher, TensorBoardCallback


def main() -> None:
    """Train, and print where to find the results."""
    options = read_options()
    text = "\n".join(pydoc_data.topics.topics.values())
    vocabulary = {character: code for code, character in enumerate(sorted(set(text)))}
    split = len(text) * 9 // 10
    batches = DataLoader(Characters(text[:split], vocabulary), batch_size=16, shuffle=True)
    held_back = Characters(text[split : split + 50 * (64 + 1)], vocabulary)
    evaluation = next(iter(DataLoader(held_back, batch_size=50)))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = GPT(len(vocabulary)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    options.output.mkdir(parents=True, exist_ok=True)
    started = time.strftime("%Y%m%d-%H%M%S")  # a folder for each run, for TensorBoard to compare
    callbacks = [
        TensorBoardCallback(logging_dir=options.output / "tensorboard" / started),
        Diary(options.output / "diary.txt"),
    ]

    def loss_of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        there = {name: codes.to(device) for name, codes in batch.items()}
        loss: torch.Tensor = model(**there)["loss"]
        return loss

    with CallbackDispatcher(  # 1: pass the callbacks
        callbacks, max_steps=options.steps, model=model, directory=options.output / "asynccb"
    ) as run:
        for number, batch in enumerate(endlessly(batches), 1):
            loss = loss_of(batch)
            torch.autograd.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            metrics = None
            if number % 50 == 0:
                with torch.no_grad():
                    metrics = {"eval_loss": loss_of(evaluation)}
            control = run.step(  # 2: report the step
                logs={"loss": loss.detach(), "grad_norm": norm}, metrics=metrics
            )
            if control.should_training_stop:  # 3: follow the flags that callbacks set
                break

    statistics = run.statistics()
    print(f"{statistics.steps} steps, {statistics.delivered} events delivered, ", end="")
    print(f"{statistics.microseconds_per_step:.0f} us of the training thread for callbacks a step")
    print(f"Look at it:  tensorboard --logdir {options.output / 'tensorboard'}")


def endlessly(batches: DataLoader[dict[str, torch.Tensor]]) -> Iterator[dict[str, torch.Tensor]]:
    """Restart the data when it ends; `max_steps` ends the training."""
    while True:
        yield from batches


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0].strip())
    parser.add_argument("--steps", type=int, default=300, help="steps (default: 300)")
    parser.add_argument("--output", type=Path, default=Path("custom_loop"), help="where to write")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps is {options.steps}; it takes a number above 0")
    return options


if __name__ == "__main__":
    main()
