import json
import unittest

from agent.config import ConfigError, Section, load, parse
from place import WLAN_KEY, configuration


def parsed(document):
    return parse(json.dumps(document).encode())


def full():
    """Return a configuration with every key that there is."""
    document = configuration(
        lan="olimex-esp32-poe",
        dhcp_servers=["10.1.0.1", "10.1.0.3"],
        ntp="ntp.example.org",
        sensors=["scd4x", "sht4x"],
        i2c={"sda": 21, "scl": 22},
        light=5,
        led=2,
        hash_key="000102030405060708090a0b0c0d0e0f",
        deadline_ms={"throughput": 3000},
    )
    page = {"host": "login.example.org", "address": "203.0.113.81", "port": 443, "path": "/login"}
    document["wlan"]["portal"] = dict(page, tls=True)
    wlan = {"key": "geheim-5678", "security": "wpa3-sae", "bssids": ["02:00:00:00:00:09"]}
    document["watch"] = [
        dict(wlan, ssid="Lehrer"),
        {
            "ssid": "Gast",
            "key": "",
            "security": "open",
            "bssids": [],
            "portal": dict(page, tls=True),
        },
    ]
    document["resolver"]["reference"] = "203.0.113.53"
    document["targets"] = [
        {"host": "one.example.org", "address": "203.0.113.82", "port": 443},
        {"host": "two.example.org", "address": "203.0.113.83", "port": 8443},
    ]
    service = {"host": "lernen.example.org", "port": 443, "path": "/", "tls": True, "status": 200}
    document["services"] = [
        dict(service, name="Lernplattform"),
        dict(service, name="Mail", tls=False),
    ]
    document["throughput"] = dict(page, path="/256k", bytes=262144, every=60)
    document["thresholds"].update(
        {
            "lease_ms": 2000,
            "crowded_networks": 6,
            "service_ms": 2000,
            "certificate_days": 30,
            "throughput_kbit_s": 1000,
            "co2_ppm": [800, 1400],
        }
    )
    return document


