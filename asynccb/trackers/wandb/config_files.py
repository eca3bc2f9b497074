"""
What W&B's own tools leave in files: settings and keys.

Promises: the same files, in the same order, as the `wandb` package reads; a file that cannot be
read is said, without quoting from it.
"""

from __future__ import annotations

import configparser
import logging
import netrc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from asynccb._ground.environment import expanded
from asynccb._ground.exceptions import AccessError

logger = logging.getLogger("asynccb")

_SECTION: Final = "default"
_FORGE: Final = ("api.forge.coreweave.com", "forge.coreweave.com")
"""Other names of `api.wandb.ai`, the same deployment, since `wandb` 0.31."""
_CLOUD: Final = "api.wandb.ai"


def setting(name: str, environ: Mapping[str, str], directory: str | None = None) -> str | None:
    """
    Return a setting of the settings files, the project's before the user's.

    The files are `wandb/settings` below `WANDB_DIR`, or the working directory, and `settings` in
    `WANDB_CONFIG_DIR`, by default `~/.config/wandb`. Raises `AccessError` for a broken file.
    """
    for file in _settings_files(environ, directory):
        parsed = configparser.RawConfigParser()
        try:
            parsed.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            # The error's own text would quote a line, which may hold a key.
            raise AccessError(
                f"{file} is no settings file of W&B: it takes a section [{_SECTION}] with lines "
                "such as base_url = https://api.wandb.ai"
            ) from None
        except OSError as error:
            raise AccessError(f"{file} cannot be read: {error.strerror}") from None
        value = parsed.get(_SECTION, name, fallback="").strip()
        if value:
            return value
    return None


def _settings_files(environ: Mapping[str, str], directory: str | None) -> Iterator[Path]:
    root = expanded(directory or environ.get("WANDB_DIR", "").strip() or ".")
    yield root / "wandb" / "settings"
    own = environ.get("WANDB_CONFIG_DIR", "").strip() or "~/.config/wandb"
    yield expanded(own) / "settings"


def saved_key(base_url: str, environ: Mapping[str, str]) -> str | None:
    """
    Return the key that `wandb login` has saved for a server: the password of its netrc entry.

    The file is `$NETRC`, else `~/.netrc`, else `~/_netrc`. Raises `AccessError` if the file
    cannot be read.
    """
    file = _netrc(environ)
    if file is None:
        return None
    try:
        entries = netrc.netrc(file)
    except netrc.NetrcParseError as error:
        raise AccessError(f"line {error.lineno} of {file} is no line of a netrc file") from None
    except UnicodeDecodeError:  # many programs read it, and this run may not even need W&B
        logger.warning("W&B: %s is no text in UTF-8, and no key is looked for there", file)
        return None
    except OSError as error:
        raise AccessError(f"{file} cannot be read: {error.strerror}") from None
    host = urlsplit(base_url).netloc
    names = (_CLOUD, *_FORGE) if host in (_CLOUD, *_FORGE) else (host,)
    for name in names:
        # `authenticators` would give the default entry, another server's key, for any host.
        found = entries.hosts.get(name)
        if found is not None and found[2]:
            return found[2]
    return None


def _netrc(environ: Mapping[str, str]) -> Path | None:
    given = environ.get("NETRC", "").strip()
    if given:
        return expanded(given)
    files = (expanded("~/.netrc"), expanded("~/_netrc"))
    return next((file for file in files if file.is_file()), None)
