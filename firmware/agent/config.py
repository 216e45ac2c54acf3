"""Load and check the board's configuration, /config.json.

    {"version": 1, "board": "np-240ac4123456", "key_id": 1, "role": "classroom-sensor",
     "period_s": 60,
     "wlan": {"ssid": "Schule", "key": "…", "security": "wpa2-psk", "bssids": []},
     "uplink": {"host": "10.1.0.2", "port": 8883, "server_name": "gw-rathaus"},
     "resolver": {"name": "probe.example.org", "address": "203.0.113.80"},
     "internet": {"address": "203.0.113.80", "port": 80, "host": "probe.example.org",
                  "path": "/generate_204"},
     "thresholds": {"rssi_dbm": -75, "gateway_loss_percent": 10, "gateway_rtt_ms": 100,
                    "resolver_ms": 500, "internet_ms": 1000}}

`bssids` names the access points to watch; an empty list means every one with the SSID. All of
this may be left out, the defaults are `_DEFAULTS` and `_DEADLINES`, which fit the period:

    "wlan": {"portal": {"host": "login.example.org", "address": "203.0.113.81", "port": 443,
                        "path": "/", "tls": true}}
    "watch": [up to three more objects like "wlan"], "lan": "olimex-esp32-poe",
    "dhcp_servers": ["10.1.0.1"], "resolver": {"reference": "203.0.113.53"}, "ntp": "pool.ntp.org",
    "targets": [up to two of {"host": "one.example.org", "address": "203.0.113.82", "port": 443}],
    "services": [up to four of {"name": "Lernplattform", "host": "lernen.example.org",
                                "port": 443, "path": "/", "tls": true, "status": 200}],
    "throughput": {"host": "probe.example.org", "address": "203.0.113.80", "port": 80,
                   "path": "/256k", "bytes": 262144, "every": 60 (cycles)},
    "sensors": ["scd4x", "sht4x"], "i2c": {"sda": 21, "scl": 22}, "light": 5, "led": 2,
    "hash_key": "32 hexadecimal digits",
    "thresholds": {"lease_ms": 3000, …, "co2_ppm": [1000, 2000]},
    "deadline_ms": {"cycle": 45000, "association": 15000, …}

Targets and services are verified against /identity/roots.der where that is: certificates in DER,
one behind the other. MicroPython 1.25 takes one DER a call of `load_verify_locations` and adds
them up; of more in one call it sees only the first. (PEM it would take whole, without a NUL, but
the text of a few roots is a large piece of the heap, so it stays at the desk.)
"""

import json

# Probe: (longest default in ms, share of the cycle in percent). What runs behind a cut line or a
# dead router fits into one cycle together, so that it is never taken for a lack of time.
_DEADLINES = {
    "radio": (10000, 40),
    "association": (15000, 50),
    "addressing": (10000, 25),
    "gateway": (5000, 20),
    "resolver": (5000, 20),
    "portal": (5000, 10),
    "internet": (8000, 20),
    "service": (8000, 20),
    "throughput": (8000, 20),
}