class ConfigTest(unittest.TestCase):
    def refused(self, document, *words):
        with self.assertRaises(ConfigError) as caught:
            parsed(document)
        message = str(caught.exception)
        for word in words:
            self.assertIn(word, message)
        self.assertNotIn(WLAN_KEY, message)

    def test_takes_a_good_one(self):
        config = parsed(configuration())
        self.assertEqual(config.board, "np-240ac4123456")
        self.assertEqual(config.wlan.ssid, "Schule")
        self.assertEqual(config.uplink.port, 8883)
        self.assertEqual(config.thresholds.rssi_dbm, -75)
        self.assertEqual(config.deadline_ms["cycle"], 45000)
        self.assertEqual(config.deadline_ms["association"], 15000)

    def test_reads_bssids(self):
        wlan = dict(configuration()["wlan"])
        wlan["bssids"] = ["02:00:00:00:00:0A", "aa:bb:cc:dd:ee:ff"]
        config = parsed(configuration(wlan=wlan))
        self.assertEqual(config.wlan.bssids[0], b"\x02\x00\x00\x00\x00\x0a")

    def test_what_a_dead_router_leaves_to_wait_for_fits_into_a_short_cycle(self):
        names = ("addressing", "gateway", "resolver", "portal", "internet")
        for period_s in (1, 2, 5, 10, 60, 3600):
            deadlines = parsed(configuration(period_s=period_s)).deadline_ms
            self.assertTrue(deadlines["cycle"] < period_s * 1000)
            needed = sum(deadlines[name] for name in names)
            self.assertLessEqual(needed, deadlines["cycle"] * 95 // 100)

    def test_has_defaults(self):
        config = parsed(configuration())
        for name in ("watch", "dhcp_servers", "targets", "services", "sensors"):
            self.assertEqual(getattr(config, name), ())
        for name in ("throughput", "i2c", "light", "led"):
            self.assertIsNone(getattr(config, name))
        self.assertIsNone(config.wlan.portal)
        self.assertEqual((config.lan, config.hash_key), ("", b""))
        self.assertEqual((config.ntp, config.resolver.reference), ("pool.ntp.org", ""))
        self.assertEqual(config.thresholds.lease_ms, 3000)
        self.assertEqual(config.thresholds.co2_ppm, (1000, 2000))

    def test_takes_all_there_is(self):
        config = parsed(full())
        self.assertEqual(config.wlan.portal.path, "/login")
        self.assertTrue(config.wlan.portal.tls)
        self.assertEqual([wlan.ssid for wlan in config.watch], ["Lehrer", "Gast"])
        self.assertIsNone(config.watch[0].portal)
        self.assertEqual(config.watch[1].portal.port, 443)
        self.assertEqual(config.watch[0].bssids, (b"\x02\x00\x00\x00\x00\x09",))
        self.assertEqual(config.dhcp_servers, ("10.1.0.1", "10.1.0.3"))
        self.assertEqual(config.resolver.reference, "203.0.113.53")
        self.assertEqual([t.host for t in config.targets], ["one.example.org", "two.example.org"])
        self.assertEqual(config.services[0].name, "Lernplattform")
        self.assertEqual(config.services[0].status, 200)
        self.assertEqual(config.throughput.every, 60)
        self.assertEqual(config.sensors, ("scd4x", "sht4x"))
        self.assertEqual((config.i2c.sda, config.i2c.scl), (21, 22))
        self.assertEqual((config.lan, config.light, config.led), ("olimex-esp32-poe", 5, 2))
        self.assertEqual(config.hash_key, bytes(range(16)))
        self.assertEqual(config.thresholds.co2_ppm, (800, 1400))
        self.assertEqual(config.deadline_ms["throughput"], 3000)

    def test_a_light_is_a_ring_or_three_lamps(self):
        self.assertEqual(parsed(configuration(light=5)).light, 5)
        self.assertEqual(parsed(configuration(light=[25, 26, 27])).light, (25, 26, 27))

    def test_the_name_of_the_time_server_and_the_reference_may_be_empty(self):
        document = configuration(ntp="")
        document["resolver"]["reference"] = ""
        self.assertEqual(parsed(document).ntp, "")

    def test_names_a_wrong_value_in_what_may_be_left_out(self):
        for path, values in {
            "wlan.portal": (None, [], 1),
            "wlan.portal.tls": (1, None, "true"),
            "wlan.portal.path": ("login", 1),
            "watch": (None, {}, [full()["watch"][0]] * 4),
            "watch.0": ([1], [None]),
            "watch.1.ssid": ([full()["watch"][0], dict(full()["watch"][0], ssid="")],),
            "watch.1.key": ([full()["watch"][0], dict(full()["watch"][0], key="")],),
            "lan": ("", "a\nb", 1, "x" * 33),
            "dhcp_servers": ("10.1.0.1", ["10.1.0.1"] * 9),
            "dhcp_servers.1": (["10.1.0.1", "router"],),
            "resolver.reference": ("dns", None, 1),
            "ntp": ("a b", None),
            "targets": ([full()["targets"][0]] * 3,),
            "targets.0.address": ([dict(full()["targets"][0], address="one")],),
            "services": ([full()["services"][0]] * 5,),
            "services.0.status": (
                [dict(full()["services"][0], status=99)],
                [dict(full()["services"][0], status="200")],
            ),
            "throughput.every": (0, 65536),
            "throughput.bytes": (0, 16383, 1 << 25),
            "sensors": ("scd4x", ["scd4x"] * 4),
            "sensors.0": (["mq135"], [1], [[]]),
            "i2c": (21, None),
            "i2c.sda": (40, -1, True),
            "light": (34, None, [], [25, 26], [25, 26, 6], [25, 26, "27"]),
            "led": ("2", 34, 1, 3, 6, 11, 24, 28, 31, True),
            "hash_key": ("", "0" * 31, "0" * 33, "G" * 32, "A" * 32, 1, None),
            "thresholds.co2_ppm": ([1000], [2000, 1000], [1000, 1000], 1000, ["1", 2], [0, 1]),
            "thresholds.lease_ms": (0, True),
            "thresholds.crowded_networks": (0, 256),
            "deadline_ms.service": (0, None),
        }.items():
            parts = path.split(".")
            for value in values:
                document = full()
                if len(parts) > 1 and isinstance(document.get(parts[0]), dict):
                    below = document[parts[0]]
                    for part in parts[1:-1]:
                        below = below[part]
                    below[parts[-1]] = value
                else:
                    document[parts[0]] = value
                self.refused(document, "config.json: " + path + " ")

    def test_names_what_is_missing_or_unknown_in_a_list(self):
        document = full()
        del document["services"][1]["tls"]
        self.refused(document, "services.1.tls is missing")
        document = full()
        document["targets"][1]["prot"] = 1
        self.refused(document, "unknown key targets.1.prot")

    def test_a_configuration_does_not_hold_on_to_the_checker(self):
        # A function reaches its module: one method would keep all of it in the board's memory.
        self.assertNotIn("__init__", Section.__dict__)
        functions = [n for n, v in Section.__dict__.items() if isinstance(v, type(parsed))]
        self.assertEqual(functions, [])

    def test_names_an_unknown_key(self):
        self.refused(configuration(perid_s=60), "unknown key perid_s")
        document = configuration()
        document["uplink"]["hosts"] = 1
        self.refused(document, "unknown key uplink.hosts")
        self.refused(configuration(deadline_ms={"gatway": 1}), "unknown key deadline_ms.gatway")

    def test_an_unknown_key_is_shown_harmlessly(self):
        document = configuration()
        document["\x1b[31m" + "x" * 100] = 1
        self.refused(document, "unknown key ?[31mxxx")

    def test_names_a_missing_key(self):
        for key in configuration():
            document = configuration()
            del document[key]
            self.refused(document, key + " is missing")
        for section in ("wlan", "uplink", "resolver", "internet", "thresholds"):
            for key in configuration()[section]:
                document = configuration()
                del document[section][key]
                self.refused(document, "%s.%s is missing" % (section, key))

    def test_names_a_wrong_value(self):
        for key, values in {
            "version": (0, 2, "1", True, None),
            "board": ("np-240AC4123456", "np-1", "xx-240ac4123456", 1),
            "key_id": (0, 65536, 1.5),
            "role": ("sensor", 1, None, []),
            "period_s": (0, 3601, "60", None),
            "wlan": (1, [], None),
            "deadline_ms": (1, []),
        }.items():
            for value in values:
                document = configuration()
                document[key] = value
                self.refused(document, "config.json: " + key)

    def test_names_a_wrong_value_below(self):
        for path, values in {
            "wlan.ssid": ("", "x" * 33, "a\nb", 1),
            "wlan.key": ("short", "x" * 64, "x" * 65, 1),
            "wlan.security": ("wep", "wpa2-enterprise"),
            "wlan.bssids": ("aa:bb:cc:dd:ee:ff", ["aa:bb"], [1], ["aa:bb:cc:dd:ee:fg"], [None]),
            "uplink.host": ("gateway", "1.2.3", "1.2.3.256", "1.2.3.4 ", "1..2.3", 1),
            "uplink.port": (0, 65536, "8883"),
            "uplink.server_name": ("", "a b", "a..b", "x" * 64, 1),
            "resolver.name": ("", "ä.de", 1),
            "resolver.address": ("probe", 1),
            "internet.path": ("generate_204", "/a b", "/\r\nHost: evil", 1),
            "internet.host": ("a\r\nX: y", 1),
            "thresholds.rssi_dbm": (1, -128, "-75"),
            "thresholds.gateway_loss_percent": (101, -1),
            "deadline_ms.cycle": (0, 60000, "1", True),
            "deadline_ms.radio": (0, None),
        }.items():
            section, key = path.split(".")
            for value in values:
                document = configuration()
                document.setdefault(section, {})[key] = value
                self.refused(document, path)

    def test_key_and_security_must_agree(self):
        wlan = dict(configuration()["wlan"])
        wlan["security"] = "open"
        self.refused(configuration(wlan=wlan), "wlan.key")
        wlan["key"] = ""
        self.assertEqual(parsed(configuration(wlan=wlan)).wlan.key, "")

    def test_takes_a_key_in_hex(self):
        wlan = dict(configuration()["wlan"])
        wlan["key"] = "0123456789abcdefABCDEF0123456789" * 2
        self.assertEqual(len(parsed(configuration(wlan=wlan)).wlan.key), 64)

    def test_refuses_what_is_no_json_object(self):
        for raw in (b"", b"{", b"[]", b"1", b'"x"', b"null", b"\xff\xfe", b"[" * 500):
            with self.assertRaises(ConfigError):
                parse(raw)

    def test_a_missing_file_is_named(self):
        with self.assertRaises(ConfigError) as caught:
            load("/nowhere/config.json")
        self.assertIn("/nowhere/config.json cannot be read", str(caught.exception))
