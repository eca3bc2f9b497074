"""
One session of measuring with CodeCarbon 3.3, on a thread of its own.

Finding out what the hardware is takes seconds, and where no country is configured CodeCarbon asks
the network too; so all calls are made on that thread, and nobody waits for it but `end`, which
waits for the last measurement alone. CodeCarbon's own timers measure meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asynccb.trackers.codecarbon.settings import CodeCarbonSettings

Row = dict[str, Any]


class Session:
    """Prepare at once, measure from `begin` to `end`."""

    def __init__(
        self,
        settings: CodeCarbonSettings,
        folder: Path,
        run_id: str,
        measured: Callable[[Row], None],
    ) -> None:
        """Take what is called, on a thread of CodeCarbon's, with what was measured so far."""
        self._settings = settings
        self._folder = folder
        self.run_id = run_id
        self._measured = measured
        self._wanted = threading.Event()
        self._over = threading.Event()
        self._runs = False
        self._dropped = False
        self.error: Exception | None = None
        """What CodeCarbon raised, if it did."""
        self._thread = threading.Thread(target=self._run, name="asynccb-codecarbon", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Measure from now on, or from when the hardware is known."""
        self._wanted.set()

    def end(self) -> bool:
        """
        Measure for the last time, and return when that was told; blocks for about 0.1 s.

        Returns False, at once, where the measuring had not begun: the hardware was not known yet.
        """
        self._dropped = not self._runs
        self.leave()
        if not self._dropped:
            self._thread.join()
        return not self._dropped

    def leave(self) -> None:
        """Have it come to its end without waiting for that."""
        self._over.set()
        self._wanted.set()

    def _run(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            tracker = make_tracker(self._settings, self._folder, self)
            tracker.run_id = self.run_id
            tracker.get_detected_hardware()
            self._wanted.wait()
            if self._over.is_set():
                return
            tracker.start()
            self._runs = True
            self._over.wait()
            tracker.stop()
        except Exception as error:  # noqa: BLE001 - a vendor's code, with the machine's drivers
            self.error = error

    # -- what CodeCarbon calls on its outputs, on its threads --------------------------------------

    def live_out(self, total: Any, delta: Any) -> None:
        """Take what was measured so far; the last is said by `out`."""
        if not self._over.is_set():
            self._measured(asdict(total))

    def out(self, total: Any, delta: Any) -> None:
        """Take what was measured in all."""
        if not self._dropped:
            self._measured(asdict(total))

    def task_out(self, data: Any, experiment_name: str) -> None:
        """Take the measurements of a part of a session; there are none."""

    def exit(self) -> None:
        """Take it that the session is over."""


def make_tracker(settings: CodeCarbonSettings, folder: Path, output: object) -> Any:
    """Return CodeCarbon's tracker, which tells what it measures to `output`; imports it."""
    from codecarbon import EmissionsTracker, OfflineEmissionsTracker
    from codecarbon.output_methods.base_output import OutputMethod

    given: dict[str, Any] = {
        "output_dir": str(folder),  # not for the table, which is ours to write, but it must exist
        "measure_power_secs": settings.measure_power_secs,
        "api_call_interval": settings.live_interval,
        "output_methods": [OutputMethod(name) for name in settings.outputs],
        "output_handlers": [output],
        # The lock of a single run takes over the process's signals.
        "allow_multiple_runs": True,
        "log_level": settings.log_level,
    }
    if not settings.offline:
        return EmissionsTracker(**given)
    if settings.country_iso_code is not None:
        given["country_iso_code"] = settings.country_iso_code
    return OfflineEmissionsTracker(**given)
