"""Folders, configuration and identity for tests on both interpreters."""

import binascii
import json
import os

BOARD = "np-240ac4123456"
REPORT_KEY = bytes(range(32))
WLAN_KEY = "geheim-1234"


def folder():
    """Make an empty folder."""
    base = (os.getenv("TMPDIR") or "/tmp").rstrip("/")
    path = base + "/netzpuls-" + binascii.hexlify(os.urandom(6)).decode()
    os.mkdir(path)
    return path


def remove(path):
    """Remove a folder and what is in it."""
    for name in os.listdir(path):
        each = path + "/" + name
        if os.stat(each)[0] & 0x4000:
            remove(each)
        else:
            os.remove(each)
    os.rmdir(path)


def configuration(**changes):
    """Return a good configuration with some keys changed."""
    document = {
        "version": 1,
        "board": BOARD,
        "key_id": 1,
        "role": "classroom-sensor",
        "period_s": 60,
        "wlan": {"ssid": "Schule", "key": WLAN_KEY, "security": "wpa2-psk", "bssids": []},
        "uplink": {"host": "10.1.0.2", "port": 8883, "server_name": "gw-test"},
        "resolver": {"name": "probe.example.org", "address": "203.0.113.80"},
        "internet": {
            "address": "203.0.113.80",
            "port": 80,
            "host": "probe.example.org",
            "path": "/generate_204",
        },
        "thresholds": {
            "rssi_dbm": -75,
            "gateway_loss_percent": 20,
            "gateway_rtt_ms": 100,
            "resolver_ms": 500,
            "internet_ms": 1000,
        },
    }
    document.update(changes)
    return document


def furnish(root, **changes):
    """Put a configuration and an identity into a folder; the certificates are stand-ins."""
    with open(root + "/config.json", "w") as file:
        file.write(json.dumps(configuration(**changes)))
    os.mkdir(root + "/identity")
    for name in ("ca.der", "board.der", "board.key.der"):
        write(root + "/identity/" + name, b"\x30\x03\x02\x01\x00")
    write(root + "/identity/report.key", REPORT_KEY)


def write(path, content):
    """Write a file."""
    with open(path, "wb") as file:
        file.write(content)
