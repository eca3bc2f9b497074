"""
Make the records of an event file: TensorBoard's `Event` messages, framed.

This module imports the protocol buffers of the `tensorboard` package (no torch, no numpy; 0.05 s,
14 MiB). It is therefore imported only when records are made. Promises: the same arguments give the
same bytes, also for maps.

Scalars are `simple_value`, which is a 32-bit float: a value is rounded to 7 digits, and a value
above 3.4e38 becomes infinity. The alternative is a tensor of doubles. The default data server of
TensorBoard 2.21 does not show such tensors (`DT_DOUBLE` is read only with `--load_fast=false`), and
neither does `EventAccumulator.Scalars`, which scripts use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from asynccb._ground.types import RunStatus
from asynccb.trackers.tensorboard.event_file import frame
from asynccb.trackers.tensorboard.tags import SESSION_END, SESSION_START, TEXT_SUFFIX

_VERSION: Final = "brain.Event:2"
_STATUS: Final[dict[RunStatus, str]] = {
    "finished": "STATUS_SUCCESS",
    "failed": "STATUS_FAILURE",
    "killed": "STATUS_FAILURE",
    "crashed": "STATUS_FAILURE",
}


def header(time: float, start: int | None = None) -> bytes:
    """
    Return the first records of a file: the version and, for `start`, a session's start there.

    From a session's start, a reader hides the records of earlier files from that step on. With
    `--load_fast=false`, it ignores the first session's start of a directory and obeys the others.
    The start is therefore written twice; for the other readers the second one changes nothing.
    """
    version = _framed(event_pb2.Event(wall_time=time, file_version=_VERSION))
    if start is None:
        return version
    session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    return version + 2 * _framed(event_pb2.Event(wall_time=time, step=start, session_log=session))


def values(time: float, step: int, numbers: Mapping[str, float], texts: Mapping[str, str]) -> bytes:
    """Return one record with all numbers and texts of a step, by tag."""
    event = event_pb2.Event(wall_time=time, step=step)
    for tag, number in numbers.items():
        event.summary.value.add(tag=tag, simple_value=number)
    for tag, text in texts.items():
        value = event.summary.value.add(tag=tag + TEXT_SUFFIX)
        value.metadata.plugin_data.plugin_name = "text"
        value.metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
        value.tensor.dtype = types_pb2.DT_STRING
        value.tensor.string_val.append(text.encode("utf-8", "backslashreplace"))
    return _framed(event)


def session_start(time: float, step: int, hparams: Mapping[str, Any]) -> bytes:
    """
    Return the record that adds the run to TensorBoard's hyper-parameter page.

    We write no `experiment` record, on purpose. TensorBoard would choose one run's record at random
    for a whole directory of runs, and show only the columns and metrics that this run had at its
    start. Without such a record, TensorBoard derives the columns, the columns that differ, and the
    metrics from all runs.
    """
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=time)
    for name, value in hparams.items():
        if value is not None:
            _set(info.hparams[name], value)
    return _hparams(time, step, SESSION_START, "session_start_info", info)


def session_end(time: float, step: int, status: RunStatus) -> bytes:
    """Return the record of how the run ended; TensorBoard has no status for a killed run."""
    info = plugin_data_pb2.SessionEndInfo(status=_STATUS[status], end_time_secs=time)
    return _hparams(time, step, SESSION_END, "session_end_info", info)


def _set(target: Any, value: Any) -> None:
    """Fill a `google.protobuf.Value`; test for booleans first, because they are integers too."""
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, str):
        target.string_value = value
    else:
        target.string_value = json.dumps(value, ensure_ascii=False, allow_nan=False)


def _hparams(time: float, step: int, tag: str, kind: str, info: Any) -> bytes:
    content = plugin_data_pb2.HParamsPluginData(version=0, **{kind: info})
    event = event_pb2.Event(wall_time=time, step=step)
    value = event.summary.value.add(tag=tag)
    value.metadata.plugin_data.plugin_name = "hparams"
    value.metadata.plugin_data.content = content.SerializeToString(deterministic=True)
    value.metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
    # A reader drops a value without a tensor, although the data is in the metadata.
    value.tensor.CopyFrom(tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT))
    value.tensor.tensor_shape.dim.add(size=0)
    return _framed(event)


def _framed(event: event_pb2.Event) -> bytes:
    return frame(event.SerializeToString(deterministic=True))
