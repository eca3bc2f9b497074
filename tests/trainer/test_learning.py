"""What the Trainer computes: losses, gradients, schedules, precision."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from asynccb._ground.exceptions import ConfigurationError
from asynccb.callbacks.base import TrainerCallback
from asynccb.checkpoint.weights import load_weights
from asynccb.trainer import Trainer
from tests.support.regression import Line, Model, Recorder, arguments, history, train, weights


def losses(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_accumulating_over_small_batches_equals_one_big_batch(tmp_path: Path) -> None:
    big = train(tmp_path / "big", per_device_train_batch_size=8, logging_steps=1)
    small = train(
        tmp_path / "small",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        logging_steps=1,
    )
    torch.testing.assert_close(weights(small), weights(big))
    assert losses(small) == pytest.approx(losses(big), rel=1e-5)


def test_accumulated_batches_count_alike_however_many_tokens_each_of_them_holds(
    tmp_path: Path,
) -> None:
    class MeanOverTokens(Model):
        def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
            assert labels is not None
            return labels[labels != -100].mean() + 0 * self.a

    rows = [[1.0, -100.0, -100.0], [5.0, 5.0, 5.0]]
    trainer = train(
        tmp_path,
        model=MeanOverTokens(),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        max_steps=1,
        logging_steps=1,
        given={"train_dataset": [{"x": 0.0, "labels": torch.tensor(row)} for row in rows]},
    )
    assert losses(trainer) == [3.0]


def test_the_last_group_of_an_epoch_counts_by_its_own_size(tmp_path: Path) -> None:
    # Three batches in groups of two: the second step has one batch, whose loss counts in full.
    trainer = train(
        tmp_path,
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        logging_steps=1,
        learning_rate=1e-12,
        given={"train_dataset": Line(24)},
    )
    whole = Line(24)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(42))
    assert losses(trainer) == pytest.approx(
        [float((whole.y[part] ** 2).mean()) for part in (order[:16], order[16:])], rel=1e-5
    )


def test_the_mean_of_the_logged_losses_is_the_training_loss(tmp_path: Path) -> None:
    with Trainer(Model(), arguments(tmp_path, logging_steps=6), train_dataset=Line()) as trainer:
        output = trainer.train()
    assert output.training_loss == pytest.approx(sum(losses(trainer)) / 4, rel=1e-6)


def test_the_training_loss_does_not_depend_on_how_often_it_is_logged(tmp_path: Path) -> None:
    means = [
        train(tmp_path / str(n), logging_steps=n).state.log_history[-1]["train_loss"]
        for n in (1, 5, 500)
    ]
    assert means == pytest.approx([means[0]] * 3, rel=1e-6)


class Blinks(Model):
    """Give a loss that is NaN in the batches counted in `when`."""

    def __init__(self, *when: int) -> None:
        super().__init__()
        self.when = when
        self.calls = 0

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        self.calls += 1
        y = x * self.a + self.b
        factor = math.nan if self.calls in self.when else 1.0
        # Infinite in the log only: the gradient stays what it was.
        loss = nn.functional.mse_loss(y, labels)  # type: ignore[arg-type]
        return loss + (factor - 1.0)


def test_a_loss_that_is_nan_counts_as_the_mean_of_its_window(tmp_path: Path) -> None:
    clean = train(tmp_path / "clean", max_steps=2, logging_steps=1, learning_rate=1e-12)
    blinking = train(
        tmp_path / "blinking",
        model=Blinks(3),
        max_steps=3,
        logging_steps=3,
        learning_rate=1e-12,
    )
    # The NaN counts as the sum so far over 1 + the two steps since the last log, as in
    # transformers.
    first, second = losses(clean)
    assert losses(blinking) == pytest.approx([(first + second) * (1 + 1 / 3) / 3], rel=1e-5)


def test_a_nan_loss_is_logged_as_it_is_without_the_filter(tmp_path: Path) -> None:
    trainer = train(
        tmp_path,
        model=Blinks(1),
        max_steps=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        max_grad_norm=0,
    )
    assert math.isnan(losses(trainer)[0])
    assert math.isfinite(losses(trainer)[1])


def test_gradients_are_clipped_and_the_norm_before_is_logged(tmp_path: Path) -> None:
    norms: list[float] = []

    class Norms(Recorder):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            gradients = [p.grad for p in kwargs["model"].parameters()]
            norms.append(float(nn.utils.get_total_norm(gradients)))

    trainer = train(tmp_path, Norms(), max_steps=1, logging_steps=1, max_grad_norm=0.5)
    assert norms == pytest.approx([0.5], rel=1e-4)
    assert trainer.state.log_history[0]["grad_norm"] > 1


def test_the_norm_is_logged_where_nothing_is_clipped(tmp_path: Path) -> None:
    clipped = train(tmp_path / "1", max_steps=1, logging_steps=1)
    free = train(tmp_path / "2", max_steps=1, logging_steps=1, max_grad_norm=0)
    assert free.state.log_history[0]["grad_norm"] == clipped.state.log_history[0]["grad_norm"]


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("linear", [0.0, 0.5, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.0, 0.5, 1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]),
        ("constant", [1.0] * 6),
        ("constant_with_warmup", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    tmp_path: Path, kind: str, rates: list[float]
) -> None:
    trainer = train(
        tmp_path,
        max_steps=6,
        warmup_steps=2,
        logging_steps=1,
        learning_rate=1.0,
        lr_scheduler_type=kind,
    )
    logged = [entry["learning_rate"] for entry in history(trainer)[:-1]]
    assert logged == pytest.approx(rates)


def test_biases_and_norms_do_not_decay(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.norm = nn.LayerNorm(2)
            nn.init.ones_(self.linear.bias)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return 0.0 * self.norm(self.linear(x[:, None].expand(-1, 2))).sum()

    model = Net()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(tmp_path, model=model, weight_decay=0.5, max_steps=1)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"linear.weight"}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda loss, y: loss,
        lambda loss, y: {"loss": loss},
        lambda loss, y: SimpleNamespace(loss=loss),
    ],
    ids=["scalar", "mapping", "object"],
)
def test_a_loss_is_found_wherever_a_model_may_put_it(tmp_path: Path, wrap: Any) -> None:
    class Wrapped(Model):
        def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
            return wrap(*super().forward(x, labels))

    found = train(tmp_path / "found", model=Wrapped(), max_steps=2, logging_steps=1)
    assert losses(found) == losses(train(tmp_path / "tuple", max_steps=2, logging_steps=1))


def test_a_model_without_a_loss_is_told_so(tmp_path: Path) -> None:
    class Lossless(Model):
        def forward(self, x: torch.Tensor, labels: Any = None) -> Any:
            return (x,)

    with pytest.raises(ConfigurationError, match="Lossless gave no loss for a batch of keys x, la"):
        train(tmp_path, model=Lossless())


def test_bf16_computes_in_bfloat16_and_keeps_the_weights_as_they_are(tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()

    class Sees(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            y = self.linear(x[:, None])
            seen.add(y.dtype)
            return nn.functional.mse_loss(y[:, 0].float(), labels)

    model = Sees()
    train(tmp_path, model=model, bf16=True, max_steps=1)
    assert seen == {torch.bfloat16}
    assert model.linear.weight.dtype == torch.float32


compiles = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
"""torch uses what it deprecates."""


@compiles
def test_a_compiled_model_learns_the_same_and_is_saved_without_its_wrapper(
    tmp_path: Path,
) -> None:
    options = {"gradient_accumulation_steps": 2, "max_steps": 4, "logging_steps": 1}
    plain = train(tmp_path / "plain", **options)
    compiled = train(tmp_path / "compiled", torch_compile=True, **options)
    torch.testing.assert_close(weights(compiled), weights(plain))
    load_weights(Model(), tmp_path / "compiled" / "checkpoint-4")


@compiles
def test_gradients_keep_their_memory_between_steps_where_cuda_graphs_write_them(
    tmp_path: Path,
) -> None:
    memory: set[int] = set()

    class Looks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            parameters = kwargs["model"].parameters()
            memory.update(parameter.grad.data_ptr() for parameter in parameters)

    train(
        tmp_path,
        Looks,
        torch_compile_mode="reduce-overhead",
        gradient_accumulation_steps=2,
        max_steps=3,
    )
    assert len(memory) == 2


def test_a_given_optimizer_and_schedule_are_used(tmp_path: Path) -> None:
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=1)
    trainer = train(
        tmp_path,
        model=model,
        max_steps=2,
        logging_steps=1,
        given={"optimizers": (optimizer, schedule)},
    )
    rates = [entry["learning_rate"] for entry in history(trainer)[:2]]
    assert rates == [0.125, 0.25]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [(None, [0.25] * 5), ("score", [0.25, 0.25, 0.125, 0.0625, 0.03125])],
)
def test_a_plateau_schedule_goes_by_the_metric_of_each_evaluation(
    tmp_path: Path, metric: str | None, expected: list[float]
) -> None:
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    scores = iter([2.0, 1.0, 1.0, 1.0])
    trainer = train(
        tmp_path,
        model=model,
        max_steps=5,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        eval_on_start=True,
        metric_for_best_model=metric,
        given={
            "optimizers": (optimizer, schedule),
            "compute_metrics": lambda prediction: {"score": next(scores, 1.0)},
        },
    )
    rates = [entry["learning_rate"] for entry in history(trainer) if "learning_rate" in entry]
    assert rates == expected


class ReadsOfTensors(TorchDispatchMode):
    """Count the reads of a tensor's value by the host, each of which would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_no_step_reads_the_value_of_a_tensor(tmp_path: Path) -> None:
    reads = ReadsOfTensors()
    with Trainer(
        Model(),
        arguments(
            tmp_path,
            gradient_accumulation_steps=2,
            logging_strategy="no",
            save_strategy="no",
            max_grad_norm=0.5,
        ),
        train_dataset=Line(),
        callbacks=[
            Recorder(
                on_step_begin=lambda state, control: reads.__enter__(),
                on_step_end=lambda state, control: reads.__exit__(None, None, None),
            )
        ],
    ) as trainer:
        trainer.train()
    assert reads.count == 0
    with reads:
        float(torch.ones(()))
    assert reads.count == 1
