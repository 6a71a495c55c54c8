"""Measure the moments with the fastest engine that agrees with the plain loop, in bounded memory."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from torch import nn

from radiogen.distributed import share_of_rank
from radiogen.pruning.engine_choice import Plan, choose_plan
from radiogen.pruning.moments import Moments, MomentSums, loop_chunk
from radiogen.pruning.settings import Batch, Loss, MomentSettings, read_batches
from radiogen.pruning.state import as_found
from radiogen.pruning.workers import Workers

SHORT_RUN = 4  # mini-batches that the loop does by itself; the first two of a longer run check the engine
CHECKED_ON = 2
FIRST_LOOK = 8  # mini-batches before the kept set is looked at for the first time


def measure_moments(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    weights: Mapping[str, nn.Parameter],
    settings: MomentSettings | None = None,
    is_settled: Callable[[Moments], bool] | None = None,
) -> Moments:
    """The moments of `gradient_moments`, equal up to rounding, faster.

    The plain loop and an engine both do the first two mini-batches, and where they agree the engine goes on
    with the rest. With engine `auto` the first that agrees is taken, of native, func, loop.
    Under torch.distributed every process takes its share of the mini-batches, and all of them get the moments
    of the whole.

    Args:
        model: The network; left as it was found.
        batches: Mini-batches.
        loss: Mean loss of a mini-batch.
        weights: The parameters to differentiate by.
        settings: Engine, jobs, memory.
        is_settled: Pops the moments so far and looks at them, after 8, 16, 32, ... mini-batches (of each
            process); when it says yes, the rest is left out.

    Raises:
        PruningError: As `gradient_moments`, or the engine that was asked for does not agree with the loop.
    """
    settings = settings or MomentSettings()
    sums = MomentSums(weights)
    with as_found(model, weights.values()):
        stream = read_batches(share_of_rank(batches))
        first = list(itertools.islice(stream, SHORT_RUN + 1))
        is_short = len(first) <= SHORT_RUN
        with Workers(model, loss, weights, 1 if is_short else settings.jobs) as workers:
            if is_short or settings.engine == "loop":
                plan = Plan("loop", loop_chunk, 1)
            else:
                plan = choose_plan(sums, model, first[:CHECKED_ON], loss, weights, settings)
            rest = itertools.chain(first[sums.batches :], stream)
            if is_settled is None:
                workers.run(plan, sums, rest)
            else:
                _until_settled(partial(workers.run, plan, sums), sums, rest, is_settled)
    sums.add_up_processes()
    return sums.means(plan.name)


def _until_settled(
    run: Callable[[Iterable[Batch]], None],
    sums: MomentSums,
    batches: Iterator[Batch],
    is_settled: Callable[[Moments], bool],
) -> None:
    looked_at = 0
    for target in (FIRST_LOOK * 2**i for i in itertools.count()):
        run(itertools.islice(batches, target - sums.batches))
        so_far = sums.peek("")
        if so_far.batches == looked_at or is_settled(so_far):
            return
        looked_at = so_far.batches
