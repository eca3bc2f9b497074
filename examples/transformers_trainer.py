"""
Train a small GPT-2 in a `transformers.Trainer`, with async callbacks and trackers.

    python examples/transformers_trainer.py                                   # TensorBoard
    python examples/transformers_trainer.py --mlflow http://127.0.0.1:5000    # and an MLflow server

It shows one callback, `AsyncCallbacks`, in an ordinary `transformers.Trainer`. It serves all other
callbacks: trackers in their own process; a custom `async` callback that also stops the training
when the loss is low enough; and a callback written for transformers, on its own thread.

The model is made from a configuration, and the text is Python's own documentation, so nothing is
downloaded. The example needs `pip install transformers accelerate` and takes a minute or two on two
cores.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset

import asynccb

CONTEXT = 64
"""Number of characters that the model looks back at."""


class Characters(Dataset[dict[str, torch.Tensor]]):
    """Pieces of a text; the model itself shifts the labels by one character."""

    def __init__(self, text: str, vocabulary: dict[str, int]) -> None:
        self.codes = torch.tensor([vocabulary[character] for character in text])

    def __len__(self) -> int:
        return len(self.codes) // CONTEXT

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        piece = self.codes[index * CONTEXT : (index + 1) * CONTEXT]
        return {"input_ids": piece, "labels": piece}


class GoodEnough(asynccb.TrainerCallback):
    """Writes a diary and stops the training at a low loss; the training waits for neither."""

    def __init__(self, path: Path, loss: float) -> None:
        self.path = path
        self.loss = loss

    @asynccb.decides(lag=1)  # applied at the end of the next step, in every run
    async def on_evaluate(
        self,
        args: Any,
        state: asynccb.TrainerState,
        control: asynccb.TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        import aiofiles

        loss = (metrics or {})["eval_loss"]
        async with aiofiles.open(self.path, "a") as diary:
            await diary.write(f"after {state.global_step} steps the evaluation gave {loss:.3f}\n")
        if loss < self.loss:
            control.should_training_stop = True


class SlowReport(transformers.TrainerCallback):
    """A slow callback, written for transformers."""

    def __init__(self) -> None:
        self.reports = 0

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        time.sleep(0.05)
        self.reports += 1


def main() -> None:
    """Train, evaluate, and print where to find the results."""
    options = read_options()
    text = "\n".join(pydoc_data.topics.topics.values())
    vocabulary = {character: code for code, character in enumerate(sorted(set(text)))}
    split = len(text) * 9 // 10
    train, held_back = text[:split], text[split : split + 100 * CONTEXT]

    options.output.mkdir(parents=True, exist_ok=True)
    started = time.strftime("%Y%m%d-%H%M%S")  # a folder for each run, for TensorBoard to compare
    tensorboard = options.output / "tensorboard" / started
    report = SlowReport()
    callbacks: list[Any] = [
        GoodEnough(options.output / "diary.txt", loss=2.0),
        asynccb.TensorBoardCallback(logging_dir=tensorboard),
        asynccb.offload(report),
    ]
    if options.mlflow:
        callbacks.append(
            asynccb.MLflowCallback(tracking_uri=options.mlflow, experiment_name="transformers")
        )

    transformers.set_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=len(vocabulary),
            n_positions=CONTEXT,
            n_embd=96,
            n_layer=3,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    model.loss_type = "ForCausalLM"  # otherwise transformers warns that it has to guess the loss
    arguments = transformers.TrainingArguments(
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
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",  # the bridge has the trackers
    )
    with asynccb.AsyncCallbacks(callbacks) as bridge:
        trainer = transformers.Trainer(
            model,
            arguments,
            train_dataset=Characters(train, vocabulary),
            eval_dataset=Characters(held_back, vocabulary),
            callbacks=[bridge],
        )
        trainer.remove_callback(transformers.PrinterCallback)  # prints a line for every step
        result = trainer.train()
        statistics = bridge.statistics()

    loss = [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e][-1]
    print(f"\n{result.global_step} steps of at most {options.steps}, evaluation loss {loss:.3f}")
    print(f"{report.reports} slow reports of 50 ms each, which the training did not wait for")
    print(f"{statistics.microseconds_per_step:.0f} us of the training thread for callbacks a step")
    print(f"Look at it:  tensorboard --logdir {options.output / 'tensorboard'}")
    if options.mlflow:
        print(f"or at        {options.mlflow}, experiment transformers")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0].strip())
    parser.add_argument("--steps", type=int, default=400, help="steps at most (default: 400)")
    parser.add_argument(
        "--output", type=Path, default=Path("transformers_trainer"), help="where to write"
    )
    parser.add_argument("--mlflow", metavar="URL", help="address of an MLflow server")
    return parser.parse_args()


if __name__ == "__main__":
    main()
