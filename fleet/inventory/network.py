"""WLANs that boards join, gateways and the way to them: `[wlan]`, `[gateway]`, `[jump]`."""

from __future__ import annotations

from shlex import split
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fleet.document import Table
from fleet.inventory.kind import Address, Bssids, Id, Port, Text, UrlPath

BENCH = "bench"

Security = Literal["open", "wpa2-psk", "wpa3-sae", "wpa2-enterprise"]


def _ssid(text: str) -> str:
    if not 1 <= len(text.encode()) <= 32:
        raise ValueError("an SSID has 1 to 32 bytes")
    return text


def _command(text: str) -> str:
    if not split(text):
        raise ValueError("no command")
    return text


class Portal(Table):
    """The login page that a public WLAN shows first."""

    address: Address
    port: Port | None = None
    host: str
    path: UrlPath = "/"
    tls: bool = True


class Wlan(Table):
    """A WLAN that boards join; its key stands in secrets/wlan.toml under the same id."""

    ssid: Annotated[str, AfterValidator(_ssid)]
    security: Security = "wpa2-psk"
    bssids: Bssids = Field(default_factory=list)
    portal: Portal | None = None


class Provider(Table):
    """Who runs lines to the internet."""

    name: Text


class Jump(Table):
    """A host that SSH passes through on its way to gateways."""

    host: Text
    ssh_port: Port = 22
    user: Text
    host_key: str | None = None


class Gateway(Table):
    """A host at a site: broker and collector for the boards there."""

    host: Text
    ssh_port: Port = 22
    user: Text = "netzpuls"
    host_key: str | None = None
    identity_file: str | None = None
    jump: Id | None = None
    command: Annotated[str, AfterValidator(_command)] = "netzpuls"
    data_dir: Text = "/var/lib/netzpuls"
    broker_host: Text
    broker_port: Port = 8883


class Bench(Table):
    """Where boards are tested at the desk; `BENCH` is the id of its gateway.

    Attributes:
        broker_host, broker_port: what boards use, as of a gateway.
        ntp: goes before the measurement's; "": the gateway's clock is all there is.
        data_dir: the gateway's folder, relative to the city's.
    """

    wlan: Id
    broker_host: Text
    broker_port: Port = 8883
    ntp: str | None = None
    data_dir: Text = BENCH
