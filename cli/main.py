"""The radiogen command: parses, calls one library function, writes one answer."""

import signal
import sys
import tempfile
import traceback
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
    cases,
    cohort,
    cohorts,
    convert,
    doctor,
    egfr,
    evaluation,
    export,
    features,
    model,
    pruning,
    qc,
    report,
    segmentation,
    training,
    view,
)


class _TwoWords(TyperGroup):
    """Finds `prune show` beside the bare `prune`: a command's name may be two words."""

    def resolve_command(self, ctx, args):  # type: ignore[no-untyped-def]
        two = " ".join(args[:2])
        if two in self.commands:
            return two, self.commands[two], args[2:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="radiogen",
    cls=_TwoWords,
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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Lung-cancer radiogenomics, from a CT to an EGFR probability. Not for clinical use."""


app.command("ingest")(cases.ingest)
app.command("split")(cases.split)
app.command("qc")(qc.qc)
app.command("convert")(convert.convert)
app.command("prune")(pruning.prune)
app.command("prune show")(pruning.show)
app.command("prune compare")(pruning.compare)
app.command("train")(training.train)
app.command("segment")(segmentation.segment)
app.command("evaluate")(evaluation.evaluate)
app.command("extract-features")(features.extract_features)
app.command("train-egfr")(egfr.train_egfr)
app.command("classify-egfr")(egfr.classify_egfr)
app.command("report")(report.report)
app.command("view")(view.view)
app.command("export")(export.export)
app.add_typer(model.app, name="model")
app.add_typer(cohorts.app, name="cohort")
app.add_typer(benchmark.app, name="benchmark")
app.command("doctor")(doctor.doctor)
app.command("demo")(cohort.demo)
app.command("phantoms")(cohort.phantoms)


class _InterruptedError(BaseException):
    """Ctrl-C or SIGTERM; no handler of a library may swallow it."""


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise _InterruptedError


def run() -> None:
    """Run a command and turn every end into an exit code: 0, 1, 2, 3, 70 or 130."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except RadiogenError as error:
        if not _is_said_by_another(error):
            typer.echo(f"radiogen: error: {error}", err=True)
        sys.exit(1)
    except _InterruptedError:
        typer.echo("radiogen: interrupted; the same command goes on where it was", err=True)
        sys.exit(130)
    except Exception:
        typer.echo(f"radiogen: bug: unexpected error, please report it with {_write_log()}", err=True)
        sys.exit(70)


def _is_said_by_another(error: RadiogenError) -> bool:
    """Under torchrun what all processes refuse alike, a wrong setting first of all, is said by the first."""
    is_alike = isinstance(error, ConfigError | OtherRankError)
    return is_alike and not is_rank_zero()


def _write_log() -> Path:
    with tempfile.NamedTemporaryFile(
        "w", prefix="radiogen-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(f"radiogen {__version__}\n{traceback.format_exc()}")
    return Path(log.name)


if __name__ == "__main__":
    run()
