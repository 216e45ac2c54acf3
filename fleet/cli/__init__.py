"""The command `netzpuls <noun> <verb>`.

Each noun lives with the code that does its work and is imported when it is called.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

import click

from fleet.cli.lazy import LazyGroup
from fleet.cli.output import print_document, progress, result
from fleet.errors import NetzpulsError, OutputError

# noun: (where it lives, what it is for)
NOUNS = {
    "board": ("provisioning.cli:board", "Flash, enrol, label and list boards."),
    "gateway": ("fleet.cli.gateway:gateway", "Prepare and run a site's gateway."),
    "fleet": ("fleet.cli.fleet:fleet", "Collect reports; show uptime and outages; check."),
    "lab": ("hil.cli:lab", "Virtual boards, for trying and for tests."),
    "demo": ("hil.demo:demo", "The whole way, from blank boards to a line of uptime."),
}

EXIT_INTERRUPTED = 130
_UNKNOWN = 3


class _Nouns(LazyGroup):
    kind = "Nouns"

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            ctx.fail(f"no noun {cmd_name!r}: there are {', '.join(self.lazy)}")
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Nouns, lazy=NOUNS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="netzpuls", prog_name="netzpuls")
def cli() -> None:
    """Know, room by room, whether a city's WLAN and broadband work, and prove it.

    Exit codes: 0 good, 1 some or all targets failed, 2 usage or configuration,
    3 bench or board unavailable, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the code that the outcome calls for."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where there is no UTF-8, rather "?" than nothing
    # A terminated command cleans up as an interrupted one does.
    _interrupts.clear()
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # what a shell started with `&`
        signal.signal(signal.SIGINT, _interrupt)
    sys.exit(_run(arguments))


def _open_closed() -> None:
    """Give stdout and stderr that were closed (`>&-`) somewhere to go.

    Python leaves None there, and the next file to be opened would take their number.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - it stays


# Signals that came to interrupt the command: a library may make another exception of them.
_interrupts: list[int] = []


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _interrupts.append(number)
    raise KeyboardInterrupt


def _run(arguments: list[str]) -> int:
    try:
        code = cli.main(arguments, prog_name="netzpuls", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except NetzpulsError as error:
        return _say(error, arguments)
    except click.exceptions.NoArgsIsHelpError as error:
        progress.print(error.format_message(), markup=False, soft_wrap=True)
        return 2
    except click.ClickException as error:
        usage = NetzpulsError(error.format_message(), hint=_usage_hint(error))
        usage.code, usage.exit_code = "usage", 2
        return _say(usage, arguments)
    except click.Abort as abort:
        # Click calls it the same when somebody gives up and when a peer's end of file gets here.
        if isinstance(abort.__cause__, EOFError) and not _interrupts:
            return _say_defect(abort.__cause__, arguments)
        return _say_interrupted(arguments)
    except KeyboardInterrupt:
        return _say_interrupted(arguments)
    except BrokenPipeError:
        # The reader of our output went away (`| head`); nothing is left to tell it.
        _abandon_stdout()
        return 1
    except Exception as error:
        if _interrupts:  # DuckDB says RuntimeError
            return _say_interrupted(arguments)
        return _say_defect(error, arguments)


def _say_defect(error: BaseException, arguments: list[str]) -> int:
    if os.environ.get("NETZPULS_TRACEBACK"):
        traceback.print_exception(error)
    defect = NetzpulsError(
        f"a defect in netzpuls: {type(error).__name__}: {error}",
        hint="run it again with NETZPULS_TRACEBACK=1 and report what it prints",
    )
    defect.code = "defect"
    return _say(defect, arguments)


def _say_interrupted(arguments: list[str]) -> int:
    interrupted = NetzpulsError("interrupted")
    interrupted.code, interrupted.exit_code = "interrupted", EXIT_INTERRUPTED
    return _say(interrupted, arguments)


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context else "see netzpuls --help"


def _abandon_stdout() -> None:
    """Let what could not be written be forgotten, or Python tries again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(error: NetzpulsError, arguments: list[str]) -> int:
    # Behind `--` stands what is for others.
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json = "--json" in ours
    # To a monitoring system an error is UNKNOWN; it reads stdout, and 2 would be CRITICAL.
    is_plugin = arguments[:2] == ["fleet", "check"]
    if as_json:
        try:
            print_document(error.document())
        except BrokenPipeError:
            _abandon_stdout()
        except OutputError:
            _abandon_stdout()
            as_json = False
    if is_plugin and not as_json:
        from fleet import check  # noqa: PLC0415 - nothing else needs these
        from fleet.cli import plugin  # noqa: PLC0415

        text = plugin.answer(
            check.Status.UNKNOWN, error.message, service=plugin.service_of(arguments)
        )
        result.print(text, markup=False, soft_wrap=True)
    elif not as_json:
        progress.print(f"error: {error.message}", style="bold red", markup=False, soft_wrap=True)
    if error.hint and not as_json:
        progress.print(f"hint: {error.hint}", markup=False, soft_wrap=True)
    return _UNKNOWN if is_plugin else error.exit_code
