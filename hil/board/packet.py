"""Headers of IP packets that the board makes itself."""

from __future__ import annotations

import socket
import struct

UDP_HEADER = struct.Struct(">HHHH")
IP_HEADER_BYTES = 20


def checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071) of `data`."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_header(
    source: str, target: str, size: int, *, protocol: int, number: int = 0, ttl: int = 64
) -> bytes:
    """Return the IPv4 header for a packet that carries `size` bytes."""
    head = struct.pack(
        ">BBHHHBBH4s4s",
        0x45,
        0,
        IP_HEADER_BYTES + size,
        number,
        0,
        ttl,
        protocol,
        0,
        socket.inet_aton(source),
        socket.inet_aton(target),
    )
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:]


def udp_packet(source: tuple[str, int], target: tuple[str, int], content: bytes) -> bytes:
    """Return an IPv4 packet with a datagram."""
    size = UDP_HEADER.size + len(content)
    pseudo = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    pseudo += struct.pack(">BBH", 0, socket.IPPROTO_UDP, size)
    bare = UDP_HEADER.pack(source[1], target[1], size, 0) + content
    total = checksum(pseudo + bare) or 0xFFFF  # 0 would say "none"
    datagram = UDP_HEADER.pack(source[1], target[1], size, total) + content
    return ip_header(source[0], target[0], size, protocol=socket.IPPROTO_UDP) + datagram


def udp_content(packet: bytes, port: int) -> bytes | None:
    """Return what an IPv4 packet brings to a UDP port, None if it is anything else.

    Checksums are not looked at: between interfaces of one machine they are never filled in.
    """
    if len(packet) < IP_HEADER_BYTES or packet[0] >> 4 != 4:
        return None
    head = (packet[0] & 0xF) * 4
    if packet[9] != socket.IPPROTO_UDP or len(packet) < head + UDP_HEADER.size:
        return None
    if packet[6] & 0x3F or packet[7]:  # a fragment
        return None
    _, to, size, _ = UDP_HEADER.unpack_from(packet, head)
    if to != port or not UDP_HEADER.size <= size <= len(packet) - head:
        return None
    return packet[head + UDP_HEADER.size : head + size]
