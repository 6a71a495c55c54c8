"""The made tables written to files, and a model trained on them once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from egfr.made_tables import ABOUT, QUICK, make_rows, write_rows

from radiogen.egfr.train import EgfrTraining, train_egfr


@pytest.fixture
def tables(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write the two tables after they were changed; give their paths."""

    def _tables(change: Callable[..., None] | None = None, about: object = None, **how: int):
        features, clinical = make_rows(**how)
        if change is not None:
            change(features, clinical)
        paths = tmp_path / "features.csv", tmp_path / "clinical.csv"
        write_rows(paths[0], features)
        write_rows(paths[1], clinical)
        (tmp_path / "features.json").write_text(json.dumps(about or ABOUT))
        return paths

    return _tables


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> EgfrTraining:
    """A model trained once on the made tables."""
    folder = tmp_path_factory.mktemp("egfr")
    features, clinical = make_rows()
    (folder / "features.json").write_text(json.dumps(ABOUT))
    return train_egfr(
        write_rows(folder / "features.csv", features),
        folder / "model",
        write_rows(folder / "clinical.csv", clinical),
        QUICK,
    )
