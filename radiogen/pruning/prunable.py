"""Which weights may be pruned: those of convolutions and linear layers, by the type of the module."""

from collections.abc import Collection

from torch import nn

from radiogen.errors import PruningError

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PRUNABLE_MODULES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)
PUBLISHED_NAMES_KEPT = ("bias", "linear", "bn")


def prunable(
    model: nn.Module, exclude: Collection[str] = (), published_names: bool = False
) -> dict[str, nn.Parameter]:
    """The prunable weights of a network, in the order of `named_parameters`.

    Args:
        model: Any network.
        exclude: Names of parameters or modules that are never pruned, such as the output layer; a module
            stands for everything inside it, a shared weight for all its names.
        published_names: Take the rule of the published FTS code instead of the module types: every parameter
            whose name holds none of `bias`, `linear`, `bn`.

    Raises:
        PruningError: A name in `exclude` is unknown, or nothing is left to prune.
    """
    kept_out = _excluded(model, exclude)
    if published_names:
        wanted = {
            id(weight)
            for name, weight in model.named_parameters()
            if not any(part in name for part in PUBLISHED_NAMES_KEPT)
        }
    else:
        wanted = {id(m.weight) for m in model.modules() if isinstance(m, PRUNABLE_MODULES)}
    found = {
        name: weight
        for name, weight in model.named_parameters()
        if id(weight) in wanted and id(weight) not in kept_out
    }
    if not found:
        raise PruningError(
            type(model).__name__,
            "has no prunable weights",
            "exclude less, or take a network with convolutions",
        )
    return found


def _excluded(model: nn.Module, exclude: Collection[str]) -> set[int]:
    every = dict(model.named_parameters(remove_duplicate=False))
    identities: set[int] = set()
    for wanted in exclude:
        matching = [w for name, w in every.items() if name == wanted or name.startswith(f"{wanted}.")]
        if not matching:
            raise PruningError(
                f"exclude {wanted}", "names no parameter or module", f"the parameters are {', '.join(every)}"
            )
        identities.update(id(weight) for weight in matching)
    return identities
