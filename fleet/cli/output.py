"""How every command speaks: one JSON document on stdout, or human text.

Results go to stdout; progress, warnings and errors go to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from fleet.errors import OutputError

Command = TypeVar("Command", bound=Callable[..., Any])

progress = Console(stderr=True, highlight=False)
result = Console(highlight=False)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout, errors included."
)
city_option = click.option(
    "--city",
    "city",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    envvar="NETZPULS_CITY",
    show_default="this folder, or $NETZPULS_CITY",
    help="Folder with inventory.toml and registry.toml.",
)


def bounds(
    timeout_s: float,
    timeout_help: str,
    parallel: int,
    what: str = "gateways",
    *,
    least_s: float = 1,
    short: Sequence[str] = (),
) -> Callable[[Command], Command]:
    """Add --timeout and --parallel, with these defaults; the arguments `timeout_s`, `parallel`.

    Args:
        timeout_s: how long, unless somebody says.
        timeout_help: what may take so long.
        parallel: how many at a time, unless somebody says.
        what: how many of what.
        least_s: what --timeout must be at least.
        short: another name of --timeout.
    """
    timeout = click.option(
        *short,
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=least_s),
        default=timeout_s,
        show_default=True,
        metavar="S",
        help=timeout_help,
    )
    many = click.option(
        "--parallel",
        type=click.IntRange(1, 64),
        default=parallel,
        show_default=True,
        metavar="N",
        help=f"How many {what} at a time.",
    )
    return lambda command: timeout(many(command))


def emit(document: Mapping[str, Any], render: Callable[[], None], as_json: bool) -> None:
    """Print a result: `document` as JSON with `"ok": true`, or whatever `render` prints."""
    if as_json:
        print_document({"ok": True} | dict(document))
    else:
        render()


def print_document(document: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout.

    Raises: OutputError: it cannot be written. BrokenPipeError: nobody reads it.
    """
    plain = sys.stdout.encoding.lower() != "utf-8"
    print_text(json.dumps(document, ensure_ascii=plain, indent=2, default=str) + "\n")


def print_text(text: str) -> None:
    """Print a text for programs on stdout, as it is.

    Raises: OutputError: it cannot be written. BrokenPipeError: nobody reads it.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write the result: {error.strerror}", hint="is the disk full that it goes to?"
        ) from None
