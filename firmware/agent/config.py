"""Load and check the board's configuration, /config.json.

    {"version": 1, "board": "np-240ac4123456", "key_id": 1, "role": "classroom-sensor",
     "period_s": 60,
     "wlan": {"ssid": "Schule", "key": "…", "security": "wpa2-psk", "bssids": []},
     "uplink": {"host": "10.1.0.2", "port": 8883, "server_name": "gw-rathaus"},
     "resolver": {"name": "probe.example.org", "address": "203.0.113.80"},
     "internet": {"address": "203.0.113.80", "port": 80, "host": "probe.example.org",
                  "path": "/generate_204"},
     "thresholds": {"rssi_dbm": -75, "gateway_loss_percent": 20, "gateway_rtt_ms": 100,
                    "resolver_ms": 500, "internet_ms": 1000},
     "deadline_ms": {"cycle": 45000, "association": 15000}}

`bssids` names the access points to watch; an empty list means every one with the SSID.
`deadline_ms` and each key in it may be left out: the defaults fit the period.
"""

import json

_ROLES = ("classroom-sensor", "ap-monitor")
_SECURITIES = ("open", "wpa2-psk", "wpa3-sae")

# Probe: (longest default in ms, share of the cycle in percent). Gateway, resolver and
# internet fit into one cycle together, so that a cut line is never taken for a lack of time.
_DEADLINES = {
    "radio": (10000, 40),
    "association": (15000, 50),
    "addressing": (10000, 40),
    "gateway": (5000, 15),
    "resolver": (5000, 25),
    "internet": (8000, 30),
}


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the key."""


class Section:
    """The keys of one JSON object as attributes."""

    def __init__(self, values):
        for name, value in values.items():
            setattr(self, name, value)


def _whole(low, high):
    def check(value):
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError("must be an integer from %d to %d" % (low, high))
        return value

    return check


def _text(low, high):
    def check(value):
        if not isinstance(value, str) or not low <= len(value.encode()) <= high:
            raise ConfigError("must be a text of %d to %d bytes" % (low, high))
        if any(c < " " or c == "\x7f" for c in value):
            raise ConfigError("must not hold control characters")
        return value

    return check


def _choice(choices):
    def check(value):
        if value not in choices:
            raise ConfigError("must be one of %s" % ", ".join(choices))
        return value

    return check


def _hex_digits(text):
    return all(c in "0123456789abcdef" for c in text)


def _board(value):
    if not isinstance(value, str) or len(value) != 15 or value[:3] != "np-":
        raise ConfigError("must be np- and twelve hexadecimal digits")
    if not _hex_digits(value[3:]):
        raise ConfigError("must be np- and twelve hexadecimal digits")
    return value


def _address(value):
    parts = value.split(".") if isinstance(value, str) else ()
    if len(parts) != 4 or not all(
        0 < len(p) < 4 and all("0" <= c <= "9" for c in p) and int(p) < 256 for p in parts
    ):
        raise ConfigError("must be an IPv4 address")
    return value


def _name(value):
    if not isinstance(value, str):
        raise ConfigError("must be a host name")
    labels = value.rstrip(".").split(".")
    if len(value) > 253 or not all(0 < len(label) < 64 for label in labels):
        raise ConfigError("must be a host name")
    if not all("a" <= c <= "z" or "0" <= c <= "9" or c in ".-_" for c in value.lower()):
        raise ConfigError("must be a host name")
    return value


def _path(value):
    if not isinstance(value, str) or not value.startswith("/") or len(value) > 255:
        raise ConfigError("must be a path that begins with /")
    if not all("!" <= c <= "~" for c in value):
        raise ConfigError("must be printable ASCII without spaces")
    return value


def _bssids(value):
    if not isinstance(value, list) or len(value) > 32:
        raise ConfigError("must be a list of at most 32 BSSIDs")
    return tuple(_bssid(text) for text in value)


def _bssid(text):
    parts = text.lower().split(":") if isinstance(text, str) else ()
    if len(parts) != 6 or not all(len(p) == 2 and _hex_digits(p) for p in parts):
        raise ConfigError("must be a list of BSSIDs like aa:bb:cc:dd:ee:ff")
    return bytes(int(p, 16) for p in parts)


_TCP_PORT = _whole(1, 65535)
_MILLISECONDS = _whole(1, 600000)
_OPTIONAL = ("deadline_ms",)
_SCHEMA = {
    "version": _whole(1, 1),
    "board": _board,
    "key_id": _whole(1, 65535),
    "role": _choice(_ROLES),
    "period_s": _whole(1, 3600),
    "wlan": {
        "ssid": _text(1, 32),
        "key": _text(0, 64),
        "security": _choice(_SECURITIES),
        "bssids": _bssids,
    },
    "uplink": {"host": _address, "port": _TCP_PORT, "server_name": _name},
    "resolver": {"name": _name, "address": _address},
    "internet": {"address": _address, "port": _TCP_PORT, "host": _name, "path": _path},
    "thresholds": {
        "rssi_dbm": _whole(-127, -1),
        "gateway_loss_percent": _whole(0, 100),
        "gateway_rtt_ms": _MILLISECONDS,
        "resolver_ms": _MILLISECONDS,
        "internet_ms": _MILLISECONDS,
    },
    "deadline_ms": _MILLISECONDS,
}


def load(path):
    """Load and check a configuration.

    Raises: ConfigError: it cannot be read, or a key is unknown, missing or wrong.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise ConfigError("%s cannot be read: %s" % (path, error))
    return parse(raw)


