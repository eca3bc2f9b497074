"""
Read the Git and DVC repositories around a DVCLive run, from their files.

Promises: starts no program and does not import DVC. A repository that cannot be read counts as
missing. Only `studio_token` returns a credential.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from asynccb._ground.environment import expanded
from asynccb.delivery.answers import public_url
from asynccb.trackers.shared.addresses import server_parts

NO_COMMIT: Final = "0" * 40
"""Placeholder for a missing commit."""


@dataclass(frozen=True)
class Repository:
    """The repositories found in a directory and its parents."""

    git: str | None
    """Root of the working tree."""
    dvc: str | None
    """Directory that contains `.dvc`."""
    commit: str
    """The commit that is checked out."""
    remote: str | None
    """URL of the branch's remote, else of `origin`, without user and password."""


def find_repository(directory: str, environ: Mapping[str, str]) -> Repository:
    """Return the repositories that contain a directory."""
    start = Path(directory)
    git = _above(start, ".git")
    dvc = _above(start, ".dvc")
    commit = remote = None
    if git is not None:
        try:
            branch, commit = _head(git)
            remote = _remote(git, branch, environ, dvc)
        except OSError:
            pass
    return Repository(
        git=None if git is None else str(git),
        dvc=None if dvc is None else str(dvc),
        commit=commit or environ.get("DVC_EXP_BASELINE_REV", "").strip() or NO_COMMIT,
        remote=remote,
    )


def is_experiment(git: str | None, commit: str, name: str) -> bool:
    """Tell whether an experiment with that name was saved for the commit."""
    if git is None:
        return False
    try:
        common = _folders(Path(git))[1]
    except OSError:
        return False
    return _reference(common, f"refs/exps/{commit[:2]}/{commit[2:]}/{name}") is not None


def studio_setting(name: str, dvc: str | None, environ: Mapping[str, str]) -> str | None:
    """Return a setting of DVC's `studio` section: of the repository, else user, else system."""
    return _setting("studio", name, dvc, environ)


def studio_token(dvc: str | None, environ: Mapping[str, str]) -> str:
    """Return the access token of DVC Studio, or ""."""
    for name in ("DVC_STUDIO_TOKEN", "STUDIO_TOKEN"):
        if token := environ.get(name, "").strip():
            return token
    return _setting("studio", "token", dvc, environ) or ""


def without_user(url: str) -> str:
    """
    Return a web address without user, password and query; other addresses (Git's, say) unchanged.

    A broken web address becomes "".
    """
    if not url.lower().startswith(("http:", "https:")):
        return url
    return "" if server_parts(url) is None else public_url(url)


def _above(start: Path, name: str) -> Path | None:
    return next((path for path in (start, *start.parents) if (path / name).exists()), None)


# -- Git -------------------------------------------------------------------------------------------


def _folders(tree: Path) -> tuple[Path, Path]:
    """Return the Git folder of a working tree, and the folder that it shares with other trees."""
    folder = tree / ".git"
    if folder.is_file():
        folder = tree / folder.read_text().removeprefix("gitdir:").strip()
    try:
        common = folder / (folder / "commondir").read_text().strip()
    except FileNotFoundError:
        common = folder
    return folder, common


def _head(tree: Path) -> tuple[str | None, str | None]:
    """Return the branch, or None if HEAD is detached, and the commit, or None before the first."""
    folder, common = _folders(tree)
    head = (folder / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return None, head
    reference = head.removeprefix("ref:").strip()
    commit = _reference(folder, reference) or _reference(common, reference)
    return reference.removeprefix("refs/heads/"), commit


def _reference(folder: Path, reference: str) -> str | None:
    try:
        return (folder / reference).read_text().strip()
    except OSError:
        pass
    try:
        packed = (folder / "packed-refs").read_text().splitlines()
    except OSError:
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {reference}")), None)


def _remote(
    tree: Path, branch: str | None, environ: Mapping[str, str], dvc: Path | None
) -> str | None:
    config = _read([_folders(tree)[1] / "config"])
    named = environ.get("DVC_EXP_GIT_REMOTE", "").strip()
    named = named or _setting("exp", "git_remote", dvc, environ) or ""
    own = config.get(f'branch "{branch}"', {}).get("remote", "")
    for remote in (named, own, "origin"):
        if url := config.get(f'remote "{remote}"', {}).get("url"):
            return without_user(url) or None
    return without_user(named) or None


# -- configuration ---------------------------------------------------------------------------------


def _setting(
    section: str, name: str, dvc: str | Path | None, environ: Mapping[str, str]
) -> str | None:
    home = environ.get("XDG_CONFIG_HOME", "").strip() or "~/.config"
    own = environ.get("DVC_GLOBAL_CONFIG_DIR", "").strip() or os.path.join(home, "dvc")
    system = environ.get("DVC_SYSTEM_CONFIG_DIR", "").strip() or "/etc/xdg/dvc"
    files = [Path(system, "config"), expanded(own) / "config"]
    if dvc is not None:
        files += [Path(dvc, ".dvc", "config"), Path(dvc, ".dvc", "config.local")]
    return _read(files).get(section, {}).get(name) or None


def _read(files: Iterable[Path]) -> dict[str, dict[str, str]]:
    """Return sections with their values; later files win, and unreadable files are skipped."""
    found: dict[str, dict[str, str]] = {}
    for file in files:
        parser = configparser.RawConfigParser(
            strict=False, allow_no_value=True, comment_prefixes=("#", ";")
        )
        try:
            text = file.read_text(encoding="utf-8")
            # The parser would take an indented line as a continuation of the line above.
            parser.read_string("\n".join(line.strip() for line in text.splitlines()))
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        for section in parser.sections():
            values = {k: v.strip().strip("\"'") for k, v in parser.items(section) if v is not None}
            found.setdefault(section.strip("'"), {}).update(values)
    return found
