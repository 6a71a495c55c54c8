"""Settings small enough to train in a second."""

from radiogen.training.settings import RunSettings, load_preset

TINY = (
    "network.full_width=2",
    "network.encoder_widths=[3, 4, 5, 6]",
    "network.recurrent_widths=[6]",
    "network.decoder_widths=[5, 4, 3]",
    "preprocessing.spacing_mm=[8, 8, 8]",
    "preprocessing.size=[32, 32, 32]",
    "training.epochs=3",
    "training.patches_per_case=2",
)


def tiny_settings(*more: str) -> RunSettings:
    """The small preset, smaller."""
    return load_preset("small", overrides=[*TINY, *more])
