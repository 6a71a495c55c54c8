"""The command that trains the network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .console import progress_bar, say
from .options import Cases, Config, Device, Existing, Overrides, Preset, Quiet, Seed

if TYPE_CHECKING:
    import torch

    from radiogen.training.settings import RunSettings, TrainOptions


def train(
    cases: Cases,
    out: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.")],
    pruned: Annotated[Path | None, typer.Option(help="Folder of radiogen prune.")] = None,
    start: Annotated[Path | None, typer.Option(help="Model folder to begin with, to fine-tune it.")] = None,
    preset: Preset = "modern",
    prior: Annotated[
        Literal["box", "lungs", "mixed"] | None, typer.Option(help="Priors to train with; else the preset's.")
    ] = None,
    synthetic_lesions: Annotated[
        float | None, typer.Option(help="Share of patches with a synthetic lesion.", min=0, max=1)
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of patients; 0 trains on all.", min=0)] = 0,
    fold: Annotated[
        str, typer.Option(help="The fold that is held out, from 0; `all` trains each, as an ensemble.")
    ] = "0",
    track: Annotated[bool, typer.Option(help="Write events for TensorBoard too.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try one step; tell memory, time and disk; write nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option(help="Go on with an unfinished training.")] = True,
    config: Config = None,
    overrides: Overrides = None,
    seed: Seed = 0,
    device: Device = "auto",
    existing: Existing = "skip",
    quiet: Quiet = False,
) -> None:
    """Train RA-Seg, dense or pruned; the same command goes on after it was killed.

    Under torchrun (several GPUs, several machines) every process takes its share of each step.
    """
    from radiogen.distributed import is_rank_zero
    from radiogen.runtime import keep_large_blocks, pick_device
    from radiogen.training.settings import TrainOptions, load_preset

    priors = {"box": "[box]", "lungs": "[lungs]", "mixed": "[box, lungs, none]"}
    chosen = [f"training.priors={priors[prior]}"] if prior else []
    if synthetic_lesions is not None:
        chosen.append(f"training.synthetic_lesions={synthetic_lesions}")
    if track:
        chosen.append("training.tensorboard=true")
    settings = load_preset(preset, config, [*chosen, *(overrides or ())])
    if fold != "all" and not fold.isdecimal():
        raise typer.BadParameter(f"--fold {fold} is not a fold: give a number from 0, or all")
    number = 0 if fold == "all" else int(fold)
    options = TrainOptions(
        preset=preset, seed=seed, pruned=pruned, start=start, folds=folds, fold=number,
        resume=resume, existing=existing,
    )  # fmt: skip
    keep_large_blocks()
    where = pick_device(device)
    work = _Work(cases, out, settings, options, where, quiet or not is_rank_zero())
    if dry_run:
        work.try_out(every_fold=fold == "all")
    elif fold == "all":
        work.train_every_fold()
    else:
        work.train_one()


class _Work:
    """One call of the command, once its words are understood."""

    def __init__(
        self,
        cases: Path,
        out: Path,
        settings: "RunSettings",
        options: "TrainOptions",
        device: "torch.device",
        quiet: bool,
    ) -> None:
        self.cases, self.out, self.settings, self.options = cases, out, settings, options
        self.device, self.quiet = device, quiet

    def train_one(self) -> None:
        from radiogen.distributed import is_rank_zero
        from radiogen.training.train import train as train_network

        with progress_bar(self.quiet, self._opening()) as progress:
            trained = train_network(self.cases, self.out, self.settings, self.options, self.device, progress)
        if not is_rank_zero():
            return
        last = trained.metrics["epochs"][-1]
        cases = f"{len(trained.learned_from)} cases learned from"
        say(f"{cases}, loss of the last epoch {last['loss']:.4f}", self.quiet)
        _show_validation(trained.metrics)
        typer.echo(self.out)

    def train_every_fold(self) -> None:
        from radiogen.distributed import is_rank_zero
        from radiogen.training.train import train_folds

        with progress_bar(self.quiet, self._opening()) as progress:
            folds = train_folds(self.cases, self.out, self.settings, self.options, self.device, progress)
        if not is_rank_zero():
            return
        for line in folds.summary():
            typer.echo(line)
        typer.echo(self.out)

    def try_out(self, every_fold: bool) -> None:
        from radiogen.distributed import is_rank_zero
        from radiogen.training.dry_run import dry_run

        with progress_bar(self.quiet) as progress:
            forecast = dry_run(
                self.cases, self.out, self.settings, self.options, self.device, every_fold, progress
            )
        if is_rank_zero():
            for line in forecast.lines():
                typer.echo(line)
        forecast.check()

    def _opening(self) -> str:
        from os import environ

        count = int(environ.get("WORLD_SIZE", "1"))
        return f"training on {self.device}" + (f", {count} processes" if count > 1 else "")


def _show_validation(metrics: dict[str, Any]) -> None:
    for row in metrics["validation"]:
        if row["epoch"] == metrics["kept_epoch"]:
            typer.echo(f"{row['case_id']}\t{row['prior']}\t{row['prompt']}\tDice {row['dice']:.3f}")
