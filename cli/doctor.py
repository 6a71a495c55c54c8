"""The command doctor."""

import json

import typer

from .options import AsJson


def doctor(as_json: AsJson = False) -> None:
    """Show versions, the device and why it was chosen, codecs, memory and disk."""
    from radiogen.runtime import examine_machine

    facts = examine_machine()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        text = "; ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{name}\t{text}")
