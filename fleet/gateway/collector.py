"""The collector: takes what boards report, commits it, then acknowledges.

    message → examine (seal, key, order) → commit (fsync) → acknowledge to board and broker

It runs as a process of its own (`python -m fleet.gateway.collector`), so that whatever kills it
leaves broker and boards alone. Killed at any moment it loses nothing that it acknowledged, and
what it did not acknowledge the boards send again.

The MQTT session is a lasting one: while the collector restarts, the broker keeps what boards
send, and a board sees no more than a late acknowledgement. It may lose that, too: boards resend.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, ParamSpec, TypeVar

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from firmware.linkreport import ack
from fleet.authority import collector_name
from fleet.errors import NetzpulsError
from fleet.gateway import broker, intake, keyring, leash, log, settings
from fleet.gateway.database import Database, Outcome, StorageError
from fleet.gateway.intake import Refusal, Verified
from fleet.gateway.settings import Folder, Settings
from fleet.inventory import BENCH

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

READY = "ready"

_SUBSCRIPTIONS = [("netzpuls/v1/+/report", 1), ("netzpuls/v1/+/status", 1)]
_ONLINE = b"online"
_IDLE_S = 1.0
_STATISTICS_S = 60
_LOG_INTERVAL_S = 10
_RECONNECT_S = (1, 30)
_RETRY_S = (0.25, 10.0)
_KEEPALIVE_S = 30


class _Arrival(NamedTuple):
    """A message as it came, and on which connection: the broker's numbers count per connection."""

    topic: str
    payload: bytes
    mid: int
    qos: int
    connection: int


@dataclass
class _Batch:
    """What one transaction takes in."""

    arrivals: list[_Arrival] = field(default_factory=list)
    reports: list[Verified] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    greeted: set[str] = field(default_factory=set)


