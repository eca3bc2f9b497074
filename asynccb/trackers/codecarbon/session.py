"""
Measure one session with CodeCarbon 3.3, on its own thread.

Detecting the hardware takes seconds, and if no country is configured, CodeCarbon also uses the
network. So all calls to CodeCarbon are made on that thread. Only `end` waits for the thread, and
only for the last measurement. CodeCarbon measures with timers of its own.
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
    """A session that prepares at once and measures from `begin` to `end`."""

    def __init__(
        self,
        settings: CodeCarbonSettings,
        folder: Path,
        run_id: str,
        measured: Callable[[Row], None],
    ) -> None:
        """Call `measured`, on one of CodeCarbon's threads, with the measurements so far."""
        self._settings = settings
        self._folder = folder
        self.run_id = run_id
        self._measured = measured
        self._wanted = threading.Event()
        self._over = threading.Event()
        self._runs = False
        self._dropped = False
        self.error: Exception | None = None
        """The exception that CodeCarbon raised, or None."""
        self._thread = threading.Thread(target=self._run, name="asynccb-codecarbon", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Start to measure, now or as soon as the hardware is known."""
        self._wanted.set()

    def end(self) -> bool:
        """
        Measure for the last time, and return once the result is reported; block for about 0.1 s.

        If measuring has not begun, because the hardware is not yet known, return False at once.
        """
        self._dropped = not self._runs
        self.leave()
        if not self._dropped:
            self._thread.join()
        return not self._dropped

    def leave(self) -> None:
        """Tell the session to end, without waiting for its end."""
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

    # -- the methods of an output, which CodeCarbon calls on its threads ---------------------------

    def live_out(self, total: Any, delta: Any) -> None:
        """Report the measurements so far; `out` reports the last ones."""
        if not self._over.is_set():
            self._measured(asdict(total))

    def out(self, total: Any, delta: Any) -> None:
        """Report the measurements of the whole session."""
        if not self._dropped:
            self._measured(asdict(total))

    def task_out(self, data: Any, experiment_name: str) -> None:
        """Do nothing: sessions here have no parts to measure."""

    def exit(self) -> None:
        """Do nothing at the end of the session."""


def make_tracker(settings: CodeCarbonSettings, folder: Path, output: object) -> Any:
    """Import CodeCarbon and return its tracker, which reports measurements to `output`."""
    from codecarbon import EmissionsTracker, OfflineEmissionsTracker
    from codecarbon.output_methods.base_output import OutputMethod

    given: dict[str, Any] = {
        "output_dir": str(folder),  # must exist, although we write the table ourselves
        "measure_power_secs": settings.measure_power_secs,
        "api_call_interval": settings.live_interval,
        "output_methods": [OutputMethod(name) for name in settings.outputs],
        "output_handlers": [output],
        # CodeCarbon's lock for a single run takes over the process's signals.
        "allow_multiple_runs": True,
        "log_level": settings.log_level,
    }
    if not settings.offline:
        return EmissionsTracker(**given)
    if settings.country_iso_code is not None:
        given["country_iso_code"] = settings.country_iso_code
    return OfflineEmissionsTracker(**given)
