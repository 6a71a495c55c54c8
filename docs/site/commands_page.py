"""The page of all commands, made from the commands themselves as `--help` is."""

from collections.abc import Iterator
from html import escape

import typer
from radiogen.cli.main import app

OPENING = """# Commands

Made from the program at every build; `radiogen COMMAND --help` says the same. What comes back as the
exit code is on [its own page](exit-codes.md), what the files hold on [another](files.md).
"""


def commands_page() -> str:
    """Every command with its arguments and options, as Markdown."""
    return "\n".join([OPENING, *_commands(typer.main.get_command(app), "radiogen", 2)])


def _commands(group: typer.core.TyperGroup, path: str, level: int) -> Iterator[str]:
    for name, command in group.commands.items():
        whole = f"{path} {name}"
        yield f"{'#' * level} {whole}\n"
        yield f"{command.help}\n"
        if isinstance(command, typer.core.TyperGroup):
            yield from _commands(command, whole, level + 1)
        else:
            yield from _parameters(command, whole)


def _parameters(command: typer.core.TyperCommand, path: str) -> Iterator[str]:
    context = command.context_class(command, info_name=path)
    rows, needed = [], []
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is None:
            continue
        if parameter.required:
            is_option = parameter.param_type_name == "option"
            needed.append(f"{parameter.opts[0]} ..." if is_option else parameter.name.upper())
        rows.append(record)
    yield f"```text\n{' '.join([path, *needed])} [OPTIONS]\n```\n"
    yield "<table><thead><tr><th>name</th><th>meaning</th></tr></thead><tbody>"
    for names, meaning in rows:
        yield f"<tr><td><code>{escape(names)}</code></td><td>{escape(meaning)}</td></tr>"
    yield "</tbody></table>\n"
