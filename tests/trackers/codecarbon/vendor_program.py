"""Measure a second with a session of ours, and write what it says with CodeCarbon too: FOLDER."""

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from codecarbon.output_methods.emissions_data import EmissionsData
from codecarbon.output_methods.file import FileOutput

from asynccb.trackers.codecarbon.session import Session, make_tracker
from asynccb.trackers.codecarbon.settings import resolve
from asynccb.trackers.codecarbon.table import write_row

folder = Path(sys.argv[1])
nothing = dict.fromkeys(("country_iso_code", "output_dir", "measure_power_secs"))
settings = resolve({**nothing, "country_iso_code": "FRA", "measure_power_secs": 0.2}, {})


class Both:
    """Take what a session measures, as its outputs do."""

    def __init__(self, name: str) -> None:
        self.theirs = FileOutput("theirs.csv", str(folder), "append")
        self.rows: list[dict[str, object]] = []
        self.session = Session(settings, folder, name, self.rows.append)
        self.out, self.session.out = self.session.out, self.write

    def write(self, total: object, delta: object) -> None:
        self.theirs.out(total, delta)
        self.out(total, delta)


rows = []
for name in ("one", 'two, "quoted"'):
    both = Both(name)
    both.session.begin()
    while len(both.rows) < 3:
        time.sleep(0.01)
    assert both.session.end()
    for row in both.rows:
        write_row(folder / "ours.csv", row)
    rows.append(both.rows)
# Each goes on with the other's file.
both.theirs.save_file_path = str(folder / "ours.csv")
third = EmissionsData(**{**rows[1][-1], "run_id": "three"})
both.theirs.out(third, None)
write_row(folder / "theirs.csv", asdict(third))
nowhere = replace(settings, country_iso_code=None, offline=False)
print(json.dumps([type(make_tracker(s, folder, both)).__name__ for s in (settings, nowhere)]))
print(json.dumps(rows))
