"""`netzpuls gateway prepare`: makes or renews a gateway's folder from the city's.

Read, plan, apply: all is read and made in memory first, so that what is wrong shows before
anything is written; then each file is replaced in one step. The CA's key never leaves the city's
folder: the gateway gets certificates, and the report keys of its own boards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleet import authority, file, reportkey, revocation
from fleet.authority import GATEWAY_VALID, Authority, Identity
from fleet.errors import READABLE, ConfigurationError, UsageError
from fleet.gateway import keyring, settings
from fleet.gateway.settings import Folder
from fleet.inventory import BENCH, INVENTORY_FILE, Inventory

# A certificate is renewed when a quarter of its time is left.
_RENEW_BEFORE = GATEWAY_VALID / 4


@dataclass(frozen=True)
class Change:
    """One file to be written, and why."""

    path: Path
    content: bytes
    mode: int
    why: str


@dataclass
class Plan:
    """What `apply` will do."""

    gateway: str
    folder: Folder
    boards: int
    certificate_expires: datetime
    changes: list[Change] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """Return the plan as `--json` prints it."""
        return {
            "gateway": self.gateway,
            "folder": str(self.folder.path),
            "boards": self.boards,
            "certificate_expires": self.certificate_expires.isoformat(),
            "written": [{"file": str(c.path), "why": c.why} for c in self.changes],
        }


class _Where(NamedTuple):
    """A gateway's folder, the names that it goes by, and where a new one listens."""

    gateway_id: str
    folder: Folder
    hosts: tuple[str, ...]
    listen: str
    port: int


def plan(
    city: Inventory,
    ca: Authority,
    gateway_id: str,
    folder: Folder,
    *,
    listen: str,
    port: int | None = None,
) -> Plan:
    """Find out what the gateway's folder lacks.

    Args:
        city: the inventory.
        ca: the city's certificate authority.
        gateway_id: which of its gateways.
        folder: the gateway's folder; it need not be there.
        listen: for a new folder: the address the broker listens on.
        port: for a new folder: the broker's port; the default is the inventory's.

    Raises: UsageError: no such gateway, or the folder is another one's.
        ConfigurationError, AuthorityError: a file of the city is missing or wrong.
    """
    entry = city.gateway(gateway_id)
    hosts = (gateway_id, entry.broker_host, entry.host)
    where = _Where(gateway_id, folder, hosts, listen, port or entry.broker_port)
    return _plan(city, ca, where, report_keys(city, gateway_id))


def plan_bench(city: Inventory, ca: Authority, *, listen: str, port: int | None = None) -> Plan:
    """Find out what the folder of the bench's gateway lacks; arguments as for `plan`.

    Its boards are those that are at the desk: it has none at first, and keeps those that it has.

    Raises: UsageError: the inventory has no bench.
        ConfigurationError, AuthorityError: a file of the city is missing or wrong.
    """
    if city.bench is None:
        raise UsageError(
            f"there is no [bench] in {city.folder / INVENTORY_FILE}",
            hint="docs/provisioning.md says what belongs there",
        )
    folder = Folder(city.folder / city.bench.data_dir)
    hosts = (BENCH, city.bench.broker_host)
    where = _Where(BENCH, folder, hosts, listen, port or city.bench.broker_port)
    return _plan(city, ca, where, None if folder.boards.exists() else {})


