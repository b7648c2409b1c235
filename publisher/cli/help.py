"""How typer reads the first word and lays out help: usage and lists with plain names."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

from publisher.cli.words import insert_run


class Group(TyperGroup):
    """`publish FILE` means `publish run FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, insert_run(args, list(self.commands)))


class Command(TyperCommand):
    """Help that names an argument as its metavar does, and nothing more."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [p for p in self.get_params(ctx) if isinstance(p, TyperArgument)]
        return ["[OPTIONS]", *(str(argument.metavar) for argument in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        arguments, options = [], []
        for param in self.get_params(ctx):
            if isinstance(param, TyperArgument):
                name = str(param.metavar).rstrip(".")
                optional = name.startswith("[")
                arguments.append((name[1:-1] if optional else name, param.help or ""))
            elif (record := param.get_help_record(ctx)) is not None:
                options.append(record)
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
