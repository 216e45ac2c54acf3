"""Groups of commands that are imported when they are called.

A monitoring check does not wait for the provisioning desk to load, and a gateway has not even the
packages that city hall's commands need.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from fleet.errors import ToolMissingError


class LazyGroup(click.Group):
    """A group with commands that live elsewhere.

    Attributes:
        lazy: by name: `module:command`, and what it is for in a few words.
    """

    lazy: Mapping[str, tuple[str, str]]
    # What the help calls them.
    kind = "Commands"

    def __init__(
        self, *arguments: Any, lazy: Mapping[str, tuple[str, str]], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names."""
        return [*super().list_commands(ctx), *self.lazy]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now if it lives elsewhere.

        Raises: ToolMissingError: this installation lacks what it needs.
        """
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, name = self.lazy[cmd_name][0].split(":")
        try:
            command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise ToolMissingError(
                f"{ctx.command_path} {cmd_name} needs {error.name}, which is not installed here",
                hint="a gateway has only what it runs itself: call it in city hall",
            ) from None
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        own = {
            name: command.get_short_help_str(70)
            for name, command in self.commands.items()
            if not command.hidden
        }
        told = own | {name: text for name, (_, text) in self.lazy.items()}
        with formatter.section(self.kind):
            formatter.write_dl(list(told.items()))
