"""Keys: what a host must show, and what we show it."""

from __future__ import annotations

import contextlib
import struct
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import paramiko
from paramiko.hostkeys import InvalidHostKey
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import PasswordRequiredException, SSHException

from fleet.errors import READABLE, ConfigurationError, HostKeyError
from fleet.ssh.host import Host
from fleet.text import printable

KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("~/.ssh/known_hosts"))


class Strict(paramiko.MissingHostKeyPolicy):
    """Refuses a host of which no key is known."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def missing_host_key(
        self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
    ) -> NoReturn:
        """Say what it showed, and how to trust it on purpose."""
        host = self._host
        raise HostKeyError(
            f"{host.label} ({host.name}): its host key is not known; it showed "
            f"{key.get_name()} {key.fingerprint}",
            hint=f"{compare(key)}if it is the same: {trusting(host)} "
            f"--fingerprint {key.fingerprint}",
            details={"host": host.id, "known": None, "shown": key.fingerprint},
        )


def compare(key: paramiko.PKey) -> str:
    """Return how to find out, at the host itself, whether a key is its own."""
    kind = key.get_name().removeprefix("ssh-").partition("-")[0]
    return f"compare it at the host itself: ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub; "


def trusting(host: Host) -> str:
    """Return the command with which people trust a host's key on purpose."""
    behind = "" if host.label.startswith("gateway ") else "of a gateway behind it "
    return f"netzpuls gateway trust {host.id if not behind else 'ID'} {behind}".strip()


def _public(host: Host) -> tuple[str, paramiko.PKey]:
    """Return the kind and the key of an inventory's host_key.

    Raises: ConfigurationError: it is no public key.
    """
    kind, _, rest = (host.host_key or "").strip().partition(" ")
    try:
        data = b64decode(rest.split()[0], validate=True)
        return kind, paramiko.PKey.from_type_string(kind, data)
    except (IndexError, Base64Error, SSHException, ValueError, UnknownKeyType):
        raise ConfigurationError(
            f"{host.label}: its host_key in inventory.toml is no public key",
            hint="it looks like `ssh-ed25519 AAAA…`, as in /etc/ssh/ssh_host_ed25519_key.pub",
        ) from None


def expected(host: Host) -> Iterator[tuple[str, paramiko.PKey]]:
    """Yield the keys, each with its kind, of which a host must show one.

    Raises: ConfigurationError: a file of known hosts, or the inventory's key, cannot be read.
    """
    if host.host_key:
        yield _public(host)
        return
    if host.known_hosts and (found := _kept(host.known_hosts, host.record)):
        yield from found
        return
    for path in (each.expanduser() for each in KNOWN_HOSTS):
        yield from _kept(path, host.name)


def _kept(path: Path, name: str) -> list[tuple[str, paramiko.PKey]]:
    try:
        found = _known_hosts(path, path.stat().st_mtime_ns).lookup(name)
    except FileNotFoundError:
        return []
    return list((found or {}).items())


@lru_cache
def _known_hosts(path: Path, _changed_ns: int) -> paramiko.HostKeys:
    """Read a known_hosts file, once as long as it does not change.

    Raises: ConfigurationError: it cannot be read.
    """
    try:
        return paramiko.HostKeys(str(path))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    except InvalidHostKey as error:
        raise ConfigurationError(
            f"{path} has a line that is no host key: {printable(str(error.line), 80)}",
            hint="mend or remove that line",
        ) from None


@lru_cache
def _read_identity(path: Path) -> paramiko.PKey | None:
    """Read a private key once; None if only the agent can open it.

    Raises: ConfigurationError: it cannot be read or is no private key.
    """
    try:
        key: paramiko.PKey = paramiko.PKey.from_path(path)
    except (PasswordRequiredException, TypeError):
        return None  # cryptography says TypeError where a passphrase is needed
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the key {path}: {error.strerror}", hint=READABLE
        ) from None
    except (ValueError, SSHException, UnknownKeyType):
        raise ConfigurationError(
            f"{path} is no private key for SSH",
            hint="identity_file in inventory.toml names the private half, not the .pub file",
        ) from None
    return key


