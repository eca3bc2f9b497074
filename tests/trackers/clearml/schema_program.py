"""
Check requests with the request classes of the vendor's package, one line of JSON each.

A line has `action` and `body`; the answer is a line with what is wrong, or null. Of the action
`conf` the body is a configuration file, and the answer what it says, or null where the vendor's
reader fails. Takes no network.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["CLEARML_OFFLINE_MODE"] = "1"  # before the package is loaded

from clearml.backend_api.services.v2_23 import events, models, projects, tasks
from clearml.utilities.pyhocon import ConfigFactory

SERVICES = {"events": events, "models": models, "projects": projects, "tasks": tasks}
EVENTS = {
    "training_stats_scalar": events.MetricsScalarEvent,
    "log": events.TaskLogEvent,
}
COMMON = {"type", "allow_locked", "model_event", "method"}
"""What the vendor's client puts into each line beside the event."""


def check(action: str, body: dict[str, Any]) -> None:
    """Raise what the vendor's classes raise for a request that they would not send."""
    body.pop("method", None)
    if action == "events.add":
        kind = EVENTS[body["type"]]
        event = {key: value for key, value in body.items() if key not in COMMON}
        unknown = event.keys() - kind._schema["properties"].keys()
        if unknown:
            raise ValueError(f"no fields of {kind.__name__}: {sorted(unknown)}")
        request = events.AddRequest(event=kind(**event))
        request.validate()
        return
    service, _, name = action.partition(".")
    cls = getattr(SERVICES[service], "".join(p.title() for p in name.split("_")) + "Request")
    request = cls(**body)
    request.validate()
    # A field that the class does not know would have been dropped on the way.
    lost = body.keys() - request.to_dict().keys()
    if lost:
        raise ValueError(f"{cls.__name__} sends no {sorted(lost)}")


def main() -> None:
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        answer = None
        try:
            if given["action"] == "conf":
                answer = ConfigFactory.parse_string(given["body"]).as_plain_ordered_dict()
            else:
                check(given["action"], given["body"])
        except Exception as error:  # noqa: BLE001 - theirs may be anything
            if given["action"] != "conf":
                answer = f"{type(error).__name__}: {str(error)[:300]}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
