"""
Read settings where Comet's own tools do: in variables, and in the files that save them.

Promises: the same places, in the same order, as `comet_ml` 3.58. A file that cannot be read is
reported, without a quote from it.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from asynccb._ground.environment import expanded
from asynccb._ground.exceptions import AccessError

_SECTION: Final = "comet"
_NAME: Final = ".comet.config"
_COLAB: Final = "/content/drive/MyDrive"


def setting(name: str, environ: Mapping[str, str]) -> str | None:
    """
    Return the value of a setting such as `"api_key"`, or None.

    It is `COMET_API_KEY` in the environment, else in `.env`, else `api_key` in the section
    `[comet]` of `$COMET_CONFIG` (a file or its folder), of `.comet.config` in the working
    directory, in a Colab's drive, or in the home directory. Raises `AccessError` for a file that
    cannot be read.
    """
    variable = f"COMET_{name.upper()}"
    value = environ.get(variable, "").strip() or _dotenv().get(variable, "")
    files = _files(environ)
    while not value and (file := next(files, None)) is not None:
        value = _parsed(file).get(_SECTION, name, fallback="").strip()
    return value or None


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    given = environ.get("COMET_CONFIG", "").strip()
    if given:
        named = expanded(given)
        yield named / _NAME if named.is_dir() else named
    for folder in (".", _COLAB, "~"):
        yield expanded(folder) / _NAME


def _parsed(file: Path) -> configparser.RawConfigParser:
    parsed = configparser.RawConfigParser()
    try:
        parsed.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        # The error's own text would quote a line, which may hold a key.
        raise AccessError(
            f"{file} is no configuration file of Comet: it takes a section [{_SECTION}] with lines "
            "such as workspace = name"
        ) from None
    except OSError as error:
        raise AccessError(f"{file} cannot be read: {error.strerror}") from None
    return parsed


def _dotenv() -> dict[str, str]:
    """Return the assignments in `.env`."""
    try:
        lines = Path(".env").read_text("utf-8").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError):
        raise AccessError(f"{Path('.env').absolute()} cannot be read as text") from None
    found: dict[str, str] = {}
    for line in lines:
        name, is_one, value = line.strip().removeprefix("export ").partition("=")
        if is_one and not name.startswith("#"):
            found[name.strip()] = value.strip().strip("'\"")
    return found