def parse(raw):
    """Check the bytes of a configuration.

    Returns: a Section of Sections; `deadline_ms` is a dict and complete.
    Raises:  ConfigError: a key is unknown, missing or wrong.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RuntimeError):  # the latter: nested too deeply
        raise ConfigError("config.json is not valid JSON")
    values = _check(document, _SCHEMA, "")
    wlan = values["wlan"]
    if (wlan.security == "open") != (wlan.key == ""):
        raise ConfigError("config.json: wlan.key is for a protected WLAN, and an open one has none")
    size = len(wlan.key.encode())
    if 0 < size < 8 or (size == 64 and not _hex_digits(wlan.key.lower())):
        raise ConfigError("config.json: wlan.key must be 8 to 63 bytes or 64 hexadecimal digits")
    values["deadline_ms"] = _deadlines(document.get("deadline_ms", {}), values["period_s"])
    return Section(values)


def _check(document, schema, prefix):
    if not isinstance(document, dict):
        raise ConfigError("config.json: %s must be an object" % (prefix.rstrip(".") or "it"))
    for key in document:
        if key not in schema:
            raise ConfigError("config.json: unknown key %s%s" % (prefix, _shown(key)))
    values = {}
    for key, rule in schema.items():
        if key in _OPTIONAL:
            continue
        if key not in document:
            raise ConfigError("config.json: %s%s is missing" % (prefix, key))
        if isinstance(rule, dict):
            values[key] = Section(_check(document[key], rule, key + "."))
            continue
        try:
            values[key] = rule(document[key])
        except ConfigError as error:
            raise ConfigError("config.json: %s%s %s" % (prefix, key, error))
    return values


def _deadlines(given, period_s):
    if not isinstance(given, dict):
        raise ConfigError("config.json: deadline_ms must be an object")
    for key in given:
        if key != "cycle" and key not in _DEADLINES:
            raise ConfigError("config.json: unknown key deadline_ms.%s" % _shown(key))
        try:
            _MILLISECONDS(given[key])
        except ConfigError as error:
            raise ConfigError("config.json: deadline_ms.%s %s" % (key, error))
    cycle = given.get("cycle", min(45000, period_s * 800))
    if cycle >= period_s * 1000:
        raise ConfigError("config.json: deadline_ms.cycle must be shorter than the period")
    deadlines = {"cycle": cycle}
    for name, (longest, share) in _DEADLINES.items():
        deadlines[name] = given.get(name, min(longest, cycle * share // 100))
    return deadlines


def _shown(key):
    """Return a foreign key as it may be printed."""
    return "".join(c if " " < c <= "~" else "?" for c in key)[:40]
