"""The radiogen command: parses, calls one library function, writes one answer."""

import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from typer.core import TyperGroup

from radiogen import __version__
from radiogen.distributed import is_rank_zero
from radiogen.errors import ConfigError, OtherRankError, RadiogenError

from . import (
    benchmark,
    cohort,
    convert,
    demo,
    doctor,
    egfr,
    evaluate,
    extract_features,
    ingest,
    model,
    prune,
    report,
    segment,
    train,
)

PANELS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Data": {
        "ingest": ingest.ingest,
        "split": ingest.split,
        "convert": convert.convert,
        "export": convert.export,
        "phantoms": demo.phantoms,
    },
    "Network": {
        "train": train.train,
        "segment": segment.segment,
        "evaluate": evaluate.evaluate,
        "model": model.app,
    },
    "Pruning": {
        "prune": prune.prune,
        "prune show": prune.show,
        "prune compare": prune.compare,
        "benchmark": benchmark.app,
    },
    "EGFR": {
        "extract-features": extract_features.extract_features,
        "train-egfr": egfr.train_egfr,
        "classify-egfr": egfr.classify_egfr,
    },
    "Looking": {
        "qc": report.qc,
        "report": report.report,
        "view": report.view,
        "doctor": doctor.doctor,
        "demo": demo.demo,
    },
    "Cohorts": {"cohort": cohort.app},
}


class _TwoWordGroup(TyperGroup):
    """A group whose command names may be two words, so that `prune show` stands beside the bare `prune`."""

    def resolve_command(self, ctx, args):  # type: ignore[no-untyped-def]
        two_words = " ".join(args[:2])
        if two_words in self.commands:
            return two_words, self.commands[two_words], args[2:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="radiogen",
    cls=_TwoWordGroup,
    help="Lung-cancer radiogenomics, from a CT to an EGFR probability. Not for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"radiogen {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version")
    ] = False,
) -> None:
    """Lung-cancer radiogenomics, from a CT to an EGFR probability. Not for clinical use."""


for panel, commands in PANELS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(command)


class _InterruptedError(BaseException):
    """Ctrl-C or SIGTERM; not an Exception, so that no handler of a library swallows it."""


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise _InterruptedError


def run() -> None:
    """Run a command and exit with 0, 1, 2, 3, 70 or 130 (docs/reference/exit-codes.md)."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except RadiogenError as error:
        if not _is_printed_elsewhere(error):
            typer.echo(f"radiogen: error: {error}", err=True)
        sys.exit(1)
    except _InterruptedError:
        typer.echo("radiogen: interrupted; the same command goes on where it was", err=True)
        sys.exit(130)
    except Exception:
        typer.echo(f"radiogen: bug: unexpected error, please report it with {_write_log()}", err=True)
        sys.exit(70)


def _is_printed_elsewhere(error: RadiogenError) -> bool:
    """Whether another process of torchrun prints this error, since all of them raise it (a wrong setting)."""
    is_raised_by_all = isinstance(error, ConfigError | OtherRankError)
    return is_raised_by_all and not is_rank_zero()


def _write_log() -> Path:
    with tempfile.NamedTemporaryFile(
        "w", prefix="radiogen-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(f"radiogen {__version__}\n{traceback.format_exc()}")
    return Path(log.name)


if __name__ == "__main__":
    run()