class Collector:
    """One gateway's collector."""

    def __init__(self, folder: Folder, chosen: Settings) -> None:
        self._folder = folder
        self._limits = chosen.limits
        # What boards send to the bench has numbers of its own, with gaps.
        self._unsaid = {"reports-lost"} if chosen.id == BENCH else set()
        self._database = Database(folder.database)
        self._keyring = keyring.load(folder.boards)
        self._boards_seen = signature(folder.boards)
        self._boards_due = 0.0
        # Filled by the network's thread, emptied by the main one; None says stop.
        self._inbox: queue.SimpleQueue[_Arrival | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._connection = 0
        self._throttle = log.Throttle(_LOG_INTERVAL_S)
        self._counts = {"committed": 0, "duplicates": 0, "refused": 0}
        self._counts_due = time.monotonic() + _STATISTICS_S
        self._client = self._make_client(chosen)

    def run(self) -> None:
        """Collect until `stop`.

        Raises: DatabaseError: the database cannot be used, now or later.
        """
        if self._keep_trying(self._database.open) is None:
            return
        self._client.loop_start()
        try:
            while not self._stopping.is_set():
                batch = self._gather()
                if batch.arrivals:
                    self._settle(batch)
                self._look_around()
        finally:
            self._client.disconnect()
            self._client.loop_stop()
            self._database.close()
            self._say_counts()

    def stop(self) -> None:
        """End `run` after the batch in hand; safe to call from a signal handler."""
        self._stopping.set()
        self._inbox.put(None)

    # Network: these run in the MQTT client's thread.

    def _make_client(self, chosen: Settings) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=collector_name(chosen.id),
            clean_session=False,
            manual_ack=True,
        )
        client.tls_set_context(broker.tls(self._folder, chosen))
        client.max_inflight_messages_set(chosen.limits.inflight_messages)
        client.max_queued_messages_set(chosen.limits.waiting_messages)
        client.reconnect_delay_set(*_RECONNECT_S)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.connect_async(chosen.broker.host, chosen.broker.port, _KEEPALIVE_S)
        return client

    def _on_connect(
        self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if reason.is_failure:
            log.error("broker-refused-us", said=reason, hint="see the broker's access rules")
            return
        self._connection += 1
        client.subscribe(_SUBSCRIPTIONS)

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, _mid: int, reasons: list[Any], _properties: Any
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            log.error("subscription-refused", hint="see the broker's access rules")
            return
        log.info("collecting", connection=self._connection)
        # For the supervisor, which reads it from a pipe.
        sys.stdout.write(READY + "\n")
        sys.stdout.flush()

    def _on_connect_fail(self, _client: mqtt.Client, _data: Any) -> None:
        error = sys.exc_info()[1]
        if self._throttle.admit("broker-unreachable") is not None:
            log.warning("broker-unreachable", detail=error, hint="trying on")

    def _on_disconnect(
        self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if not self._stopping.is_set() and self._throttle.admit("broker-lost") is not None:
            log.warning("broker-lost", said=reason, hint="connecting again")

    def _on_message(self, client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        # The broker sends no more than its limit at QoS 1 before we answer. Beyond that it is
        # a flood at QoS 0, which nobody waits for.
        if self._inbox.qsize() > 2 * self._limits.inflight_messages:
            client.ack(message.mid, message.qos)
            if self._throttle.admit("overload") is not None:
                log.warning("overload", hint="messages dropped; boards send them again")
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        payload = bytes(message.payload)
        self._inbox.put(_Arrival(topic, payload, message.mid, message.qos, self._connection))

    # Work: these run in the main thread.

    def _gather(self) -> _Batch:
        """Wait for a message, then take what else is there, within the limits of a batch."""
        batch = _Batch()
        try:
            arrival = self._inbox.get(timeout=_IDLE_S)
        except queue.Empty:
            return batch
        deadline = time.monotonic() + self._limits.batch_ms / 1000
        while arrival is not None:
            self._take(arrival, batch)
            if len(batch.reports) >= self._limits.batch_reports or time.monotonic() > deadline:
                break
            try:
                arrival = self._inbox.get_nowait()
            except queue.Empty:
                break
        return batch

    def _take(self, arrival: _Arrival, batch: _Batch) -> None:
        batch.arrivals.append(arrival)
        match = intake.TOPIC.fullmatch(arrival.topic)
        if match and match[2] == "status":
            if arrival.payload == _ONLINE and match[1] in self._keyring:
                batch.greeted.add(match[1])
            return
        found = intake.examine(
            arrival.topic, arrival.payload, self._keyring, self._limits.message_bytes
        )
        batch.reports += found.reports
        batch.refusals += found.refusals

    def _settle(self, batch: _Batch) -> None:
        """Commit, then acknowledge, then tell."""
        received_s = int(time.time())
        outcome = self._keep_trying(
            self._database.commit, batch.reports, batch.refusals, received_s
        )
        if outcome is None:
            return
        streams = list(outcome.streams)
        for device in batch.greeted - {stream.device for stream in streams}:
            key_id = self._keyring.latest_key_id(device)
            stream = key_id and self._keep_trying(self._database.stream, device, key_id)
            if stream:
                streams.append(stream)
        now_s = int(time.time())
        for device, key_id, seq in streams:
            seal = self._keyring.seal(device, key_id)
            if seal is not None:
                packed = ack.pack(key_id, seq, now_s, seal)
                self._client.publish(f"netzpuls/v1/{device}/ack", packed, qos=1)
        for arrival in batch.arrivals:
            if arrival.connection == self._connection:
                self._client.ack(arrival.mid, arrival.qos)
        self._tell(outcome)

    def _keep_trying(
        self, action: Callable[_Given, _Result], *given: _Given.args, **named: _Given.kwargs
    ) -> _Result | None:
        """Do something to the database, again and again while its disk is full.

        Returns: what it returns, None if the collector is to stop meanwhile.
        """
        delay_s, longest_s = _RETRY_S
        failed_s: float | None = None
        told = False
        while True:
            try:
                result = action(*given, **named)
            except StorageError as error:
                if failed_s is None:
                    failed_s = time.monotonic()
                    # A disk on the brink fails and works by turns.
                    told = self._throttle.admit("cannot-store") is not None
                    if told:
                        self._say_full(error)
                if self._stopping.wait(delay_s):
                    return None
                delay_s = min(2 * delay_s, longest_s)
                continue
            if failed_s is not None and told:
                log.info("storing-again", after_s=round(time.monotonic() - failed_s))
            return result

    def _say_full(self, error: StorageError) -> None:
        folder = self._folder.path
        try:
            free: int | str = shutil.disk_usage(folder).free
        except OSError as unreadable:
            free = unreadable.strerror or "unknown"
        log.error(
            "cannot-store",
            detail=error,
            folder=folder.absolute(),
            free_bytes=free,
            hint="nothing is acknowledged and boards keep their reports: make room there",
        )

    def _tell(self, outcome: Outcome) -> None:
        self._counts["committed"] += outcome.committed
        self._counts["duplicates"] += outcome.duplicates
        self._counts["refused"] += len(outcome.refusals)
        for note in (each for each in outcome.notes if each.event not in self._unsaid):
            held = self._throttle.admit((note.event, note.device))
            if held is not None:
                log.warning(
                    note.event, device=note.device, detail=note.detail, suppressed=held or None
                )
        for refusal in outcome.refusals:
            held = self._throttle.admit((refusal.reason, refusal.device))
            if held is not None:
                log.warning("refused", **refusal._asdict(), suppressed=held or None)

    def _look_around(self) -> None:
        """Once a second: were boards enrolled? Once a minute: say what was done."""
        now = time.monotonic()
        if now >= self._boards_due:
            self._boards_due = now + _IDLE_S
            seen = signature(self._folder.boards)
            if seen != self._boards_seen:
                self._boards_seen = seen
                self._reload()
        if now >= self._counts_due:
            self._counts_due = now + _STATISTICS_S
            self._say_counts()

    def _reload(self) -> None:
        try:
            self._keyring = keyring.load(self._folder.boards)
        except NetzpulsError as error:
            log.error("boards-unreadable", detail=error.message, hint="the boards before stay")
        else:
            log.info("boards-changed", boards=len(self._keyring))

    def _say_counts(self) -> None:
        if any(self._counts.values()):
            log.info("collected", **self._counts)
            self._counts = dict.fromkeys(self._counts, 0)


def signature(path: Path) -> tuple[int, int, int] | None:
    """Return what tells whether a file was changed, None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _die_with_thread(arguments: threading.ExceptHookArgs) -> None:
    """End the process when the MQTT client's thread breaks: a deaf collector helps nobody."""
    log.error("defect", thread=arguments.thread and arguments.thread.name, said=arguments.exc_value)
    os._exit(1)


def main() -> int:
    """Run the collector as a child of the supervisor."""
    parser = argparse.ArgumentParser(prog="collector")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    leash.tie(arguments.parent)
    log.configure(verbose=arguments.verbose)
    threading.excepthook = _die_with_thread
    folder = Folder(arguments.dir)
    try:
        collector = Collector(folder, settings.load(folder))

        def stop(_signal: int, _frame: FrameType | None) -> None:
            collector.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        collector.run()
    except NetzpulsError as error:
        log.error(error.code, detail=error.message, hint=error.hint)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
