"""What boards measure: `[measurement]`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fleet.document import Table
from fleet.inventory.kind import Address, Milliseconds, Port, Text, UrlPath, is_address

Deadline = Literal[
    "cycle",
    "radio",
    "association",
    "addressing",
    "gateway",
    "resolver",
    "portal",
    "internet",
    "service",
    "throughput",
]


def _address_or_none(text: str) -> str:
    return is_address(text) if text else ""


def _label(text: str) -> str:
    if not 1 <= len(text.encode()) <= 32:
        raise ValueError("a name here has 1 to 32 bytes")
    return text


def _rising(levels: list[int]) -> list[int]:
    if levels != sorted(set(levels)):
        raise ValueError("the second level must be above the first")
    return levels


class ResolverTarget(Table):
    """A name that every resolver must answer with one known address.

    `reference` is a resolver beyond the sites' lines that is asked the same; "" for none.
    """

    name: str
    address: Address
    reference: Annotated[str, AfterValidator(_address_or_none)] = ""


class InternetTarget(Table):
    """An HTTP server beyond the site's line that answers 204."""

    address: Address
    port: Port = 80
    host: str
    path: UrlPath = "/generate_204"


class TlsTarget(Table):
    """A server beyond the site's line whose certificate one of the roots vouches for."""

    address: Address
    port: Port = 443
    host: str


class Service(Table):
    """A web page that people need; `status` is the HTTP status that says it is well."""

    name: Annotated[str, AfterValidator(_label)]
    host: str
    tls: bool = True
    port: Port | None = None
    path: UrlPath = "/"
    status: Annotated[int, Field(ge=100, le=599)] = 200


class Throughput(Table):
    """A file that a board fetches every so many cycles; of it `bytes` at most."""

    address: Address
    port: Port = 80
    host: str
    path: UrlPath
    bytes: Annotated[int, Field(ge=16 << 10, le=16 << 20)] = 256 << 10
    every: Annotated[int, Field(ge=1, le=65535)] = 60


class Thresholds(Table):
    """Where `up` ends and `degraded` begins; for `co2_ppm` where yellow and red begin."""

    rssi_dbm: Annotated[int, Field(ge=-100, le=-20)] = -75
    crowded_networks: Annotated[int, Field(ge=1, le=255)] = 8
    lease_ms: Milliseconds = 3000
    gateway_loss_percent: Annotated[int, Field(ge=1, le=100)] = 10
    gateway_rtt_ms: Milliseconds = 100
    resolver_ms: Milliseconds = 500
    internet_ms: Milliseconds = 1000
    throughput_kbit_s: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    service_ms: Milliseconds = 3000
    certificate_days: Annotated[int, Field(ge=0, le=1000)] = 14
    co2_ppm: Annotated[
        list[Annotated[int, Field(ge=400, le=40_000)]],
        Field(min_length=2, max_length=2),
        AfterValidator(_rising),
    ] = Field(default_factory=lambda: [1000, 2000])


class Measurement(Table):
    """What every board measures and how often.

    `roots` is a PEM file beside the inventory: the public certificates that vouch for the TLS
    targets and services.
    """

    period_s: Annotated[int, Field(ge=1, le=3600)] = 60
    ntp: str = "pool.ntp.org"
    roots: Text | None = None
    resolver: ResolverTarget
    internet: InternetTarget
    target: Annotated[list[TlsTarget], Field(max_length=2)] = Field(default_factory=list)
    service: Annotated[list[Service], Field(max_length=4)] = Field(default_factory=list)
    throughput: Throughput | None = None
    thresholds: Thresholds = Thresholds()
    deadline_ms: dict[Deadline, Milliseconds] = Field(default_factory=dict)
