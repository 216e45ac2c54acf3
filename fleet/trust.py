"""Host keys that somebody trusted on purpose: known_hosts in the city's folder.

    gw-mitte ssh-ed25519 AAAA… 10.0.0.7, 2026-12-01, Erika Muster
    jump/vpn ssh-ed25519 AAAA… vpn.example, 2026-12-01, Erika Muster

In OpenSSH's form, by the inventory's ids: the same private address at two schools is two hosts. It
holds nothing secret and belongs into git. With ssh: -o UserKnownHostsFile=known_hosts
-o HostKeyAlias=gw-mitte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fleet import file, ssh
from fleet.errors import HostKeyError, StoreError
from fleet.inventory import Inventory
from fleet.login import KNOWN_HOSTS_FILE, host_of
from fleet.maintenance import author
from fleet.ssh import Deadlines, Pool, Shown
from fleet.text import printable

# What became of a key: it was known, is from now on, would be, or is not.
Outcome = Literal["known", "recorded", "would-record", "refused"]


@dataclass(frozen=True)
class Hop:
    """One host on the way, its key, and what became of it."""

    shown: Shown
    outcome: Outcome

    def document(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "host": self.shown.host.record,
            "address": self.shown.host.name,
            "kind": self.shown.kind,
            "fingerprint": self.shown.fingerprint,
            "known": list(self.shown.known),
            "state": self.shown.state,
            "outcome": self.outcome,
        }


def trust(
    city: Inventory,
    gateway_id: str,
    agree: Callable[[Shown], bool],
    *,
    replace: bool = False,
    dry_run: bool = False,
    deadlines: Deadlines | None = None,
) -> Iterator[Hop]:
    """Look at the key of each host on the way to a gateway, and record those that are agreed to.

    Args:
        city: whose gateway, and where they are recorded.
        gateway_id: which one.
        agree: is shown a key that is not known, and says whether it is the host's.
        replace: a changed key may take the place of the known one.
        dry_run: nothing is recorded; the way ends at the first host that is not known.
        deadlines: for each host.

    Yields: each host as it is looked at; the last one is not the gateway where its key, or one
        before, was refused.
    Raises: HostKeyError: a key has changed and must not be replaced. HostError: a host cannot be
        reached. StoreError: it cannot be recorded.
    """
    deadlines = deadlines or Deadlines()
    with Pool() as pool:
        for host in host_of(city, gateway_id).way:
            shown = ssh.show(host, deadlines, pool)
            if shown.state == "changed" and (host.host_key or not replace):
                raise _changed(shown)
            if shown.state == "known":
                yield Hop(shown, "known")
                continue
            if dry_run:
                yield Hop(shown, "would-record")
                return
            if not agree(shown):
                yield Hop(shown, "refused")
                return
            record(city.folder, shown)
            yield Hop(shown, "recorded")


def _changed(shown: Shown) -> HostKeyError:
    host = shown.host
    if host.host_key:
        what = "then correct host_key in inventory.toml"
    else:
        what = "then run it again with --replace"
    return HostKeyError(
        f"{host.label} ({host.name}): its host key has changed: known is "
        f"{', '.join(shown.known)}, it showed {shown.kind} {shown.fingerprint}",
        hint="if nobody reinstalled that host, somebody is in between: do not log in. Else "
        f"{shown.compare}; {what}",
        details={"host": host.id, "known": list(shown.known), "shown": shown.fingerprint},
    )


def record(folder: Path, shown: Shown) -> None:
    """Write a host's key into the city's known_hosts; it takes the place of others of that host.

    Raises: StoreError: it cannot be written.
    """
    path, name = folder / KNOWN_HOSTS_FILE, shown.host.record
    who = printable(f"{shown.host.address}, {datetime.now(UTC):%Y-%m-%d}, {author(folder)}")
    try:
        with file.locked(folder):
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            kept = [line for line in lines if line.split(maxsplit=1)[:1] != [name]]
            file.write(path, "\n".join([*kept, f"{name} {shown.public} {who}"]) + "\n")
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}", hint="look at free space and rights there"
        ) from None


def agreeing(fingerprints: Sequence[str]) -> Callable[[Shown], bool]:
    """Return what agrees to keys with these fingerprints only."""
    wanted = {_normal(each) for each in fingerprints}
    return lambda shown: _normal(shown.fingerprint) in wanted


def _normal(fingerprint: str) -> str:
    return "SHA256:" + fingerprint.strip().removeprefix("SHA256:").rstrip("=")
