"""The command view."""

from pathlib import Path
from typing import Annotated

import typer

from .console import say


def view(
    paths: Annotated[
        list[Path], typer.Argument(help="Folder of one case, plain or segmented; or a CT and its masks.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Look at a case in a browser, in three planes and in space; served to this machine only."""
    import signal
    import webbrowser
    from threading import Thread

    from radiogen.report.serving import ViewServer, read_view

    with ViewServer(read_view(paths), port) as server:
        signal.signal(signal.SIGINT, lambda *_: Thread(target=server.shutdown).start())
        typer.echo(server.address)
        say("Ctrl-C ends it")
        if browser:
            webbrowser.open(server.address)
        server.serve_forever(poll_interval=0.2)
