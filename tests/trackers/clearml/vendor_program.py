"""Use the vendor's own package: MODE (whole, failed, read) [TASK]; prints JSON of what it reads."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

# It asks a server of the vendor's for updates: let it find nobody there.
os.environ |= {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

from clearml import OutputModel, Task

mode, *rest = sys.argv[1:]


def read(task_id: str) -> dict[str, object]:
    """Return what the vendor's client makes of a task."""
    task = Task.get_task(task_id=task_id)
    (model,) = task.models["output"]
    return {
        "status": task.get_status(),
        "name": task.name,
        "project": task.get_project_name(),
        "tags": task.get_tags(),
        "parameters": task.get_parameters(cast=True),
        "configuration": task.get_configuration_object_as_dict("Model Configuration"),
        "artifacts": {
            name: Path(artifact.get_local_copy()).read_text()
            for name, artifact in task.artifacts.items()
        },
        "hashes": {name: artifact.hash for name, artifact in task.artifacts.items()},
        "model": model.name,
        "framework": model.framework,
        "files": {
            path.name: path.read_text()
            for path in Path(model.get_local_copy(extract_archive=True)).rglob("*")
            if path.is_file()
        },
        "scalars": task.get_reported_scalars(),
        "singles": task.get_reported_single_values(),
    }


if mode == "read":
    print(json.dumps(read(rest[0])))
    sys.exit()

task = Task.init(
    "theirs",
    "vendor",
    tags=["t1"],
    output_uri=True,
    auto_connect_frameworks=False,
    auto_connect_arg_parser=False,
    auto_resource_monitoring=False,
)
task.connect({"lr": 0.1, "nest": {"a": 1}, "flag": True}, name="Transformers")
task.set_configuration_object("Model Configuration", config_dict={"x": 1}, description="d")
log = task.get_logger()
for step in range(1, 6):
    log.report_scalar("train", "loss", 1 / step, step)
    log.report_scalar("eval", "loss", 1 / step, step)
log.report_single_value("train_loss", 0.25)
print("a line of the console")
if mode == "failed":
    task.mark_failed(status_reason="why", status_message="what")
    sys.exit()
with tempfile.TemporaryDirectory() as folder:
    for name in ("model.bin", "state.json"):
        Path(folder, name).write_text(name)
    task.upload_artifact("result", str(Path(folder, "model.bin")), wait_on_upload=True)
    model = OutputModel(task=task, name="checkpoint-5", framework="PyTorch")
    model.connect(task=task, name="checkpoint-5")
    model.update_weights_package(
        weights_path=folder, target_filename="checkpoint-5", iteration=5, auto_delete_file=False
    )
    task.flush(wait_for_uploads=True)
time.sleep(3.0)  # it looks at the status every two seconds
task.mark_completed()
