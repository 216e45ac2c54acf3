"""The user's ssh_config: how they themselves log in on a host.

    Host gw-goethe                # what the inventory calls `host`
        HostName 10.0.0.7
        Port 2222
        User netzpuls
        IdentityFile ~/.ssh/netzpuls
        ProxyJump vpn.example     # or a ProxyCommand

These six are taken, with Include and Match. Nothing in it loosens the check of host keys.

Source: ssh_config(5).
"""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from pathlib import Path

import paramiko
from paramiko.ssh_exception import ConfigParseError

from fleet.errors import READABLE, ConfigurationError

_PLACES = (Path("~/.ssh/config"), Path("/etc/ssh/ssh_config"))
_MOST_DEEP = 16
_INCLUDE = re.compile(r"\s*include(?:\s+|\s*=\s*)(.+?)\s*", re.IGNORECASE)
_BLOCK = re.compile(r"\s*(?:host|match)[\s=]", re.IGNORECASE)
_HOP = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?P<host>\[[^]]+\]|[^:]+)(?::(?P<port>\d+))?/?")


@dataclass(frozen=True)
class Hop:
    """One host of a ProxyJump, as it stands there."""

    host: str
    user: str | None
    port: int | None


@dataclass(frozen=True)
class Entry:
    """What the user's ssh_config says of a host; None where it says nothing."""

    address: str
    port: int | None = None
    user: str | None = None
    identity_file: Path | None = None
    jumps: tuple[Hop, ...] = ()
    proxy: str = ""


class _Config(paramiko.SSHConfig):
    """Leaves the signs in a ProxyCommand: the inventory may know another port or user."""

    TOKENS_BY_CONFIG_KEY = {  # noqa: RUF012 - as Paramiko has it
        **paramiko.SSHConfig.TOKENS_BY_CONFIG_KEY,
        "proxycommand": [],
    }


def lookup(name: str) -> Entry:
    """Return what the user's ssh_config says of a host.

    Raises: ConfigurationError: it cannot be read, or needs what is not served here.
    """
    paths = [path.expanduser() for path in _PLACES]
    config = _config(tuple((path, _changed(path)) for path in paths))
    if config is None:
        return Entry(name)
    try:
        found = config.lookup(name)
    except (ConfigParseError, OSError, ImportError) as error:
        raise ConfigurationError(
            f"your ssh_config cannot be used for {name}: {error}", hint="see ssh -G " + name
        ) from None
    jump = found.get("proxyjump", "none")
    files = [Path(each).expanduser() for each in found.get("identityfile", [])]
    return Entry(
        found["hostname"],
        int(found["port"]) if "port" in found else None,
        found.get("user"),
        next((each for each in files if each.exists()), None),
        () if jump == "none" else tuple(_hop(each, name) for each in jump.split(",")),
        found.get("proxycommand", "") if jump == "none" else "",
    )


def login_name() -> str:
    """Return as whom ssh logs in where nobody says.

    Raises: ConfigurationError: it is not known who runs this.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise ConfigurationError(
            "it is not known who you are", hint="name a User in your ssh_config"
        ) from None


def _hop(text: str, name: str) -> Hop:
    match = _HOP.fullmatch(text.strip())
    if not match:
        raise ConfigurationError(
            f"your ssh_config: ProxyJump {text!r} for {name} is no host", hint="see ssh -G " + name
        )
    return Hop(match["host"].strip("[]"), match["user"], int(match["port"] or 0) or None)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache
def _config(places: tuple[tuple[Path, int], ...]) -> paramiko.SSHConfig | None:
    """Read the files, once as long as they do not change; None if there is none."""
    # The first value of a setting holds. Each file begins outside the blocks of the one before.
    text = "\nHost *\n".join(_text(path, 0) for path, changed in places if changed)
    try:
        return _Config.from_text(text) if text.strip() else None
    except ConfigParseError as error:
        raise ConfigurationError(
            f"your ssh_config cannot be read: {error}", hint="see ssh -G localhost"
        ) from None


def _text(path: Path, depth: int) -> str:
    """Return a file with all that it includes, which Paramiko does not do."""
    if depth > _MOST_DEEP:
        raise ConfigurationError(f"{path} includes itself", hint="mend it: see ssh -G localhost")
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    found, block = [], "Host *"
    base = _PLACES[1].parent if path.is_relative_to(_PLACES[1].parent) else Path("~/.ssh")
    for line in lines:
        if _BLOCK.match(line):
            block = line
        match = _INCLUDE.fullmatch(line)
        if not match:
            found.append(line)
            continue
        for pattern in match[1].split():
            where = base.expanduser() / Path(pattern.strip('"')).expanduser()
            for each in sorted(glob(str(where))):  # noqa: PTH207 - the pattern may be absolute
                # What an included file opens ends with it.
                found += [_text(Path(each), depth + 1), block]
    return "\n".join(found)
