"""Lung-cancer radiogenomics from CT: from a scan to an EGFR probability. Not for clinical use.

What stands in `__all__` is the public Python API; everything below may move. A name is imported when it is
first used, so that `import radiogen` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radiogen.egfr.classify import classify_egfr as classify_egfr
    from radiogen.egfr.settings import EgfrSettings as EgfrSettings
    from radiogen.egfr.train import train_egfr as train_egfr
    from radiogen.errors import RadiogenError as RadiogenError
    from radiogen.evaluation.case import EvaluateOptions as EvaluateOptions
    from radiogen.evaluation.evaluate import evaluate as evaluate
    from radiogen.features.extract import extract_features as extract_features
    from radiogen.features.settings import FeatureOptions as FeatureOptions
    from radiogen.ingestion.ingest import ingest as ingest
    from radiogen.ingestion.options import IngestOptions as IngestOptions
    from radiogen.model.folder import load_model as load_model
    from radiogen.model.folder import load_models as load_models
    from radiogen.pipeline import examine as examine
    from radiogen.segmentation.segment import SegmentOptions as SegmentOptions
    from radiogen.segmentation.segment import segment as segment
    from radiogen.training.prune import PruneOptions as PruneOptions
    from radiogen.training.prune import prune as prune
    from radiogen.training.settings import TrainOptions as TrainOptions
    from radiogen.training.settings import load_preset as load_preset
    from radiogen.training.train import train as train

__all__ = [
    "EgfrSettings",
    "EvaluateOptions",
    "FeatureOptions",
    "IngestOptions",
    "PruneOptions",
    "RadiogenError",
    "SegmentOptions",
    "TrainOptions",
    "classify_egfr",
    "evaluate",
    "examine",
    "extract_features",
    "ingest",
    "load_model",
    "load_models",
    "load_preset",
    "prune",
    "segment",
    "train",
    "train_egfr",
]
__version__ = "0.1.0"

_ROOM_OF = {
    "EgfrSettings": "radiogen.egfr.settings",
    "EvaluateOptions": "radiogen.evaluation.case",
    "FeatureOptions": "radiogen.features.settings",
    "IngestOptions": "radiogen.ingestion.options",
    "PruneOptions": "radiogen.training.prune",
    "RadiogenError": "radiogen.errors",
    "SegmentOptions": "radiogen.segmentation.segment",
    "TrainOptions": "radiogen.training.settings",
    "classify_egfr": "radiogen.egfr.classify",
    "evaluate": "radiogen.evaluation.evaluate",
    "examine": "radiogen.pipeline",
    "extract_features": "radiogen.features.extract",
    "ingest": "radiogen.ingestion.ingest",
    "load_model": "radiogen.model.folder",
    "load_models": "radiogen.model.folder",
    "load_preset": "radiogen.training.settings",
    "prune": "radiogen.training.prune",
    "segment": "radiogen.segmentation.segment",
    "train": "radiogen.training.train",
    "train_egfr": "radiogen.egfr.train",
}


if not TYPE_CHECKING:  # type checkers read the imports above, and so know a wrong name

    def __getattr__(name: str) -> Any:
        """Import a name of the face when it is first used (PEP 562)."""
        if name not in _ROOM_OF:
            raise AttributeError(f"module 'radiogen' has no attribute {name!r}")
        value = getattr(import_module(_ROOM_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the names of the face beside what is loaded, for editors and help."""
    return sorted({*globals(), *__all__})
