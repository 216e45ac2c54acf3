"""The gateway's MQTT broker: mosquitto, configured here, or one that runs already.

What is generated lies in the folder broker/ and is made anew at each start.

Source: mosquitto.conf(5), checked with 2.0.11 and 2.0.21.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import ssl
from pathlib import Path
from typing import Any

from fleet import file, tool
from fleet.authority import collector_name
from fleet.errors import ConfigurationError, ToolMissingError
from fleet.gateway import leash, log
from fleet.gateway.errors import GatewayError
from fleet.gateway.settings import Folder, Settings

_CONNECT_TIMEOUT_S = 5

_CONFIGURATION = """\
# Made by `netzpuls gateway run` from {settings}: changes here do not last.
per_listener_settings false
{user}
# Who may do what: a certificate of the city's CA, and with it only what the ACL says. The
# common name is user name and client id, so no board can push another off the broker.
allow_anonymous false
acl_file {acl}

# The last four bits of debug: mosquitto says only there that it denied a board something.
# What is not worth a line is dropped by the gateway.
log_dest stderr
log_timestamp false
log_type error
log_type warning
log_type notice
log_type information
log_type debug
sys_interval 0

# A board deletes a report only when the collector has it on disk, so nothing here needs to
# last: no writes on the gateway's card, and nothing to lose when the power fails.
persistence false

# For the same reason queues are short and bounded: what does not fit is sent again. They let
# the collector restart without every board noticing, and keep memory in hand.
max_queued_messages {waiting_messages}
max_queued_bytes {waiting_bytes}
max_inflight_messages {inflight_messages}
max_inflight_bytes {waiting_bytes}
queue_qos0_messages false
persistent_client_expiration 1d
max_packet_size {message_bytes}
max_keepalive 3600

listener {port} {listen}
max_connections {connections}
max_qos 1
cafile {ca}
certfile {certificate}
keyfile {key}
require_certificate true
{crlfile}
use_identity_as_username true
use_username_as_clientid true
# "1.2 or later" in mosquitto's words.
tls_version tlsv1.2
"""

_ACCESS = """\
# Made by `netzpuls gateway run`.
user {collector}
topic read netzpuls/v1/+/report
topic read netzpuls/v1/+/status
topic write netzpuls/v1/+/ack

