import json
import unittest

from agent.config import ConfigError, load, parse
from place import WLAN_KEY, configuration


def parsed(document):
    return parse(json.dumps(document).encode())


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

    def test_gateway_resolver_and_internet_fit_into_a_short_cycle_together(self):
        for period_s in (1, 2, 5, 10, 60, 3600):
            deadlines = parsed(configuration(period_s=period_s)).deadline_ms
            self.assertTrue(deadlines["cycle"] < period_s * 1000)
            needed = deadlines["gateway"] + deadlines["resolver"] + deadlines["internet"]
            self.assertLessEqual(needed, deadlines["cycle"] * 3 // 4)

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
