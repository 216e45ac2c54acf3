"""The roster: who may report to a gateway, and who no longer; brought along by each collection.

    gateway → city    {"roster": 1, "gateway", "have": {file: SHA-256}, "certificates": {name: end}}
    city → gateway    {file: content}, of the files that differ; then the end of the stream
    gateway → city    {"changed": [file], "boards"}

One JSON document a line. The files are `boards` (report keys), `ca` and `revoked`. They travel on
the stream alone, never as arguments, and no message quotes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import AwareDatetime, ValidationError

from fleet import authority, file, revocation
from fleet.authority import CERTIFICATE_FILE, AuthorityError
from fleet.document import Table
from fleet.errors import READABLE, ConfigurationError, NetzpulsError
from fleet.gateway import keyring, prepare, settings
from fleet.gateway.settings import Folder
from fleet.inventory import Inventory
from fleet.text import printable

# Of a gateway with some hundred thousand boards.
_MAX_BYTES = 1 << 25
_CERTIFICATES = ("gateway", "collector", "ca")


class RosterError(NetzpulsError):
    """A gateway could not be given its roster, or what came is none."""

    code = "roster"


class Greeting(Table):
    """What a gateway has.

    Attributes:
        have: SHA-256 of each file that is there.
        certificates: when each certificate there ends.
    """

    roster: Literal[1] = 1
    gateway: str
    have: dict[str, str]
    certificates: dict[str, AwareDatetime]


class _Files(Table):
    boards: str | None = None
    ca: str | None = None
    revoked: str | None = None


class _Answer(Table):
    changed: list[str]
    boards: int | None


def of(city: Inventory, gateway_id: str) -> dict[str, bytes]:
    """Return the files of a gateway's roster; those that the city has none of are left out.

    Raises: ConfigurationError, AuthorityError: a file of the city is missing or wrong.
    """
    keys = prepare.report_keys(city, gateway_id)
    files = {"boards": keyring.render(keys).encode()}
    try:
        files["ca"] = (city.folder / CERTIFICATE_FILE).read_bytes()
    except FileNotFoundError:
        return files  # a city without boards and prepared gateways
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {city.folder / CERTIFICATE_FILE}: {error.strerror}", hint=READABLE
        ) from None
    revoked = revocation.read(city.folder)
    return files | ({"revoked": revoked} if revoked is not None else {})


def greeting(line: bytes) -> Greeting:
    """Return what a gateway said of itself.

    Raises: RosterError: it said something else.
    """
    try:
        return Greeting.model_validate_json(line)
    except ValidationError:
        raise RosterError(
            f'the gateway did not say what it has but "{printable(line[:80])}"',
            hint="install this version of Netzpuls there, too",
        ) from None


def missing(files: Mapping[str, bytes], have: Mapping[str, str]) -> bytes:
    """Return what is to be sent to a gateway that has this: the files that differ."""
    return json.dumps(
        {name: data.decode() for name, data in files.items() if have.get(name) != _digest(data)}
    ).encode()


def answered(line: bytes) -> list[str]:
    """Return which files a gateway has changed.

    Raises: RosterError: it did not say.
    """
    try:
        return _Answer.model_validate_json(line).changed
    except ValidationError:
        raise RosterError(
            f'the gateway did not say what it changed but "{printable(line[:80])}"',
            hint="run the collection again",
        ) from None


def serve(folder: Folder, stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Take a roster on a gateway: say what is there, take what differs, write it.

    Raises: ConfigurationError: this is no gateway's folder, or it cannot be written.
        RosterError, AuthorityError: what came is no roster, or an old one; nothing is written.
    """
    chosen = settings.load(folder)
    paths = {"boards": folder.boards, "ca": folder.ca, "revoked": folder.revoked}
    _say(stdout, _greeting(chosen.id, folder, paths))
    files = _received(stdin.read(_MAX_BYTES + 1))
    boards = _check(folder, files)
    try:
        if files:
            file.private_folder(folder.tls)
        # What takes away comes first.
        for name in ("revoked", "boards", "ca"):
            if name in files:
                mode = file.PRIVATE if name == "boards" else file.PUBLIC
                file.write(paths[name], files[name], mode)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {folder.path.absolute()}: {error.strerror or error}",
            hint="it must belong to the user that city hall logs in as, and have room",
        ) from None
    _say(stdout, _Answer(changed=sorted(files), boards=boards))


def _say(stdout: BinaryIO, document: Table) -> None:
    stdout.write(document.model_dump_json().encode() + b"\n")
    stdout.flush()


def _greeting(gateway_id: str, folder: Folder, paths: Mapping[str, Path]) -> Greeting:
    have, ends = {}, {}
    for name, path in paths.items():
        try:
            have[name] = _digest(path.read_bytes())
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {path}: {error.strerror}", hint=READABLE
            ) from None
    places = (folder.certificate("gateway"), folder.certificate("collector"), folder.ca)
    for name, path in zip(_CERTIFICATES, places, strict=True):
        if path.exists():
            ends[name] = authority.read_certificate(path).not_valid_after_utc
    return Greeting(gateway=gateway_id, have=have, certificates=ends)


def _received(content: bytes) -> dict[str, bytes]:
    try:
        files = _Files.model_validate_json(content).model_dump(exclude_none=True)
    except ValidationError:  # which quotes what came
        raise RosterError(
            "what came is no roster; nothing was changed",
            hint="the line broke, or city hall's Netzpuls is newer: install that one here, too",
        ) from None
    return {name: text.encode() for name, text in files.items()}


def _check(folder: Folder, files: Mapping[str, bytes]) -> int | None:
    """Look at what came before anything of it is written; return the number of boards in it."""
    ca = files.get("ca") or (folder.ca.read_bytes() if folder.ca.exists() else None)
    certificate = authority.parse_certificate(ca, "the CA's certificate") if ca else None
    if "revoked" in files:
        new = revocation.parse(files["revoked"], "the list of revoked certificates")
        key = certificate.public_key() if certificate else None
        try:
            is_ours = isinstance(key, ec.EllipticCurvePublicKey) and new.is_signature_valid(key)
        except InvalidSignature:
            is_ours = False
        if not is_ours:
            raise AuthorityError(
                "the list of revoked certificates is not the city's; nothing was changed",
                hint="bring back revoked.pem in the city's folder from git or a backup",
            )
        if folder.revoked.exists():
            present = revocation.parse(folder.revoked.read_bytes(), str(folder.revoked))
            if present.issuer == new.issuer and present.last_update_utc > new.last_update_utc:
                raise RosterError(
                    "this gateway has a newer list of revoked certificates than city hall sent; "
                    "nothing was changed",
                    hint="is the city's folder the last one? bring revoked.pem and "
                    "registry.toml up to date there and collect again",
                )
    return keyring.check(files["boards"], folder.boards) if "boards" in files else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