# Every board, below its own id only: %u is the common name of its certificate.
pattern write netzpuls/v1/%u/report
pattern write netzpuls/v1/%u/status
pattern read netzpuls/v1/%u/ack
pattern read netzpuls/v1/%u/command
"""


def write(folder: Folder, settings: Settings) -> None:
    """Write mosquitto.conf and acl.

    Raises: GatewayError: the folder cannot be written.
    """
    # Started as root, mosquitto becomes another user by default, who can read neither keys nor
    # rules and whom the leash does not hold (see leash.tie).
    user = "user root\n" if os.geteuid() == 0 else ""
    acl = folder.broker / "acl"
    text = _CONFIGURATION.format(
        settings=folder.settings.name,
        user=user,
        acl=acl.absolute(),
        port=settings.broker.port,
        listen=settings.broker.listen,
        ca=folder.ca.absolute(),
        certificate=folder.certificate("gateway").absolute(),
        key=folder.key("gateway").absolute(),
        crlfile=f"crlfile {folder.revoked.absolute()}" if folder.revoked.is_file() else "",
        **settings.limits.model_dump(),
    )
    try:
        file.private_folder(folder.broker)
        _write(acl, _ACCESS.format(collector=collector_name(settings.id)))
        _write(_configuration(folder), text)
    except OSError as error:
        raise GatewayError(
            f"cannot write {folder.broker}: {error.strerror or error}",
            hint="the folder must be writable and its disk must have room",
        ) from None


def _write(path: Path, text: str) -> None:
    """Write what is not there yet: a gateway whose disk is full starts with what it has."""
    if not path.is_file() or path.read_bytes() != text.encode():
        file.write(path, text, file.PRIVATE)


def command(folder: Folder, settings: Settings) -> list[str]:
    """Return the command line that starts mosquitto so that it ends with this process.

    Raises: ToolMissingError: there is no mosquitto.
    """
    program = settings.broker.program
    if program is None:
        path = tool.find(tool.MOSQUITTO)
    elif os.access(program, os.X_OK):
        path = Path(program)
    else:
        raise ToolMissingError(
            f"there is no program {program}",
            hint=f"mend broker.program in {folder.settings}, or remove it to take the one on PATH",
        )
    return leash.command(str(path), "-c", str(_configuration(folder).absolute()))


def check_port(settings: Settings) -> None:
    """Make sure that the port is free.

    Raises: GatewayError: it is in use, or the address is not this machine's.
    """
    address, port = settings.broker.listen, settings.broker.port
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            hint = "change broker.listen or broker.port in gateway.toml"
            if error.errno == errno.EADDRINUSE:
                hint = f"see who has it: ss -ltnp 'sport = :{port}'; or {hint}"
            raise GatewayError(
                f"cannot listen on {address} port {port}: {error.strerror}", hint=hint
            ) from None


class _NamedContext(ssl.SSLContext):
    """Checks the broker's certificate for the gateway's id, whatever address leads there."""

    name: str

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*args, **(options | {"server_hostname": self.name}))


def tls(folder: Folder, settings: Settings) -> ssl.SSLContext:
    """Return the collector's side of TLS.

    Raises: ConfigurationError: its certificate or key cannot be used.
    """
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.name = settings.id
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(folder.ca)
        context.load_cert_chain(folder.certificate("collector"), folder.key("collector"))
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"the certificates in {folder.tls} cannot be used: {error.strerror or error}",
            hint="run `netzpuls gateway prepare` again at city hall and copy what it made",
        ) from None
    return context


def reachable(folder: Folder, settings: Settings) -> bool:
    """Tell whether the broker answers with the right certificate.

    Raises: ConfigurationError: it answers with a wrong one.
    """
    context = tls(folder, settings)
    address = (settings.broker.host, settings.broker.port)
    try:
        with (
            socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S) as plain,
            context.wrap_socket(plain),
        ):
            return True
    except ssl.SSLCertVerificationError as error:
        raise ConfigurationError(
            f"the broker on {address[0]} port {address[1]} shows a certificate that "
            f"cannot be accepted: {error.verify_message}",
            hint=f"it must be for {settings.id!r} and from the CA in {folder.ca}",
        ) from None
    except OSError:
        return False


class Listener:
    """Turns what mosquitto says into the gateway's events."""

    def __init__(self) -> None:
        self._throttle = log.Throttle(interval_s=10)

    def hear(self, line: bytes) -> None:
        """Log one line of mosquitto's, if it is worth it."""
        if line.startswith(_CHATTER):
            return
        text = line.decode("utf-8", "replace").rstrip()
        for reason, pattern in _REFUSALS.items():
            if match := pattern.search(text):
                self._refused(reason, match.groupdict())
                return
        if match := _RUNNING.search(text):
            log.info("broker-running", version=match[1])
        elif match := _COMPLAINT.match(text):
            level = logging.ERROR if match[1] == "Error" else logging.WARNING
            log.event(level, "broker", said=match[2])
        else:
            log.event(logging.DEBUG, "broker", said=text)

    def _refused(self, reason: str, fields: dict[str, str]) -> None:
        held = self._throttle.admit((reason, fields.get("device")))
        if held is not None:
            log.warning("refused", reason=reason, **fields, suppressed=held or None)


# Lines about what went well, several for each message: dropped before they cost anything.
_CHATTER = (b"Sending ", b"Received ", b"No will ", b"\t", b"collector-")

_REFUSALS = {
    "topic-denied": re.compile(r"Denied PUBLISH from (?P<device>\S+) \(.*?'(?P<topic>.*?)', "),
    "certificate-missing": re.compile(r"peer did not return a certificate"),
    # It is of another CA, expired, revoked, or not a client's: mosquitto does not say which.
    "certificate-invalid": re.compile(r"certificate verify failed"),
    # A line that breaks without farewell is no refusal: boards lose their radio all the time.
    "tls-failed": re.compile(
        r"(?:OpenSSL Error.*?|failed): (?P<detail>error:(?!.*(?:unexpected eof|system lib)).*)"
    ),
    "message-too-large": re.compile(r"Client (?P<device>\S+) disconnected due to oversize packet"),
    "qos-too-high": re.compile(r"Too high QoS in PUBLISH from (?P<device>[^\s,]+)"),
    "too-many-connections": re.compile(r"from (?P<address>\S+) denied: max_connections exceeded"),
    "queue-full": re.compile(r"messages are being dropped for client (?P<device>[^\s.]+)"),
}
_RUNNING = re.compile(r"mosquitto version (\S+) running")
# Running as root is on purpose where it happens at all (see write).
_COMPLAINT = re.compile(r"(Error|Warning): (?!Mosquitto should not be run as root)(.*)")


def _configuration(folder: Folder) -> Path:
    return folder.broker / "mosquitto.conf"
