"""The gateway's folder and its settings, gateway.toml.

`TEMPLATE` is the manual: `netzpuls gateway prepare` writes it with the gateway's own values.
Unknown keys are errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from fleet import document
from fleet.document import Table
from fleet.errors import ConfigurationError
from fleet.inventory import Id, Port

SETTINGS_FILE = "gateway.toml"

TEMPLATE = """\
# Settings of one gateway. A line that is commented out shows the default.
# `netzpuls gateway run` reads them when it starts.

version = 1
# Common name of the broker's certificate.
id = "{id}"

[broker]
# own = true                      # start mosquitto here; false: use a broker that runs already,
#                                   set up as broker/mosquitto.conf and broker/acl show
# The address that the own broker listens on.
listen = "{listen}"
# host = "127.0.0.1"              # where the collector finds the broker
port = {port}
# program = "/usr/sbin/mosquitto" # own broker: default is PATH, then .tools/bin of the checkout

[limits]
# connections = 1000              # boards at the same time; more are turned away
# message_bytes = 65536           # longest MQTT packet; a board that sends more is disconnected
# waiting_messages = 10000        # what the broker holds for the collector while that restarts
# waiting_bytes = 33554432        #   (boards keep reports until the collector has them anyway)
# inflight_messages = 1000        # messages on the way to the collector and not yet on disk
# batch_reports = 2000            # most reports in one transaction
# batch_ms = 200                  # longest time to gather and check one transaction's reports
"""


def _address(text: str) -> str:
    ip_address(text)
    return text


class Broker(Table):
    """Where the broker is and whose it is."""

    own: bool = True
    listen: Annotated[str, AfterValidator(_address)] = "0.0.0.0"  # noqa: S104 - boards come from the LAN
    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:-]+$")] = "127.0.0.1"
    port: Port = 8883
    program: str | None = None


class Limits(Table):
    """Bounds on purpose: a broken or hostile board must not fill memory or disk."""

    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    message_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 1 << 16
    waiting_messages: Annotated[int, Field(ge=1)] = 10_000
    waiting_bytes: Annotated[int, Field(ge=1 << 16)] = 32 << 20
    inflight_messages: Annotated[int, Field(ge=1, le=65535)] = 1000
    batch_reports: Annotated[int, Field(ge=1, le=100_000)] = 2000
    batch_ms: Annotated[int, Field(ge=1, le=10_000)] = 200


class Settings(Table):
    """What gateway.toml holds."""

    version: Literal[1]
    id: Id
    broker: Broker = Broker()
    limits: Limits = Limits()


@dataclass(frozen=True)
class Folder:
    """Where things lie in a gateway's folder."""

    path: Path

    @property
    def settings(self) -> Path:
        """gateway.toml."""
        return self.path / SETTINGS_FILE

    @property
    def boards(self) -> Path:
        """boards.toml, the report keys."""
        return self.path / "boards.toml"

    @property
    def tls(self) -> Path:
        """The folder of certificates and keys."""
        return self.path / "tls"

    @property
    def ca(self) -> Path:
        """The city's CA certificate."""
        return self.tls / "ca.pem"

    @property
    def revoked(self) -> Path:
        """The certificates that no longer hold; not there if there are none."""
        return self.tls / "revoked.pem"

    @property
    def broker(self) -> Path:
        """The folder of what mosquitto needs."""
        return self.path / "broker"

    @property
    def database(self) -> Path:
        """reports.db."""
        return self.path / "reports.db"

    @property
    def state(self) -> Path:
        """state.json, there while the gateway runs, or its collector alone."""
        return self.path / "state.json"

    @property
    def broker_state(self) -> Path:
        """The state of a broker that runs alone."""
        return self.broker / "state.json"

    def certificate(self, of: Literal["gateway", "collector"]) -> Path:
        """The certificate of the broker (`gateway`) or of the collector."""
        return self.tls / f"{of}.pem"

    def key(self, of: Literal["gateway", "collector"]) -> Path:
        """The private key of the broker (`gateway`) or of the collector."""
        return self.tls / f"{of}.key"


def load(folder: Folder) -> Settings:
    """Read and check a gateway's settings.

    Raises: ConfigurationError: there are none, or they have an unknown key or a wrong value.
    """
    if not folder.settings.is_file():
        raise ConfigurationError(
            f"{folder.path} is no gateway's folder: there is no {SETTINGS_FILE}",
            hint="make it at city hall: netzpuls gateway prepare ID --dir DIR --city CITY",
        )
    return document.load(Settings, folder.settings)


def render(gateway_id: str, *, listen: str, port: int) -> str:
    """Return a new gateway.toml."""
    return TEMPLATE.format(id=gateway_id, listen=listen, port=port)
