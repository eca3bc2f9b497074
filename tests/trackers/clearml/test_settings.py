"""Where the ClearML tracker's settings and credentials come from, and which are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynccb._ground.exceptions import AccessError, ConfigurationError
from asynccb.trackers.clearml import ClearMLCallback
from asynccb.trackers.clearml.conf_file import read_configuration
from asynccb.trackers.report_to import get_reporting_integration_callbacks
from tests.support.surroundings import Variables, check_read, go_home
from tests.trackers.clearml.runs import tracker
from tests.trackers.clearml.schema import Schema
from tests.trackers.clearml.server import ACCESS, SECRET, ClearMLServer
from tests.trackers.lane import deliver, play, training

CONF = """
# ClearML SDK configuration file
api {
    # Notice: 'host' is the api server (default port 8008), not the web server.
    api_server: http://api.conf:8008
    web_server: http://web.conf:8080/   // the pages
    files_server: "http://files.conf:8081"
    credentials {"access_key": "THEKEY", "secret_key": "TheSecret+/="}
    http.extra_retry_codes: [500, 504]
}
sdk {
    storage { cache { default_base_dir: "~/.clearml/cache" } }
    development {
        support_stopping: true
        worker { report_period_sec: 2
                 ping_period_sec: 30, log_stdout: True }
    }
}
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go_home(monkeypatch, tmp_path, "CLEARML", "TRAINS")


def made(**given: Any) -> Any:
    return ClearMLCallback(**given).settings


def test_without_anything_it_is_the_vendors_cloud_and_the_names_of_transformers() -> None:
    settings = made()
    assert (settings.api, settings.web, settings.files) == (
        "https://api.clear.ml",
        "https://app.clear.ml",
        "https://files.clear.ml",
    )
    assert (settings.project, settings.task) == ("HuggingFace Transformers", "Trainer")
    assert (settings.log_model, settings.console, settings.offline) == (False, False, False)
    assert (settings.verify, settings.heeds_stop, settings.task_id) == (True, True, None)
    assert (settings.system_metrics, made(system_metrics=False).system_metrics) == (30.0, 0.0)


def test_every_variable_is_read_and_an_argument_goes_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = {"api": "http://here:8008", "web": "http://here:8080", "files": "http://here:8081"}
    variables: Variables = {
        "CLEARML_PROJECT": ("team/proj", {"project": "team/proj"}),
        "CLEARML_TASK": ("task", {"task": "task"}),
        "CLEARML_LOG_MODEL": ("true", {"log_model": True}),
        "CLEARML_API_HOST": ("http://here:8008/", hosts),
        "CLEARML_API_HOST_VERIFY_CERT": ("0", {"verify": False}),
        "CLEARML_API_EXTRA_RETRY_CODES": ("500, 504", {"retried": [500, 504]}),
        "CLEARML_OFFLINE_MODE": ("1", {"offline": True}),
        "CLEARML_TASK_ID": ("abc", {"task_id": "abc", "external": True}),
    }
    check_read(monkeypatch, variables, made)
    given = made(project="other", task="name", log_model=False, task_id="def", tags=["a", "a"])
    assert (given.project, given.task, given.log_model) == ("other", "name", False)
    assert (given.task_id, given.external, given.tags) == ("def", False, ["a"])


def test_the_older_names_of_variables_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINS_API_HOST", "http://old:8008")
    monkeypatch.setenv("TRAINS_PROC_MASTER_ID", "12:taskid")
    assert (made().api, made().task_id, made().external) == ("http://old:8008", "taskid", True)
    monkeypatch.setenv("CLEARML_API_HOST", "http://new:8008")
    assert made().api == "http://new:8008"


def test_the_configuration_file_is_read_and_a_variable_goes_before_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "clearml.conf"
    file.write_text(CONF)
    settings = made()
    assert (settings.api, settings.web) == ("http://api.conf:8008", "http://web.conf:8080")
    assert (settings.files, settings.retried) == ("http://files.conf:8081", [500, 504])
    assert (settings.report, settings.ping, settings.heeds_stop) == (2.0, 30.0, True)
    monkeypatch.setenv("CLEARML_WEB_HOST", "http://web.here")
    assert made().web == "http://web.here"
    file.rename(tmp_path / "other.conf")
    monkeypatch.setenv("CLEARML_CONFIG_FILE", "~/other.conf")
    assert made().api == "http://api.conf:8008"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"project": "ab"}, "3 characters"),
        ({"task": "  x  "}, "3 characters"),
        ({"tags": "one"}, "list"),
        ({"tags": [1]}, "string"),
        ({"log_model": "yes"}, "True or False"),
        ({"console": 1}, "True or False"),
        ({"artifacts": 5}, "path"),
        ({"system_metrics": 0.1}, "at least 1"),
        ({"task_id": ""}, "task_id"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_given(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        ClearMLCallback(**given)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("CLEARML_API_HOST", "api.clear.ml", "http"),
        ("CLEARML_API_HOST", "http://host:port", "http"),
        ("CLEARML_LOG_MODEL", "maybe", "CLEARML_LOG_MODEL"),
        ("CLEARML_API_EXTRA_RETRY_CODES", "503;504", "statuses"),
    ],
)
def test_a_variable_that_cannot_work_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, named: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=named):
        ClearMLCallback()