# What holds where a key is left out; no two of these keys have the same name.
_DEFAULTS = {
    "portal": None,
    "watch": (),
    "lan": "",
    "dhcp_servers": (),
    "reference": "",
    "ntp": "pool.ntp.org",
    "targets": (),
    "services": (),
    "throughput": None,
    "sensors": (),
    "i2c": None,
    "light": None,
    "led": None,
    "hash_key": b"",
    "lease_ms": 3000,
    "crowded_networks": 8,
    "service_ms": 3000,
    "certificate_days": 14,
    "throughput_kbit_s": 2000,
    "co2_ppm": (1000, 2000),
}


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the key."""


class Section:
    """The keys of one JSON object as attributes.

    It has no methods: a function would hold on to this whole module, and the configuration
    outlives that.
    """


def _whole(value, low, high):
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError("must be an integer from %d to %d" % (low, high))
    return value


def _flag(value):
    if not isinstance(value, bool):
        raise ConfigError("must be true or false")
    return value


def _text(value, low, high):
    if not isinstance(value, str) or not low <= len(value.encode()) <= high:
        raise ConfigError("must be a text of %d to %d bytes" % (low, high))
    if any(byte < 32 or byte == 127 for byte in value.encode()):
        raise ConfigError("must not hold control characters")
    return value


def _choice(value, *choices):
    if value not in choices:
        raise ConfigError("must be one of %s" % ", ".join(choices))
    return value


def _hex_digits(text):
    return not text.strip("0123456789abcdef")


def _board(value):
    if not isinstance(value, str) or len(value) != 15 or value[:3] != "np-":
        raise ConfigError("must be np- and twelve hexadecimal digits")
    if not _hex_digits(value[3:]):
        raise ConfigError("must be np- and twelve hexadecimal digits")
    return value


def _hash_key(value):
    if not isinstance(value, str) or len(value) != 32 or not _hex_digits(value):
        raise ConfigError("must be 32 hexadecimal digits")
    return bytes(int(value[i : i + 2], 16) for i in range(0, 32, 2))


def _address(value):
    parts = value.split(".") if isinstance(value, str) else ()
    if len(parts) != 4 or not all(
        0 < len(p) < 4 and not p.strip("0123456789") and int(p) < 256 for p in parts
    ):
        raise ConfigError("must be an IPv4 address")
    return value


def _name(value):
    labels = value.rstrip(".").split(".") if isinstance(value, str) else ("",)
    if (
        not all(0 < len(label) < 64 for label in labels)
        or len(value) > 253
        or value.lower().strip("abcdefghijklmnopqrstuvwxyz0123456789.-_")
    ):
        raise ConfigError("must be a host name")
    return value


def _or_empty(value, check):
    return value if value == "" else check(value)


def _path(value):
    if not isinstance(value, str) or not value.startswith("/") or len(value) > 255:
        raise ConfigError("must be a path that begins with /")
    if not all(33 <= byte <= 126 for byte in value.encode()):
        raise ConfigError("must be printable ASCII without spaces")
    return value


def _bssid(text):
    parts = text.lower().split(":") if isinstance(text, str) else ()
    if len(parts) != 6 or not all(len(p) == 2 and _hex_digits(p) for p in parts):
        raise ConfigError("must be a BSSID like aa:bb:cc:dd:ee:ff")
    return bytes(int(p, 16) for p in parts)


def _pin(value):
    _whole(value, 0, 33)
    if value in {1, 3, 6, 7, 8, 9, 10, 11, 24, 28, 29, 30, 31}:
        raise ConfigError("must be a pin there is, no pin of the console (1, 3) or flash (6 to 11)")
    return value


def _light(value):
    if not isinstance(value, list):
        return _pin(value)
    if len(value) != 3:
        raise ConfigError("must be a pin, or a list of three: green, yellow, red")
    return tuple([_pin(each) for each in value])


def _levels(value):
    if not isinstance(value, list) or len(value) != 2:
        raise ConfigError("must be a list of two levels")
    low, high = _whole(value[0], 1, 40000), _whole(value[1], 1, 40000)
    if low >= high:
        raise ConfigError("must be a lower and a higher level")
    return low, high


# A rule is a check, a tuple of a check and what it is told, a dict for an object, or a list
# [rule, most] for a list.
_PORT = (_whole, 1, 65535)
_MILLISECONDS = (_whole, 1, 600000)
_TARGET = {"host": _name, "address": _address, "port": _PORT}
_PAGE = {"host": _name, "address": _address, "port": _PORT, "path": _path}
_WLAN = {
    "ssid": (_text, 1, 32),
    "key": (_text, 0, 64),
    "security": (_choice, "open", "wpa2-psk", "wpa3-sae"),
    "bssids": [_bssid, 32],
    "portal": dict(_PAGE, tls=_flag),
}
_SCHEMA = {
    "version": (_whole, 1, 1),
    "board": _board,
    "key_id": (_whole, 1, 65535),
    "role": (_choice, "classroom-sensor", "ap-monitor"),
    "period_s": (_whole, 1, 3600),
    "wlan": _WLAN,
    "watch": [_WLAN, 3],
    "lan": (_text, 1, 32),
    "dhcp_servers": [_address, 8],
    "uplink": {"host": _address, "port": _PORT, "server_name": _name},
    "resolver": {"name": _name, "address": _address, "reference": (_or_empty, _address)},
    "ntp": (_or_empty, _name),
    "internet": _PAGE,
    "targets": [_TARGET, 2],
    "services": [
        {
            "name": (_text, 1, 32),
            "host": _name,
            "port": _PORT,
            "path": _path,
            "tls": _flag,
            "status": (_whole, 100, 599),
        },
        4,
    ],
    "throughput": dict(_PAGE, bytes=(_whole, 16384, 16777216), every=(_whole, 1, 65535)),
    "sensors": [(_choice, "scd4x", "sht4x", "bme280"), 3],
    "i2c": {"sda": _pin, "scl": _pin},
    "light": _light,
    "led": _pin,
    "hash_key": _hash_key,
    "thresholds": {
        "rssi_dbm": (_whole, -127, -1),
        "gateway_loss_percent": (_whole, 0, 100),
        "gateway_rtt_ms": _MILLISECONDS,
        "resolver_ms": _MILLISECONDS,
        "internet_ms": _MILLISECONDS,
        "lease_ms": _MILLISECONDS,
        "crowded_networks": (_whole, 1, 255),
        "service_ms": _MILLISECONDS,
        "certificate_days": (_whole, 0, 1000),
        "throughput_kbit_s": (_whole, 1, 1000000),
        "co2_ppm": _levels,
    },
}


def load(path):
    """Load and check a configuration.

    Raises: ConfigError: it cannot be read, or a key is unknown, missing or wrong.
    """
    try:
        with open(path, "rb") as file:
            return _checked(json.load(file))
    except OSError as error:
        raise ConfigError("%s cannot be read: %s" % (path, error))
    except (ValueError, RuntimeError, MemoryError) as error:
        raise _refusal(error)


def parse(raw):
    """Check the bytes of a configuration.

    Returns: a Section of values, Sections and tuples of them; `deadline_ms` is a dict and complete.
    Raises:  ConfigError: a key is unknown, missing or wrong.
    """
    try:
        return _checked(json.loads(raw))
    except (ValueError, RuntimeError, MemoryError) as error:
        raise _refusal(error)


def _refusal(error):
    if isinstance(error, ConfigError):
        return error
    if isinstance(error, (RuntimeError, MemoryError)):
        return ConfigError("config.json is too large, or nested too deeply")
    return ConfigError("config.json is not valid JSON")


def _checked(document):
    given = document.pop("deadline_ms", {}) if isinstance(document, dict) else {}
    config = _object(document, _SCHEMA, "")
    _check_key(config.wlan, "wlan")
    for number, wlan in enumerate(config.watch):
        _check_key(wlan, "watch.%d" % number)
    config.deadline_ms = _deadlines(given, config.period_s, 1 + len(config.watch))
    return config


def _check(value, rule, where):
    if isinstance(rule, dict):
        return _object(value, rule, where + ".")
    if isinstance(rule, list):
        if not isinstance(value, list) or len(value) > rule[1]:
            raise ConfigError("config.json: %s must be a list of at most %d" % (where, rule[1]))
        return tuple(_check(item, rule[0], "%s.%d" % (where, i)) for i, item in enumerate(value))
    try:
        return rule[0](value, *rule[1:]) if isinstance(rule, tuple) else rule(value)
    except ConfigError as error:
        raise ConfigError("config.json: %s %s" % (where, error))


def _object(document, rules, prefix):
    if not isinstance(document, dict):
        raise ConfigError("config.json: %s must be an object" % (prefix.rstrip(".") or "it"))
    for key in document:
        if key not in rules:
            raise ConfigError("config.json: unknown key %s%s" % (prefix, _shown(key)))
    section = Section()
    for key, rule in rules.items():
        if key in document:
            setattr(section, key, _check(document[key], rule, prefix + key))
        elif key in _DEFAULTS:
            setattr(section, key, _DEFAULTS[key])
        else:
            raise ConfigError("config.json: %s%s is missing" % (prefix, key))
    return section


def _check_key(wlan, where):
    size = len(wlan.key.encode())
    if (wlan.security == "open") != (size == 0):
        raise ConfigError(
            "config.json: %s.key is for a protected WLAN, and an open one has none" % where
        )
    if 0 < size < 8 or (size == 64 and not _hex_digits(wlan.key.lower())):
        raise ConfigError(
            "config.json: %s.key must be 8 to 63 bytes or 64 hexadecimal digits" % where
        )


def _deadlines(given, period_s, networks):
    if not isinstance(given, dict):
        raise ConfigError("config.json: deadline_ms must be an object")
    for key in given:
        if key != "cycle" and key not in _DEADLINES:
            raise ConfigError("config.json: unknown key deadline_ms.%s" % _shown(key))
        _check(given[key], _MILLISECONDS, "deadline_ms." + key)
    cycle = given.get("cycle", min(45000, period_s * 800))
    if cycle >= period_s * 1000:
        raise ConfigError("config.json: deadline_ms.cycle must be shorter than the period")
    deadlines = {"cycle": cycle}
    for name, (longest, share) in _DEADLINES.items():
        deadlines[name] = given.get(name, min(longest, cycle * share // 100 // networks))
    return deadlines


def _shown(key):
    """Return a foreign key as it may be printed; MicroPython's JSON has keys of any kind."""
    return "".join(c if " " < c <= "~" else "?" for c in str(key))[:40]
