"""The commands that README and docs show: found in the Markdown, parsed by the program, or typed and run."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from radiogen.cli.main import app, run

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", flags=re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}[^\n]*\n)(?:(?: {4}[^\n]*)?\n)*")
CALL = re.compile(r"(?:^|\s)(?:radiogen|\"?\$\(which radiogen\)\"?) +(?=\S)")
ENDS = set("|&;<>")  # of a command, in a shell


def blocks(markdown: str) -> Iterator[tuple[str, str]]:
    """Blocks of code as (language, text) in their order; an indented block has no language."""
    found = [(one.start(), one.group(2), one.group(3)) for one in FENCE.finditer(markdown)]
    plain = FENCE.sub(lambda one: re.sub(r"[^\n]", "x", one.group()), markdown)
    found += [(one.start(), "", one.group()) for one in INDENTED.finditer(plain)]
    for _, language, text in sorted(found):
        yield language, text


def shown_commands(markdown: str) -> list[list[str]]:
    """The words behind `radiogen` of every command in a block of code; a line that ends in \\ goes on."""
    commands = []
    for language, text in blocks(markdown):
        if language not in ("", "bash", "console", "sh"):
            continue
        for line in re.sub(r"\\\n *", "", text).splitlines():
            typed = line.removeprefix("$ ") if language == "console" else line
            if language == "console" and typed == line:
                continue  # what the program said
            call = CALL.search(typed)
            if call:
                commands.append(words_of(typed[call.end() :]))
    return commands


def words_of(text: str) -> list[str]:
    """The words of one command, without comments and without what a shell does with its output."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="".join(ENDS))
    lexer.whitespace_split, lexer.commenters = True, "#"
    words = []
    for word in lexer:
        if set(word) <= ENDS:
            break
        words.append(word)
    return words


def understand(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command and its options, parsed by the program but not run; raises what it would complain of."""
    return _understand(typer.main.get_command(app), "radiogen", words)


def _understand(command: Any, name: str, words: list[str], parent: Any = None) -> tuple[str, dict[str, Any]]:
    context = command.make_context(name, list(words), parent=parent)
    if isinstance(command, typer.core.TyperGroup):
        rest = [*context._protected_args, *context.args]
        inner_name, inner, rest = command.resolve_command(context, rest)
        return _understand(inner, inner_name, rest, context)
    return context.command_path, context.params


def options_of(words: list[str]) -> set[str]:
    """All options of the command that some words begin with; raises KeyError if there is no such command."""
    command = typer.main.get_command(app)
    words = list(words)
    while isinstance(command, typer.core.TyperGroup):
        two = " ".join(words[:2])
        name = two if two in command.commands else words[0]
        command, words = command.commands[name], words[len(name.split()) :]
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}


def type_command(words: list[str], home: Path, monkeypatch: Any) -> int:
    """Run radiogen with these words in a folder; returns the exit code."""
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["radiogen", *words])
    try:
        run()
    except SystemExit as end:
        return end.code or 0
    return 0


def call_lesion_early(config: Path) -> None:
    """A network of a few steps is sure of nothing; with a low threshold it finds something in every box."""
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "threshold": 0.01}))
