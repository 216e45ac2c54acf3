"""A real SSH server on loopback, once for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hil.sshd import SshServer
from tests.fleet.town import Town


@dataclass
class Login:
    """A running server and the key that opens it."""

    server: SshServer
    identity: Path

    def gateway(self, town: Town, gateway_id: str = "gw-1", **values: object) -> None:
        """Make a town's gateway this server."""
        entry = {
            "ssh_port": self.server.port,
            "user": self.server.user,
            "host_key": self.server.host_key,
            "identity_file": str(self.identity),
        }
        town.gateway(gateway_id, **entry | values)


@pytest.fixture(scope="session")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    folder = tmp_path_factory.mktemp("ssh")
    identity = folder / "identity"
    public = new_key(identity)
    # What runs behind it is this checkout.
    environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with SshServer(folder / "server", public, environment=environment) as server:
        yield Login(server, identity)


def new_key(path: Path) -> str:
    """Write a new private key and return its public half."""
    key = Ed25519PrivateKey.generate()
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return public.decode()
