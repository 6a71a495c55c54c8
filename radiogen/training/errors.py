"""Ends of a training that no code can mend, told in one line with the cure."""

from collections.abc import Iterator
from contextlib import contextmanager

from radiogen.errors import TrainingError
from radiogen.segmentation.effort import is_out_of_memory

PEER_GONE = ("closed by peer", "reset by peer", "nccl", "gloo", "broken pipe")
LESS_MEMORY = (
    "halve training.batch_size and double training.accumulate, which gives the same result; "
    "or training.checkpoint_activations=true; or a smaller preprocessing.size"
)


@contextmanager
def mishaps_told(place: str) -> Iterator[None]:
    """Tell what the machine did to a training.

    Args:
        place: Where it is, such as a device.

    Raises:
        TrainingError: Memory is not enough, or another process of this training has gone.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise TrainingError(place, "has not enough memory", LESS_MEMORY) from error
        if any(word in str(error).lower() for word in PEER_GONE):
            raise TrainingError(
                place,
                "stops, since another process of this training has gone",
                "see what that one said; if nothing, the system killed it, mostly for want of memory",
            ) from error
        raise
