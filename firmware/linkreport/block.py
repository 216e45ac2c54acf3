"""Extension blocks of a report: what was measured beyond the core, by kind.

    block = kind (B) ‖ length (B) ‖ content, in network byte order

A content is one structure, or a list of equal ones. All ones (for signed fields: the lowest
value) say "not measured". The fields are explained in docs/wire.md.
"""

ERROR = 1  # the last exception that was survived: UTF-8 text
AGENT = 2  # version of agent and interpreter: UTF-8 text

# own access points in the air, foreign networks in all, foreign ones on our channel, strongest
# foreign on our channel in dBm, then one nibble a channel from 1 to 14: foreign networks, 15 for
# more
AIR = 3
AIR_FORMAT = ">BBBb7s"

# list: BSSID, RSSI in dBm, channel, security (port's numbers); own access points only
OWN = 4
OWN_FORMAT = ">6sbBB"

# list: keyed rotating hash of a foreign BSSID, channel, RSSI in dBm
FOREIGN = 5
FOREIGN_FORMAT = ">4sBb"

# what the driver said last, associations lost since the last report, attempts that last one took
ASSOCIATION = 6
ASSOCIATION_FORMAT = ">HBB"

# lease time in s, address of the DHCP server, servers that answered, ms from question to lease
LEASE = 7
LEASE_FORMAT = ">I4sBH"

# echoes sent, RTT least and 95th percentile in µs, jitter in µs (mean difference of neighbours)
PATH = 8
PATH_FORMAT = ">BIII"

# the reference resolver: what it answered (its rcode; 254 a wrong address, 255 nothing), ms
REFERENCE = 9
REFERENCE_FORMAT = ">BH"

# HTTP status of the portal's page, ms to it, 0/1 as the RFC 8908 API says "captive" (255: no API)
PORTAL = 10
PORTAL_FORMAT = ">HHB"

# list, one a target: reason, connect ms, TLS handshake ms, days the certificate is valid
TARGET = 11
TARGET_FORMAT = ">BHHh"

# list, one a service, in the order of the configuration: reason, ms, HTTP status, certificate days
SERVICE = 12
SERVICE_FORMAT = ">BHHh"

# what the board itself got: kbit/s, KiB moved
THROUGHPUT = 13
THROUGHPUT_FORMAT = ">IH"

# bits of sensors that failed (bit 0 the first of SENSORS), CO₂ in ppm, temperature in 1/100 °C,
# relative humidity in 1/1000
SENSOR = 14
SENSOR_FORMAT = ">BHhH"
SENSORS = ("scd4x", "sht4x", "bme280")

# trouble (term.TROUBLES), s since the last acknowledgement, reports lost in all, s that the
# collector's clock is ahead of ours
UPLINK = 15
UPLINK_FORMAT = ">BIIi"

# list, one for each further SSID: number in `watch` from 1 on, state, layer, reason, RSSI in dBm
WATCH = 16
WATCH_FORMAT = ">BBBBb"