def _plan(
    city: Inventory,
    ca: Authority,
    where: _Where,
    keys: Mapping[str, Mapping[int, bytes]] | None,
) -> Plan:
    """Find out what a folder lacks; without `keys` its boards are left as they are."""
    gateway_id, folder = where.gateway_id, where.folder
    changes = []
    if folder.settings.exists():
        present = settings.load(folder)
        if present.id != gateway_id:
            raise UsageError(
                f"{folder.path} is the folder of {present.id!r}, not of {gateway_id!r}",
                hint="name another --dir",
            )
    else:
        text = settings.render(gateway_id, listen=where.listen, port=where.port)
        changes.append(Change(folder.settings, text.encode(), file.PUBLIC, "new"))
    hosts = list(dict.fromkeys(where.hosts))
    changes += _replaced(folder.ca, ca.certificate_pem, file.PUBLIC)
    revoked = revocation.read(city.folder)
    if revoked is not None:
        changes += _replaced(folder.revoked, revoked, file.PUBLIC)
    gateway = _identity(ca, folder, "gateway", gateway_id, hosts)
    collector = _identity(ca, folder, "collector", gateway_id, ())
    for name, identity in (("gateway", gateway), ("collector", collector)):
        # The key first: with the old key a new certificate is a pair, at every moment.
        changes += _replaced(folder.tls / f"{name}.key", identity.key_pem, file.PRIVATE)
        changes += _replaced(folder.tls / f"{name}.pem", identity.certificate_pem, file.PUBLIC)
    if keys is not None:
        changes += _replaced(folder.boards, keyring.render(keys).encode(), file.PRIVATE)
    expires = min(i.certificate.not_valid_after_utc for i in (gateway, collector))
    return Plan(gateway_id, folder, len(keys or ()), expires, changes)


def apply(chosen: Plan) -> None:
    """Write what the plan says.

    Raises: ConfigurationError: the folder cannot be written; run it again.
    """
    try:
        chosen.folder.path.mkdir(parents=True, exist_ok=True)
        # It may well be made inside the city's folder, which people keep in git.
        file.hide_from_git(chosen.folder.path)
        file.private_folder(chosen.folder.tls)
        for change in chosen.changes:
            file.write(change.path, change.content, change.mode)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {chosen.folder.path}: {error.strerror or error}",
            hint="make room or mend its permissions, then run the same command again",
        ) from None


def _replaced(path: Path, content: bytes, mode: int) -> list[Change]:
    try:
        present = path.read_bytes()
    except FileNotFoundError:
        return [Change(path, content, mode, "new")]
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    return [] if present == content else [Change(path, content, mode, "changed")]


def _identity(
    ca: Authority,
    folder: Folder,
    name: Literal["gateway", "collector"],
    gateway_id: str,
    hosts: Iterable[str],
) -> Identity:
    """Return the certificate that is there if it is still good, else a new one for its key."""
    key = _present_key(folder.key(name))
    fresh = (
        ca.issue_gateway(gateway_id, hosts, key=key)
        if name == "gateway"
        else ca.issue_collector(gateway_id, key=key)
    )
    path = folder.certificate(name)
    if key is None or not path.exists():
        return fresh
    try:
        present = authority.read_certificate(path)
        present.verify_directly_issued_by(ca.certificate)
    except (authority.AuthorityError, ValueError, TypeError, InvalidSignature):
        return fresh
    # The extensions hold the names and the key's fingerprint.
    alike = (present.subject, list(present.extensions)) == (
        fresh.certificate.subject,
        list(fresh.certificate.extensions),
    )
    left = present.not_valid_after_utc - datetime.now(UTC)
    return Identity(present, key) if alike and left > _RENEW_BEFORE else fresh


def _present_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        return None  # missing or damaged: a new one takes its place
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def report_keys(city: Inventory, gateway_id: str) -> dict[str, dict[int, bytes]]:
    """Return the report keys of a gateway's boards, by board and key id.

    Raises: ConfigurationError: one is missing or is none.
    """
    present = reportkey.key_ids(city.secrets)
    keys: dict[str, dict[int, bytes]] = {}
    for board_id, board in city.boards_of_gateway(gateway_id).items():
        key_ids = present.get(board_id, [])
        if board.key_id not in key_ids:
            raise ConfigurationError(
                f"the report key of {board_id} is missing: "
                f"{reportkey.path(city.secrets, board_id, board.key_id)}",
                hint="bring it back from where the board was flashed, or flash the board again",
            )
        read = {key_id: reportkey.read(city.secrets, board_id, key_id) for key_id in key_ids}
        keys[board_id] = {key_id: key for key_id, key in read.items() if key}
    return keys