def test_an_address_with_a_password_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLEARML_FILES_HOST", "http://ada:hunter22@files:8081")
    with pytest.raises(ConfigurationError, match="without a user") as caught:
        ClearMLCallback()
    assert "hunter22" not in str(caught.value)


def test_a_bucket_in_place_of_the_file_server_is_refused_only_where_it_would_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLEARML_FILES_HOST", "s3://bucket/folder")
    assert made().files == "s3://"
    for wanted in ({"log_model": True}, {"artifacts": "results"}):
        with pytest.raises(ConfigurationError, match="CLEARML_FILES_HOST"):
            ClearMLCallback(**wanted)


def test_all_means_it_too_where_there_are_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def named() -> bool:
        return ClearMLCallback in get_reporting_integration_callbacks("all", os.environ)

    assert not named()
    monkeypatch.setenv("CLEARML_API_ACCESS_KEY", "k")
    assert not named()
    monkeypatch.setenv("CLEARML_API_SECRET_KEY", "s")
    assert named()
    monkeypatch.delenv("CLEARML_API_SECRET_KEY")
    (tmp_path / "clearml.conf").write_text(CONF)
    assert named()
    (tmp_path / "clearml.conf").write_text("api {")
    assert named()  # and making it says what is wrong


async def test_credentials_of_the_file_log_in_and_none_at_all_says_what_to_do(
    clearml: ClearMLServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY"):
        monkeypatch.delenv(name)
    without = tracker()
    await play(without, training(1))
    with pytest.raises(AccessError, match="clearml-init"):
        await without.flush()
    await without.close()
    conf = tmp_path / "clearml.conf"
    conf.write_text(f'api.credentials {{ access_key = {ACCESS}, secret_key: "{SECRET}" }}')
    made = tracker()
    await deliver(made, training(1))
    assert clearml.tasks.only().status == "in_progress"
    assert SECRET not in json.dumps(made.state())
    await made.close()
    conf.write_text(f"api.credentials {{ access_key = {ACCESS}, secret_key: wrong }}")
    wrong = tracker()
    await play(wrong, training(1))
    with pytest.raises(
        AccessError, match=r"invalid credentials\) \(401/21\); check that CLEARML_API"
    ):
        await wrong.flush()
    await wrong.close()


# -- the configuration file ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("api {", 1, "} is missing"),
        ("a: 1\n}", 2, "a key is missing"),
        ("a: 1\nb", 2, "neither"),
        ('a: "x\nb: 2', 1, "a value is missing"),
        ('include "other.conf"', 1, "includes"),
        ("a: [1, 2", 1, "] is missing"),
        ('a: "\\q"', 1, "escape"),
        ("{a: 1} b", 1, "after the end"),
    ],
)
def test_a_mistake_is_named_by_its_line_alone(text: str, line: int, why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"line {line} of conf cannot be read: .*{why}"):
        read_configuration(text, {}, "conf")


def test_variables_are_looked_up_where_they_are_asked_for() -> None:
    text = "a: ${HOME}/x\nb: ${?NONE}\nc: ${NONE}\nd: ${a}y\ne: ${e}"
    conf = read_configuration(text, {"HOME": "/root", "e": "E"}, "conf")
    assert [conf.text(name) for name in "abde"] == ["/root/x", None, "/root/xy", "E"]
    with pytest.raises(ConfigurationError, match="NONE"):
        conf.text("c")


WORDS = st.text("abz09_-./:", min_size=1, max_size=8).filter(lambda w: not w.startswith("//"))
QUOTED = st.text('ab #{}[],:=$/"\\\n\té', max_size=8).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
LINES = st.tuples(
    st.sampled_from(["k1", "k2", '"k.3"', "t.k4", "t.k5"]),
    st.sampled_from([":", "=", " : ", " = "]),
    st.one_of(WORDS.filter(lambda w: not w.startswith(":")), QUOTED),
    st.sampled_from(["", " # said", " // said", ",", "   "]),
).map("".join)
TEXTS: list[str] = []


@given(st.lists(LINES, min_size=1, max_size=6), st.booleans())
@settings(max_examples=60, database=None)
def gather(lines: list[str], within: bool) -> None:
    body = "\n".join(lines)
    TEXTS.append(f"t {{\n{body}\n}}\nz: 1" if within else body)


def test_it_reads_what_the_vendors_own_reader_reads(clearml_schema: Schema) -> None:
    gather()
    texts = [CONF, *TEXTS]
    trees = [clearml_schema.parsed(text) for text in texts]
    assert trees[0] is not None
    assert len(texts) - trees.count(None) > 20
    for text, tree in zip(texts, trees, strict=True):
        if tree is None:  # of two readers one may be stricter
            continue
        ours = read_configuration(text, {}, "conf")
        for path, value in leaves(tree):
            assert (ours.text(path) or "") == value.strip(), (text, path)


def leaves(tree: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return texts and numbers by their paths, but for keys with dots in them."""
    found: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += leaves(value, f"{prefix}{key}.")
        elif isinstance(value, str) and "." not in key:
            found.append((prefix + key, value))
    return found
