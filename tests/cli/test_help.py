"""What `--help` shows: panels of commands, at most a dozen options before the rarer ones, plain phrases."""

import re

import pytest
import typer
from radiogen.cli.main import PANELS, app
from radiogen.cli.options import ADVANCED


def commands_of(group, path=""):
    for name, command in group.commands.items():
        whole = f"{path} {name}".strip()
        yield from commands_of(command, whole) if hasattr(command, "commands") else [(whole, command)]


COMMANDS = dict(commands_of(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_at_most_twelve_options_before_the_advanced_ones(name):
    options = [each for each in COMMANDS[name].params if each.param_type_name == "option"]
    assert {each.rich_help_panel for each in options} <= {None, ADVANCED}
    assert len([each for each in options if each.rich_help_panel is None]) <= 12
    assert not [each.name for each in options if each.required and each.rich_help_panel]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_text_is_a_phrase_and_a_command_opens_with_a_verb(name):
    for each in COMMANDS[name].params:
        assert each.help, each.name
        assert each.help[0].isupper() or each.help[0].isdigit()
        assert not each.help.endswith("."), each.name
    first = COMMANDS[name].help.split()[0]
    assert first[0].isupper() and not first.endswith("s"), first


def test_the_help_groups_the_commands_in_panels(radiogen):
    answer = radiogen("--help")
    places = [re.search(rf"^\W+ {panel} \W+$", answer.out, re.MULTILINE).start() for panel in PANELS]
    assert list(PANELS) == ["Data", "Network", "Pruning", "EGFR", "Looking", "Cohorts"]
    assert places == sorted(places)
    assert "Advanced" in radiogen("prune", "--help").out
