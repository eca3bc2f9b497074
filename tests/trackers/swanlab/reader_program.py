"""Read run files with the vendor's own reader: a folder a line on stdin, its records as JSON."""

import json
import sys
from pathlib import Path

import yaml
from swanlab.proto.swanlab.record.v1.record_pb2 import Record
from swanlab.proto.swanlab.run.v1.run_pb2 import RunState
from swanlab.proto.swanlab.save.v1.save_pb2 import SaveType
from swanlab.sdk.internal.core_python.store import DataStoreReader

CONTENTS = (SaveType.SAVE_TYPE_CONFIG, SaveType.SAVE_TYPE_METADATA)


def read(file: Path) -> dict[str, object]:
    """Return what is in a file, each record in its turn."""
    reader = DataStoreReader()
    reader.open(file)
    found: dict[str, object] = {"state": "running", "error": "", "files": {}}
    scalars, lines, numbers, ends = [], [], [], 0
    while (data := reader.scan()) is not None:  # the iterator would stop at what is broken
        record = Record()
        record.ParseFromString(data)
        assert record.SerializeToString() == data, "the vendor would have written other bytes"
        numbers.append(record.num)
        kind = record.WhichOneof("record_type")
        if kind == "start":
            assert len(numbers) == 1, "a start in the middle"
            found["start"] = {f.name: str(value) for f, value in record.start.ListFields()}
        elif kind == "scalar":
            one = record.scalar
            value = one.value.number
            time = one.timestamp.ToJsonString()
            scalars.append((one.key, one.step, value if value == value else None, time))
        elif kind == "log":
            lines.append((record.log.epoch, record.log.line))
        elif kind == "save" and record.save.type in CONTENTS:
            found[record.save.name] = yaml.safe_load(record.save.payload)
        elif kind == "save":
            found["files"][record.save.name] = Path(record.save.source_path).read_text()
        elif kind == "finish":
            ends += 1
            name = RunState.Name(record.finish.state).removeprefix("RUN_STATE_").lower()
            found["state"], found["error"] = name, record.finish.error
    assert ends <= 1, f"{ends} ends"
    counted = [number for number in numbers if number > 0]
    assert counted == list(range(1, len(counted) + 1)), "records are missing"
    return {**found, "scalars": scalars, "lines": lines}


for line in sys.stdin:
    files = sorted(Path(line.rstrip("\n")).glob("run-*/run-*.swanlab"))
    print(json.dumps([read(file) for file in files]), flush=True)
