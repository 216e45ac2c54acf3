"""Opens the uplink's connection: TCP, mutual TLS, and what MQTT wants said first. On loan.

What it leaves is a `mqtt.Session`, whose class stays loaded.
"""

import asyncio
import struct

from micropython import const

from .deadline import emptied, within_ms
from .mqtt import MqttError, Session, packet, text

_CONNECT = const(0x10)
_CONNACK = const(0x20)
_SUBSCRIBE = const(0x82)
_SUBACK = const(0x90)
_CONNECT_MS = const(10000)
_HELLO_MS = const(20000)
_KEEPALIVE_S = const(60)
_REFUSALS = (
    "",
    "protocol version",
    "client id",
    "server unavailable",
    "user name or password",
    "not authorised",
)


def trust(identity):
    """Return the TLS context of a board: whom it trusts, and who it is.

    Raises: OSError, ValueError: a certificate that is missing or is none.
    """
    import tls

    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_REQUIRED  # type: ignore[attr-defined]
    context.load_verify_locations(_read(identity + "/ca.der"))
    context.load_cert_chain(_read(identity + "/board.der"), _read(identity + "/board.key.der"))
    return context


def _read(path):
    with open(path, "rb") as file:
        return file.read()


async def connect(uplink, context, topic, on_message):
    """Connect to the broker and begin a session.

    Args:
        uplink: the Uplink; its event `fresh` is set when the connection has failed.
        context: what `trust` returned.
        topic: what the board's topics begin with.
        on_message: as Session wants it.

    Returns: (the Session, functions to call at its end).
    Raises:  OSError, EOFError, ValueError, MqttError, TimeoutError; then nothing is left open.
    """
    from .connection import connect as reach  # here, since `trust` does not need it

    port, place = uplink.port, uplink.config.uplink
    bind = port.bind_lan if port.lan_address() else None
    raw = await reach(port, place.host, place.port, _CONNECT_MS, bind)
    ends = [raw.close]  # after a handshake that failed TLS no longer knows it
    try:
        # Without a name the certificate's would not be checked.
        sock = context.wrap_socket(
            raw, server_hostname=place.server_name, do_handshake_on_connect=False
        )
        ends.insert(0, sock.close)
        session = Session(sock, on_message, uplink.fresh)
        ends.insert(0, asyncio.create_task(session.receive()).cancel)
        await within_ms(emptied([hello(session, uplink.config.board, topic)]), _HELLO_MS)
    except BaseException:
        for end in ends:
            end()
        raise
    return session, ends


async def hello(session, board, topic):
    """Send CONNECT (clean session, retained will with QoS 1), subscribe, and say "online".

    Raises: MqttError: the broker refused.
    """
    status = topic + "status"
    head = text("MQTT") + struct.pack(">BBH", 4, 0x02 | 0x04 | 0x08 | 0x20, _KEEPALIVE_S)
    request = packet(_CONNECT, head, text(board), text(status), text("offline"))
    body = await session.ask(request, _CONNACK)
    if len(body) != 2 or body[1]:
        code = body[1] if len(body) == 2 else 0
        known = _REFUSALS[code] if code < len(_REFUSALS) else "code %d" % code
        error = MqttError("the broker refused us: %s" % (known or "malformed CONNACK"))
        error.is_refusal = True
        raise error
    packet_id = session.next_id()
    request = packet(_SUBSCRIBE, packet_id, text(topic + "ack"), b"\x00")
    if (await session.ask(request, _SUBACK, packet_id))[2:] != b"\x00":
        raise MqttError("the broker refused the subscription")
    await session.publish(status, b"online", retain=True)
