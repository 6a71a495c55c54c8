"""Foreign checkpoints: the published names come in, everything else is refused unopened."""

import numpy as np
import pytest
import torch

from radiogen.errors import ModelError, OutputError
from radiogen.model.folder import find_models, load_model
from radiogen.model.importing import import_published


class Evil:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.fixture
def checkpoint(golden, tmp_path):
    with np.load(golden / "raseg_tiny.npz") as file:
        state = {
            f"module.{name.split('/', 1)[1]}": torch.from_numpy(file[name])
            for name in file.files
            if name.startswith(("param/", "buffer/"))
        }
    torch.save({"state_dict": state}, tmp_path / "authors.pth")
    return tmp_path / "authors.pth"


def test_an_imported_checkpoint_computes_the_published_probability(checkpoint, golden, tmp_path):
    import_published(checkpoint, tmp_path / "model")
    model = load_model(tmp_path / "model", torch.device("cpu"))
    with np.load(golden / "raseg_tiny.npz") as file, torch.no_grad():
        image, prior = (torch.from_numpy(file[f"input/{name}"]).float() for name in ("image", "prior"))
        probability = torch.sigmoid(model.network(image, prior)).numpy()
        assert np.abs(probability - file["output/probability"]).max() < 1e-5
    assert model.config.patients_seen is None and model.config.priors == ("box",)
    assert [row["name"] for row in find_models(tmp_path)] == ["model"]
    with pytest.raises(OutputError, match="already"):
        import_published(checkpoint, tmp_path / "model")


def test_a_pickle_is_refused_without_being_run(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="tensors only"):
        import_published(tmp_path / "evil.pth", tmp_path / "model")
    assert "never" not in capsys.readouterr().out and not (tmp_path / "model").exists()


def test_other_networks_and_other_files_are_named(tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="checkpoint"):
        import_published(tmp_path / "other.pth", tmp_path / "model")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="no state dictionary"):
        import_published(tmp_path / "list.pth", tmp_path / "model")
    with pytest.raises(ModelError, match="is not a file"):
        import_published(tmp_path / "absent.pth", tmp_path / "model")
