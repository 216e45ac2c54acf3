"""Radio and association: made in the boards' radio models, by their control sockets.

The air is a model: what a board hears, and how the driver answers, is told to it. Everything
above it is real.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from firmware.linkreport.table import (
    ACCESS_POINT_FULL,
    ACCESS_POINT_MISSING,
    ASSOCIATION,
    ASSOCIATION_LOST,
    CHANNEL_CROWDED,
    HANDSHAKE_TIMEOUT,
    KICKED,
    NETWORK_NOT_FOUND,
    OTHER_NETWORK_FAILED,
    RADIO,
    SECURITY_MISMATCH,
    SERVICE,
    WEAK_SIGNAL,
    WRONG_KEY,
)
from fleet.errors import NetzpulsError
from hil.lab.fault.definition import Expected, Scene, fault

_WEAK_DBM = -84
_CROWD = 10
_CROWD_DBM = -64
_OTHER_KEY = "another key, of another year"
_KICK_EVERY_S = 0.05
_REBOOT_SHARE = 0.1  # of a period: as long as access points take of two minutes, roughly
_DEAUTHENTICATED = 2  # IEEE 802.11 reason: previous authentication no longer valid


@contextlib.contextmanager
def _changed(scene: Scene, **change: Any) -> Iterator[None]:
    """Change the own access points as these boards meet them."""
    for board in scene.boards:
        board.control.change(board.ssid, **change)
    try:
        yield
    finally:
        _restore(scene)


def _restore(scene: Scene) -> None:
    for board in scene.boards:
        board.control.set_radio(board.radio)


@fault(
    "no-such-network",
    "the access points send another SSID",
    Expected(NETWORK_NOT_FOUND),
    layer=RADIO,
    part="radio",
    one_board=True,
)
def _renamed(scene: Scene) -> Iterator[None]:
    for board in scene.boards:
        change = {"ssid": f"{board.ssid}-2"}
        board.control.call("access-point", ssid=board.ssid, change=change)
        board.control.kick(change["ssid"], _DEAUTHENTICATED)  # an access point starts anew for it
    yield
    _restore(scene)


@fault(
    "all-access-points-gone",
    "all access points of the school lose their power",
    Expected(NETWORK_NOT_FOUND),
    layer=RADIO,
    part="radio",
    one_board=True,
    merged="no-such-network: an SSID that nobody sends looks the same, whoever stopped sending",
)
def _all_gone(scene: Scene) -> Iterator[None]:
    with _changed(scene, up=False):
        yield


@fault(
    "access-point-gone",
    "the nearest access point loses its power, a farther one of the school stays",
    Expected(ACCESS_POINT_MISSING),
    layer=RADIO,
    part="radio",
    one_board=True,
)
def _one_gone(scene: Scene) -> Iterator[None]:
    for board in scene.boards:
        nearest = board.radio["access_points"][0]
        board.control.call(
            "access-point", ssid=board.ssid, change={"up": False}, bssid=nearest["bssid"]
        )
    yield
    _restore(scene)


@fault(
    "weak-signal",
    f"the access points are heard at {_WEAK_DBM} dBm",
    Expected(WEAK_SIGNAL),
    layer=RADIO,
    part="radio",
    one_board=True,
)
def _weak(scene: Scene) -> Iterator[None]:
    with _changed(scene, rssi_dbm=_WEAK_DBM):
        yield


@fault(
    "channel-crowded",
    f"{_CROWD} foreign networks appear on the access point's channel",
    Expected(CHANNEL_CROWDED),
    layer=RADIO,
    part="radio",
    one_board=True,
)
def _crowded(scene: Scene) -> Iterator[None]:
    for board in scene.boards:
        crowded = copy.deepcopy(board.radio)
        channel = crowded["access_points"][0]["channel"]
        crowded["access_points"] += [
            {
                "ssid": f"Nachbar {number}",
                "bssid": f"02:00:5e:00:55:{number:02x}",
                "channel": channel,
                "rssi_dbm": _CROWD_DBM - number,
                "security": "wpa2-psk",
                "key": _OTHER_KEY,
            }
            for number in range(_CROWD)
        ]
        board.control.set_radio(crowded)
    yield
    _restore(scene)


@fault(
    "security-changed",
    "the access points offer the SSID without protection",
    Expected(SECURITY_MISMATCH),
    layer=RADIO,
    part="radio",
    one_board=True,
)
def _opened(scene: Scene) -> Iterator[None]:
    with _changed(scene, security="open", key=""):
        for board in scene.boards:
            board.control.kick(board.ssid, _DEAUTHENTICATED)
        yield


@fault(
    "wrong-key",
    "the school's WLAN gets another key",
    Expected(WRONG_KEY),
    layer=ASSOCIATION,
    part="radio",
    one_board=True,
)
def _wrong_key(scene: Scene) -> Iterator[None]:
    for board in scene.boards:
        board.control.change(board.ssid, key=_OTHER_KEY)
        board.control.kick(board.ssid, _DEAUTHENTICATED)
    yield
    _restore(scene)


@fault(
    "handshake-silent",
    "the access point does not answer the four-way handshake",
    Expected(HANDSHAKE_TIMEOUT),
    layer=ASSOCIATION,
    part="radio",
    one_board=True,
)
def _no_handshake(scene: Scene) -> Iterator[None]:
    for board in scene.boards:
        board.control.change(board.ssid, handshake=False)
        board.control.kick(board.ssid, _DEAUTHENTICATED)
    yield
    _restore(scene)


@fault(
    "access-point-full",
    "the access points take no further station, and have forgotten this one",
    Expected(ACCESS_POINT_FULL),
    layer=ASSOCIATION,
    part="radio",
    one_board=True,
)
def _full(scene: Scene) -> Iterator[None]:
    for board in scene.boards:
        board.control.change(board.ssid, full=True)
        board.control.kick(board.ssid, _DEAUTHENTICATED)
    yield
    _restore(scene)


@fault(
    "kicked",
    "the access point throws the board out again as soon as it is in",
    Expected(KICKED),
    layer=ASSOCIATION,
    part="radio",
    one_board=True,
)
def _kicked(scene: Scene) -> Iterator[None]:
    def kick() -> None:
        for board in scene.boards:
            board.control.kick(board.ssid, _DEAUTHENTICATED)

    with _repeated(_KICK_EVERY_S, kick):
        yield


@fault(
    "access-point-reboots",
    "the access points restart every two periods: every 2 minutes where boards report each minute",
    Expected(ASSOCIATION_LOST),
    layer=ASSOCIATION,
    part="radio",
    one_board=True,
    comes_and_goes=True,
)
def _reboots(scene: Scene) -> Iterator[None]:
    def reboot() -> None:
        with _changed(scene, up=False):
            time.sleep(_REBOOT_SHARE * scene.lab.period_s)

    with _repeated((2 - _REBOOT_SHARE) * scene.lab.period_s, reboot):
        yield
    _restore(scene)


@fault(
    "other-network-down",
    "the hotspot's second WLAN, which its monitor watches too, is not in the air",
    Expected(OTHER_NETWORK_FAILED),
    layer=SERVICE,
    part="radio",
    kind="hotspot",
    roles=("ap-monitor",),
)
def _other_down(scene: Scene) -> Iterator[None]:
    for board in scene.boards:
        ssid = board.radio["access_points"][2]["ssid"]
        board.control.change(ssid, up=False)
    yield
    _restore(scene)


@contextlib.contextmanager
def _repeated(pause_s: float, act: Callable[[], None]) -> Iterator[None]:
    """Do something again and again, with pauses, until it is over."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            with contextlib.suppress(NetzpulsError):  # a board that has no power just now
                act()
            stopping.wait(pause_s)

    thread = threading.Thread(target=run, name="fault", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