# Keys that were opened with a passphrase, for as long as the process lives.
_opened: dict[Path, paramiko.PKey] = {}
_DEFAULTS = ("id_ed25519", "id_ecdsa", "id_rsa")
_TRIES = 3


def identity(path: Path) -> paramiko.PKey | None:
    """Return a private key, read once; None if only the agent can open it.

    Raises: ConfigurationError: it cannot be read or is no private key.
    """
    return _opened.get(path) or _read_identity(path)


def identity_of(host: Host) -> paramiko.PKey | None:
    """Return the private key for a host; None leaves it to the agent and default keys."""
    if host.identity_file:
        return identity(host.identity_file)
    return next((_opened[path] for path in _defaults() if path in _opened), None)


def unlock(hosts: Iterable[Host], ask: Callable[[Path], str]) -> None:
    """Ask for the passphrase of each key that is needed and in no agent, once.

    Args:
        hosts: where we are going to log in.
        ask: returns a passphrase that somebody types.

    Raises: ConfigurationError: a key cannot be read, or the passphrase is wrong.
    """
    hops = {hop for host in hosts for hop in host.way}
    paths = {hop.identity_file for hop in hops if hop.identity_file}
    held: set[bytes] | None = None
    if any(hop.identity_file is None for hop in hops):
        defaults = [path for path in _defaults() if path.is_file()]
        held = _in_agent()
        if not held and all(identity(path) is None for path in defaults):
            paths |= set(defaults[:1])
    for path in sorted(paths):
        if identity(path) is None:
            held = _in_agent() if held is None else held
            if _public_half(path) not in held:
                _opened[path] = _open(path, ask)


def _defaults() -> list[Path]:
    return [Path("~/.ssh").expanduser() / name for name in _DEFAULTS]


def _in_agent() -> set[bytes]:
    agent = paramiko.Agent()
    try:
        return {each.asbytes() for each in agent.get_keys()}
    except SSHException:
        return set()
    finally:
        agent.close()


def _open(path: Path, ask: Callable[[Path], str]) -> paramiko.PKey:
    for _ in range(_TRIES):
        with contextlib.suppress(ValueError, SSHException):
            # Paramiko says str and hands it on to a library that takes bytes only.
            password: Any = ask(path).encode()
            key: paramiko.PKey = paramiko.PKey.from_path(path, password)
            return key
    raise ConfigurationError(
        f"that is not the passphrase of {path}", hint=f"ssh-add {path}, or try again"
    )


def _public_half(path: Path) -> bytes:
    """Return the public half of a locked key: in OpenSSH's format it is not locked.

    Returns: as on the wire; nothing if it is of another format.
    Source: OpenSSH's PROTOCOL.key.
    """
    lines = path.read_text(encoding="ascii", errors="replace").split("\n")
    try:
        data = b64decode("".join(line for line in lines if not line.startswith("-")))
        at = len(b"openssh-key-v1\0")
        for _ in range(3):  # cipher, key derivation, its options
            at += 4 + struct.unpack_from(">I", data, at)[0]
        (length,) = struct.unpack_from(">I", data, at + 4)
        return data[at + 8 : at + 8 + length]
    except (Base64Error, struct.error, ValueError):
        return b""


def public_key(host: Host) -> str:
    """Return the public half of the key that logs in on a host; "" if none is known here.

    Where only an agent can open the private key, its .pub file tells.

    Raises: ConfigurationError: the key cannot be read or is none.
    """
    if host.identity_file is None:
        return ""
    key = identity(host.identity_file)
    if key is not None:
        return f"{key.get_name()} {key.get_base64()}"
    beside = host.identity_file.with_name(host.identity_file.name + ".pub")
    try:
        kind, data = beside.read_text(encoding="ascii").split()[:2]
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{beside} is no public key: {error}", hint=READABLE) from None
    return f"{kind} {data}"
