"""
The shape of traffic with a W&B server: what is sent, without the values.

`traffic.json` has that of the vendor's package `wandb` 0.31.0, recorded at this server with
`python tests/trackers/wandb/traffic.py` (which needs the package), and from captures of the same
version at another one. What it sends for files of 2 GiB and more is read from its program.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[3]))

from graphql import parse, print_ast
from graphql.language import (
    FieldNode,
    FragmentSpreadNode,
    OperationDefinitionNode,
)

from tests.support.launching import command
from tests.trackers.traffic import captured, kinds, record
from tests.trackers.wandb.server import KEY, Sent, wandb_server


def facts_of(sent: Iterable[Sent]) -> set[str]:
    """Return the facts about requests."""
    return {fact for request in sent for fact in _facts(request)}


def _facts(request: Sent) -> Iterator[str]:
    path = request.path.partition("?")[0]
    if request.method == "PUT":
        for name in ("authorization", "content-md5", "content-type", "content-length"):
            if name in request.headers:
                yield f"PUT sends {name}"
        return
    for name in ("authorization", "content-type", "content-encoding"):
        if name in request.headers:
            where = "graphql" if path == "/graphql" else "file_stream"
            yield f"{where} sends {name}: {request.headers[name].split()[0].partition(';')[0]}"
    if path == "/graphql":
        yield from _of_document(request.json)
    elif path.endswith("/file_stream"):
        yield "POST /files/<entity>/<project>/<run>/file_stream"
        yield from _of_stream(request.json)


def _of_document(body: dict[str, Any]) -> Iterator[str]:
    document = parse(body["query"])
    fragments = {d.name.value: d for d in document.definitions if hasattr(d, "type_condition")}
    for operation in document.definitions:
        if not isinstance(operation, OperationDefinitionNode) or operation.name is None:
            continue
        name = f"{operation.operation.value} {operation.name.value}"
        yield name
        types = {v.variable.name.value: print_ast(v.type) for v in operation.variable_definitions}
        for variable, kind in types.items():
            yield f"{name} ${variable}: {kind}"
        for variable, value in (body.get("variables") or {}).items():
            for path, kind in kinds(value, variable):
                yield f"{name} ${path} = {kind}"
            if variable == "config" and value is not None:
                yield from _of_config(json.loads(value))

        for path, arguments in _selected(operation, fragments, ""):
            # One line for each argument: who sends fewer sends no others.
            yield f"{name} {path}"
            yield from (f"{name} {path}({one})" for one in arguments)


def _of_config(config: dict[str, Any]) -> Iterator[str]:
    for key, entry in config.items():
        yield f"config entry: {sorted(entry)}"
        if key == "_wandb":
            for path, kind in kinds(entry["value"], key):
                # Each process that writes to a run has an entry under an id of its own.
                yield (
                    "config "
                    + re.sub(r"_wandb\.e\.[^. ]+", "_wandb.e.<writer>", path)
                    + f" = {kind}"
                )


def _selected(node: Any, fragments: dict[str, Any], prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each field that is asked for, by its path, with its arguments."""
    for part in node.selection_set.selections if node.selection_set else ():
        if isinstance(part, FieldNode):
            path = f"{prefix}.{part.name.value}"
            yield path, sorted(_arguments(part))
            yield from _selected(part, fragments, path)
        else:
            inner = fragments[part.name.value] if isinstance(part, FragmentSpreadNode) else part
            yield from _selected(inner, fragments, prefix)


def _arguments(field: FieldNode) -> Iterator[str]:
    for argument in field.arguments:
        text = print_ast(argument.value)
        if text.startswith("{"):
            for key, value in re.findall(r"(\w+): ?([^,}\s]+)", text):
                yield f"{argument.name.value}.{key}: {value}"
        else:
            yield f"{argument.name.value}: {text}"


def _of_stream(body: dict[str, Any]) -> Iterator[str]:
    for key, value in body.items():
        if key != "files":
            yield f"stream {key}: {type(value).__name__}"
    if not body:
        yield "stream {}"
    for name, chunk in body.get("files", {}).items():
        yield f"stream files.{name}: {sorted(chunk)}"
        for line in chunk["content"]:
            if name == "output.log":
                yield f"stream {name} line: {_console_form(line)}"
                continue
            for key, value in json.loads(line).items():
                if key.startswith(("_", "system.")) or (
                    isinstance(value, dict) and "_type" in value
                ):
                    shown = (
                        f"<{value['_type']}>" if isinstance(value, dict) and key[0] != "_" else key
                    )
                    for path, kind in kinds(value, shown):
                        yield f"stream {name} line: {path} = {kind}"


def _console_form(line: str) -> str:
    form = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", "<time>", line)
    return form[: form.index("<time>") + 7]


def _main(captures: Iterable[str]) -> None:
    """Run the vendor's client in all its modes, add captures, and write the file anew."""
    facts: set[str] = set()
    with wandb_server() as server, tempfile.TemporaryDirectory() as folder:
        quiet = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true", "HOME": folder}
        own = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_DIR": folder}
        for mode in ("whole", "resume", "idle", "killed"):
            subprocess.run(
                command("trackers/wandb/vendor_program", mode, "proj", "theirs"),
                env={**os.environ, **quiet, **own},
                cwd=folder,
                check=mode != "killed",
            )
        facts |= facts_of(server.sent)
    facts |= set(_of_document({"query": _document("CompleteMultipartUploadArtifact")}))
    for capture in captures:
        facts |= facts_of(_sent(capture))
    record("wandb", "wandb 0.31.0", facts)


def _document(operation: str) -> str:
    """Return a document as the vendor's client has it: one that it sends for 2 GiB and more."""
    import importlib.util

    spec = importlib.util.find_spec("wandb")
    assert spec is not None
    assert spec.origin is not None
    program = (Path(spec.origin).parent / "bin" / "wandb-core").read_bytes()
    found = re.search(rb"mutation " + operation.encode() + rb" .*?\n}\n", program, re.DOTALL)
    assert found is not None
    return found[0].decode()


def _sent(capture: str) -> Iterator[Sent]:
    """Yield the requests of a capture, but for those to other endpoints."""
    for r in captured(capture):
        if r.target == "/graphql" or "/file_stream" in r.target or r.method == "PUT":
            yield Sent(r.method, r.target, r.headers, r.body)


if __name__ == "__main__":
    _main(sys.argv[1:])
