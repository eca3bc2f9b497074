"""
Train a small character-level GPT and log it to trackers that the training never waits for.

    python examples/quickstart.py                                   # TensorBoard
    python examples/quickstart.py --mlflow http://127.0.0.1:5000    # and an MLflow server
    torchrun --nproc_per_node=2 examples/quickstart.py              # on two GPUs, or processes

It shows a `Trainer` that logs every step to one or two trackers, which run in their own process; a
custom `async` callback; a `def` callback that stops the training when the loss is low enough; and
the cost of all callbacks to the training thread. The text is Python's own documentation, which
ships with Python. The example takes about a minute on two cores.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from asynccb import (
    MLflowCallback,
    ProgressCallback,
    TensorBoardCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

CONTEXT = 64
"""Number of characters that the model looks back at."""


class Characters(Dataset[dict[str, torch.Tensor]]):
    """Pieces of a text; the labels of a piece are the piece shifted by one character."""

    def __init__(self, text: str, vocabulary: dict[str, int]) -> None:
        self.codes = torch.tensor([vocabulary[character] for character in text])

    def __len__(self) -> int:
        return (len(self.codes) - 1) // CONTEXT

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        piece = self.codes[index * CONTEXT : (index + 1) * CONTEXT + 1]
        return {"codes": piece[:-1], "labels": piece[1:]}


class Block(nn.Module):
    """One layer: look back, then think."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_look = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.look = nn.Linear(width, width, bias=False)
        self.norm_think = nn.LayerNorm(width)
        self.think = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.queries_keys_values(self.norm_look(x))
        parts = parts.view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.look(seen.transpose(1, 2).reshape(batch, length, width))
        thought: torch.Tensor = self.think(self.norm_think(x))
        return x + thought


class GPT(nn.Module):
    """A transformer that reads characters and guesses the next one."""

    def __init__(self, vocabulary: int, width: int = 96, heads: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.config = {"vocabulary": vocabulary, "width": width, "heads": heads, "layers": layers}
        self.characters = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.guess = nn.Linear(width, vocabulary, bias=False)

    def forward(
        self, codes: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        places = torch.arange(codes.shape[1], device=codes.device)
        x = self.blocks(self.characters(codes) + self.places(places))
        guesses = self.guess(self.norm(x))
        if labels is None:
            return {"guesses": guesses}
        loss = functional.cross_entropy(guesses.flatten(0, 1), labels.flatten())
        return {"loss": loss, "guesses": guesses}

    @torch.no_grad()
    def write(self, codes: list[int], length: int) -> list[int]:
        """Continue a text, with characters sampled from the model's probabilities."""
        for _ in range(length):
            last = torch.tensor([codes[-CONTEXT:]], device=self.guess.weight.device)
            likely = functional.softmax(self(last)["guesses"][0, -1], dim=0)
            codes = [*codes, int(torch.multinomial(likely, 1))]
        return codes


class Diary(TrainerCallback):
    """Writes a diary in an `async` hook, which the training does not wait for."""

    ranks = "world_zero"  # only one process writes the diary, however many train

    def __init__(self, path: Path) -> None:
        self.path = path

    async def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        import aiofiles

        async with aiofiles.open(self.path, "a") as diary:
            loss = (metrics or {}).get("eval_loss")
            await diary.write(f"after {state.global_step} steps the evaluation gave {loss}\n")


class GoodEnough(TrainerCallback):
    """Prints the loss and stops early: a `def` hook runs on the training thread and may steer."""

    def __init__(self, loss: float) -> None:
        self.loss = loss

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        loss = (metrics or {})["eval_loss"]
        if state.is_world_process_zero:
            print(f"step {state.global_step:4d}: evaluation loss {loss:.3f}", flush=True)
        if loss < self.loss:
            control.should_training_stop = True


def main() -> None:
    """Train, evaluate, generate a short text, and print where to find the results."""
    options = read_options()
    text = "\n".join(pydoc_data.topics.topics.values())
    vocabulary = {character: code for code, character in enumerate(sorted(set(text)))}
    split = len(text) * 9 // 10
    train, held_back = text[:split], text[split : split + 200 * CONTEXT]

    started = time.strftime("%Y%m%d-%H%M%S")  # a folder for each run, for TensorBoard to compare
    callbacks: list[TrainerCallback] = [
        TensorBoardCallback(logging_dir=options.output / "tensorboard" / started),
        Diary(options.output / "diary.txt"),
        GoodEnough(loss=2.0),
    ]
    if options.mlflow:
        callbacks.append(MLflowCallback(tracking_uri=options.mlflow, experiment_name="quickstart"))
    arguments = TrainingArguments(
        output_dir=str(options.output),
        max_steps=options.steps,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        weight_decay=0.1,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=50,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=50,
        save_steps=200,
        save_total_limit=1,
        report_to="none",  # the trackers are given above
    )
    options.output.mkdir(parents=True, exist_ok=True)
    random.seed(0)
    torch.manual_seed(0)
    model = GPT(len(vocabulary))
    with Trainer(
        model,
        arguments,
        train_dataset=Characters(train, vocabulary),
        eval_dataset=Characters(held_back, vocabulary),
        callbacks=callbacks,
    ) as trainer:
        trainer.remove_callback(ProgressCallback)  # prints a line for every step
        result = trainer.train()
    if not trainer.state.is_world_process_zero:
        return
    loss = next(e["eval_loss"] for e in reversed(trainer.state.log_history) if "eval_loss" in e)
    statistics = trainer.dispatcher.statistics()

    characters = list(vocabulary)
    written = model.write([vocabulary[character] for character in "The "], 120)
    print(f"\nIt writes: {''.join(characters[code] for code in written)!r}\n")
    print(f"{result.global_step} steps of at most {options.steps}, evaluation loss {loss:.3f}")
    print(f"{statistics.delivered} events delivered to async callbacks")
    print(f"{statistics.microseconds_per_step:.0f} us of the training thread for callbacks a step")
    print(f"Look at it:  tensorboard --logdir {options.output / 'tensorboard'}")
    if options.mlflow:
        print(f"or at        {options.mlflow}, experiment quickstart")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0].strip())
    parser.add_argument("--steps", type=int, default=600, help="steps at most (default: 600)")
    parser.add_argument("--output", type=Path, default=Path("quickstart"), help="where to write")
    parser.add_argument("--mlflow", metavar="URL", help="address of an MLflow server")
    return parser.parse_args()


if __name__ == "__main__":
    main()
