"""
A CodeCarbon tracker's settings: from its constructor, or from the places that CodeCarbon 3.3 reads.

These are `~/.codecarbon.config`, `./.codecarbon.config`, and environment variables
`CODECARBON_<KEY>`; a later place wins. Promises: an invalid setting raises in the constructor; the
stored settings contain no credential (CodeCarbon looks those up itself).
"""

from __future__ import annotations

import configparser
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asynccb._ground.environment import expanded
from asynccb._ground.exceptions import ConfigurationError
from asynccb.trackers.shared.packages import folder_of

_FILE: Final = ".codecarbon.config"
_PREFIX: Final = "codecarbon_"
_COUNTRIES: Final = "data/private_infra/global_energy_mix.json"
_REMOTE: Final = ("api", "prometheus", "logfire", "boamps")
"""CodeCarbon's outputs beside the CSV file, which we write."""


@dataclass(frozen=True)
class CodeCarbonSettings:
    """The settings as plain data; `CodeCarbonCallback` documents them."""

    country_iso_code: str | None
    offline: bool
    """Whether CodeCarbon makes no network request, because it knows the machine's location."""
    output_dir: str | None
    """Absolute; None for the run's `output_dir`."""
    output_file: str
    origin: str
    """Working directory of the training process; the run's directory is relative to it."""
    csv: bool
    outputs: list[str]
    """Further outputs of CodeCarbon."""
    measure_power_secs: float
    live_interval: int
    """Measurements between two rows and offers."""
    log_level: str


def resolve(given: Mapping[str, Any], environ: Mapping[str, str]) -> CodeCarbonSettings:
    """Return the settings: the arguments, and for each that is None, CodeCarbon's setting."""
    folder = None if given["output_dir"] is None else os.fspath(given["output_dir"])
    found = configured(environ)
    mode = found.get("tracking_mode", "machine")
    if mode != "machine":
        raise ConfigurationError(
            f"CODECARBON_TRACKING_MODE is {mode!r}; the measuring process is not the one that "
            "trains, so only 'machine' makes sense"
        )
    country = _country(given["country_iso_code"] or found.get("country_iso_code"))
    in_cloud = bool(found.get("cloud_provider") and found.get("cloud_region"))
    directory = _directory(folder or found.get("output_dir"))
    methods = _methods(found)
    outputs = [method for method in methods if method != "csv"]
    return CodeCarbonSettings(
        country_iso_code=country,
        offline=country is not None or in_cloud,
        output_dir=directory,
        output_file=found.get("output_file", "emissions.csv"),
        origin=os.getcwd(),
        csv="csv" in methods,
        outputs=outputs,
        measure_power_secs=_seconds(given["measure_power_secs"], found),
        live_interval=_interval(found, remote=bool(outputs or found.get("emissions_endpoint"))),
        log_level=found.get("log_level", "warning"),
    )


def configured(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the files and the environment, by key, as CodeCarbon reads them."""
    found: dict[str, str] = {}
    for folder in (expanded(environ.get("HOME") or "~"), Path.cwd()):
        found.update(_of_file(folder / _FILE))
    for name, value in environ.items():
        if name.lower().startswith(_PREFIX):
            found[name.lower().removeprefix(_PREFIX)] = value
    return found


def _of_file(file: Path) -> dict[str, str]:
    parser = configparser.ConfigParser()
    try:
        parser.read(file)
        return dict(parser["codecarbon"]) if parser.has_section("codecarbon") else {}
    except (configparser.Error, UnicodeDecodeError) as error:
        # The error's own text would quote a line, which may contain a key.
        raise ConfigurationError(f"{file} cannot be read: {_why(error)}") from None


def _why(error: configparser.Error | UnicodeDecodeError) -> str:
    """Return the fault of a file, without quoting from it."""
    if isinstance(error, configparser.InterpolationError):
        return f"the value of {error.option} has a %, which is written as %% there"
    if isinstance(error, UnicodeDecodeError):
        return f"it is no text in {error.encoding}"
    lines = getattr(error, "errors", None) or [(getattr(error, "lineno", "?"),)]
    return f"line {lines[0][0]} cannot be there"


def _directory(given: str | None) -> str | None:
    if given is None:
        return None
    directory = os.path.abspath(os.path.expanduser(given))
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise ConfigurationError(f"output_dir is {given!r}, which is no directory")
    return directory


def _country(code: object) -> str | None:
    if code is None or code == "":
        return None
    known = _countries()
    if isinstance(code, str) and (code.upper() in known if known else len(code) == 3):
        return code.upper()
    raise ConfigurationError(
        f"country_iso_code is {code!r}; it takes the three letters of a country that CodeCarbon "
        "knows, such as 'FRA'"
    )


def _countries() -> frozenset[str]:
    """Return the countries whose energy mix CodeCarbon knows; empty if its data has moved."""
    folder = folder_of("codecarbon")
    try:
        return frozenset(json.loads((folder or Path()).joinpath(_COUNTRIES).read_text()))
    except (OSError, ValueError):
        return frozenset()


def _methods(found: Mapping[str, str]) -> list[str]:
    text = found.get("output_methods")
    if text is None:
        csv = ["csv"] if _is_on(found.get("save_to_file", "true")) else []
        return csv + [name for name in _REMOTE if _is_on(found.get(f"save_to_{name}", ""))]
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in ("csv", *_REMOTE):
            raise ConfigurationError(
                f"CODECARBON_OUTPUT_METHODS names {name!r}; here it takes "
                f"{', '.join(('csv', *_REMOTE))}"
            )
    return names


def _is_on(text: str) -> bool:
    return text.lower() == "true"  # like CodeCarbon, which does not accept "1"


def _seconds(given: object, found: Mapping[str, str]) -> float:
    value = given if given is not None else found.get("measure_power_secs", "15")
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if 0 < seconds < math.inf:
        return seconds
    raise ConfigurationError(f"measure_power_secs is {value!r}; it takes seconds above 0")


def _interval(found: Mapping[str, str], *, remote: bool) -> int:
    """Return CodeCarbon's `api_call_interval`, by default 8 if a service is called, else 1."""
    text = found.get("api_call_interval", "8" if remote else "1")
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError(
            f"CODECARBON_API_CALL_INTERVAL is {text!r}; it takes a number of measurements, or -1"
        ) from None
