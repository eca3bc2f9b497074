"""
Let a service stop a training: a hook asks it after every step, and the training does not wait.

An `async def` hook asks a REST service whether the budget is spent. The hook is marked
`@asynccb.decides(lag=2)`: the answer for step s is applied at the end of step s + 2, whether the
service took a millisecond or a second. So the same run stops at the same step every time. If the
service cannot be reached, the hook fails, decides nothing, and the training continues.

    python examples/remote_stop.py

trains a small network on the CPU for a few seconds. Its service runs on loopback, answers after
20 ms and allows 40 steps. Then the example replays the decisions without the service.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import nn

import asynccb


class RemoteStop(asynccb.TrainerCallback):
    """Stops the training when the service says so."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.AsyncClient(timeout=5.0, trust_env=False)

    @asynccb.decides(lag=2, limit=10)
    async def on_step_end(
        self,
        args: asynccb.TrainingArguments,
        state: asynccb.TrainerState,
        control: asynccb.TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Ask the service about this step."""
        answer = await self.client.get(self.url, params={"step": state.global_step})
        answer.raise_for_status()
        control.should_training_stop = answer.json()["stop"]

    async def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Close the connection."""
        await self.client.aclose()


def train(callback: RemoteStop, options: argparse.Namespace, replay: Path | None = None) -> int:
    """Train, and return the number of steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.Adam(model.parameters())
    with asynccb.CallbackDispatcher(
        [callback],
        max_steps=options.steps,
        model=model,
        directory=options.output / "asynccb",
        replay=replay,
    ) as run:
        while True:
            x = torch.randn(512, 32)
            loss = nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            time.sleep(0.02)  # a step of a larger network takes this long
            if run.step(logs={"loss": loss.detach()}).should_training_stop:
                run.save_trace(options.output)
                return run.state.global_step


@contextmanager
def service(allowed: int) -> Iterator[str]:
    """Run the service on loopback; it says stop from step `allowed` on."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(0.02)
            step = int(self.path.rpartition("=")[2])
            body = json.dumps({"stop": step >= allowed}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0].strip())
    parser.add_argument("--steps", type=int, default=100, help="steps at most (default: 100)")
    parser.add_argument("--allowed", type=int, default=40, help="steps that the service allows")
    parser.add_argument("--output", type=Path, default=Path("remote_stop"), help="where to write")
    return parser.parse_args()


def main() -> None:
    """Train with the service, then replay without it."""
    options = read_options()
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "decisions.jsonl").unlink(missing_ok=True)
    with service(options.allowed) as url:
        steps = train(RemoteStop(url), options)
    trace = options.output / "decisions.jsonl"
    if steps == options.steps and not trace.exists():  # nothing was decided
        print(f"trained to the end, {steps} steps: the service allowed them all")
        return
    print(f"stopped after {steps} steps: the service said stop for step {options.allowed}")
    again = train(RemoteStop("http://127.0.0.1:9/"), options, trace)
    print(f"replayed without the service: stopped after {again} steps")


if __name__ == "__main__":
    main()
