"""`netzpuls lab`: virtual boards, in the foreground."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fleet.cli import EXIT_INTERRUPTED
from fleet.cli.lazy import LazyGroup
from fleet.cli.output import emit, json_option, result
from fleet.errors import ConfigurationError
from hil.board.application import TEXT, build_image
from hil.board.board import DEFAULT_MAC, Board, Settings, serve
from hil.board.i2c import DEVICES
from hil.board.run import HEAP_BYTES

_PATH = click.Path(path_type=Path, dir_okay=False)


class _Mac(click.ParamType[bytes]):
    name = "mac"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        try:
            mac = bytes.fromhex(str(value).replace(":", "").replace("-", ""))
        except ValueError:
            mac = b""
        if len(mac) != 6:
            self.fail(f"{value!r} is no MAC address such as 24:0a:c4:00:00:01", param, ctx)
        return mac


# The network lab is loaded only when it is called: a board must start fast.
_NETWORK = {
    "up": ("hil.lab.cli:up", "Build the network lab and keep it until Ctrl-C."),
    "fault": ("hil.lab.cli:fault", "Break something in the running lab."),
    "heal": ("hil.lab.cli:heal", "End a fault, or all of them."),
    "status": ("hil.lab.cli:status", "Show the running lab's boards and what they say."),
    "capture": ("hil.lab.cli:capture", "Write what passes over a board's links to a file."),
    "down": ("hil.lab.cli:down", "End the running lab."),
    "matrix": ("hil.lab.cli:matrix", "Make every fault and print what the boards said."),
}


@click.group(cls=LazyGroup, lazy=_NETWORK)
def lab() -> None:
    """Virtual boards and a network lab, for trying and for tests."""


@lab.command()
@click.option("--link", type=_PATH, required=True, help="Port to make: a link to a terminal.")
@click.option("--rfc2217", type=click.IntRange(0, 65535), help="TCP port with DTR/RTS; 0: any.")
@click.option("--log", type=_PATH, help="File that takes all that the board prints.")
@click.option("--flash", type=_PATH, help="Flash file of 4 MB to keep; made blank if missing.")
@click.option("--radio", type=_PATH, help="Radio model (JSON); see hil/board/radio.py.")
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    help="A WLAN interface in this network namespace; may be repeated.  [default: relays]",
)
@click.option("--lan", help="Interface of its Ethernet; needs --interface.")
@click.option(
    "--sensor",
    "sensors",
    multiple=True,
    type=click.Choice(tuple(DEVICES)),
    help="A sensor on its I2C bus; may be repeated.",
)
@click.option("--control", type=_PATH, help="Control socket.  [default: LINK.control]")
@click.option(
    "--mac", type=_Mac(), default=DEFAULT_MAC.hex(":"), show_default=True, help="Its MAC."
)
@click.option("--instant", is_flag=True, help="No line speed, no flash times, no radio delays.")
@click.option("--micropython", type=_PATH, help="Another unix MicroPython, such as a 32-bit one.")
@click.option(
    "--heap", "heap_bytes", type=click.IntRange(8192), default=HEAP_BYTES, help="Its heap in bytes."
)
@click.option("--with-parent", is_flag=True, help="End when standard input ends.")
@json_option
def board(with_parent: bool, as_json: bool, **options: Any) -> int:
    """Run a virtual ESP32 in the foreground until Ctrl-C.

    The real esptool and mpremote use it as they use a real one: `esptool --port LINK flash-id`,
    `mpremote connect LINK repl`. See docs/virtual-board.md.
    """
    settings = Settings(**options)
    mac = settings.mac.hex(":")

    def ready(started: Board) -> None:
        tcp = f" and rfc2217://127.0.0.1:{started.rfc2217_port}" if started.rfc2217_port else ""
        text = (
            f"Virtual ESP32 {mac} on {settings.link}{tcp}; flash {started.flash_path}; "
            f"control {settings.control_path}. Stop it with Ctrl-C."
        )
        document = {
            "link": str(settings.link),
            "flash": str(started.flash_path),
            "control": str(settings.control_path),
            "rfc2217": started.rfc2217_port,
            "mac": mac,
        }
        emit(document, lambda: result.print(text, markup=False, soft_wrap=True), as_json)

    asyncio.run(_until_stopped(settings, ready, with_parent=with_parent))
    return EXIT_INTERRUPTED


async def _until_stopped(
    settings: Settings, ready: Callable[[Board], None], *, with_parent: bool
) -> None:
    loop = asyncio.get_running_loop()
    serving = loop.create_task(serve(settings, ready), name="board")

    def parent_gone() -> None:
        loop.remove_reader(sys.stdin.fileno())
        serving.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    if with_parent:
        loop.add_reader(sys.stdin.fileno(), parent_gone)  # nothing is ever written to it
    await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()


@lab.command()
@click.argument("file", type=_PATH)
@click.option("--seed", default="netzpuls", show_default=True, help="Another seed, other bytes.")
@json_option
def image(file: Path, seed: str, as_json: bool) -> None:
    """Write a stand-in for the official MicroPython image to FILE.

    It has the official image's layout, size and entropy, but holds no program: only
    virtual boards start with it. Write it to a board at 0x1000.
    """
    data = build_image(seed)
    try:
        file.write_bytes(data)
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be written: {error.strerror}", hint="name a file that you can write to"
        ) from error
    document = {"file": str(file), "bytes": len(data), "address": 0x1000, "text": TEXT}
    text = f"{file}: {len(data)} bytes, to be written at 0x1000.\n{TEXT}"
    emit(document, lambda: result.print(text, markup=False, soft_wrap=True), as_json)
