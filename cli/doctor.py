"""The command doctor."""

import json

import typer

from .options import AsJson


def doctor(as_json: AsJson = False) -> None:
    """Show versions, device and why not a better one, codecs, memory and disk."""
    from radiogen.runtime import examine_machine

    found = examine_machine()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        text = "; ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{name}\t{text}")
