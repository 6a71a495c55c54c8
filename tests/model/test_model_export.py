"""What a model is exported as computes what the model computes, in programs that know nothing of radiogen."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import SimpleITK as sitk
import torch

from radiogen.errors import ConfigError, MissingPackageError, ModelError, OutputError
from radiogen.io.nifti import write_volume
from radiogen.model import exporting as model_export
from radiogen.model import onnx as onnx_file
from radiogen.model.exporting import export_model, parse_size
from radiogen.model.folder import Model, ModelConfig, load_model, save_model
from radiogen.model.monai_bundle import load_script
from radiogen.model.network_input import Preprocessing
from radiogen.networks.raseg import RASegSettings, build_raseg
from radiogen.pruning.channel_pruning import remove_channels
from radiogen.segmentation.inference import Inference, InferenceSettings
from radiogen.training.raseg_channels import raseg_channels
from radiogen.training.settings import load_preset

CPU = torch.device("cpu")
NARROW = {"encoder_widths": (4, 6, 8, 10), "recurrent_widths": (8,), "decoder_widths": (8, 6, 4)}
PATCHES = {"layout": "patches", "size": (48, 32, 64), "spacing_mm": (3.0, 4.0, 5.0)}


def narrowed(preset):
    """The network of a preset with fewer channels: every block and switch stays."""
    settings = load_preset(preset)
    widths = NARROW | ({"full_width": 4} if settings.network.full_width else {})
    if preset == "paper":
        widths["recurrent_widths"] = (8, 6, 10)
    return settings.network.model_copy(update=widths), settings.preprocessing


def pruned():
    """What channel pruning leaves of `small`: uneven widths."""
    settings, preprocessing = narrowed("small")
    network = build_raseg(settings, 0)
    channels = raseg_channels(network)
    rng = torch.Generator().manual_seed(1)
    kept = {
        group.name: torch.randperm(group.size, generator=rng) < max(2, group.size // 2)
        for group in channels.groups
    }
    return remove_channels(network, channels, kept), preprocessing


def made_model(folder, name):
    """A model folder with drawn weights, batch norm as after some training."""
    network, preprocessing = pruned() if name == "pruned" else narrowed(name)
    if isinstance(network, RASegSettings):
        network = build_raseg(network, 0)
    rng = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.uniform_(-0.2, 0.2, generator=rng)
            module.running_var.uniform_(0.5, 2.0, generator=rng)
    layout = {**PATCHES, "layout": preprocessing.layout}
    config = ModelConfig(
        preset=name, network=network.settings, priors=("box", "lungs"), patients_seen=("PATIENT-7",),
        preprocessing=Preprocessing(windows=preprocessing.windows, **layout),
    )  # fmt: skip
    save_model(folder, network.state_dict(), config, {}, "card")
    return load_model(folder, CPU)


def windows_for(model, batch, seed=3):
    rng = torch.Generator().manual_seed(seed)
    channels, size = len(model.config.preprocessing.windows), model.config.preprocessing.size
    image = torch.rand(batch, channels, *size, generator=rng)
    prior = (torch.rand(batch, 1, *size, generator=rng) > 0.7).float()
    with torch.no_grad():
        return image, prior, model.network(image, prior)


@pytest.mark.parametrize("name", ["paper", "modern", "pruned"])  # small: tests/test_readme.py
def test_onnxruntime_computes_what_torch_computes_for_any_number_of_windows(tmp_path, name):
    model = made_model(tmp_path / "model", name)
    done = export_model(tmp_path / "model", tmp_path / "out.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    assert [(one.name, one.shape[1:]) for one in session.get_inputs()] == [
        ("image", [len(model.config.preprocessing.windows), 48, 32, 64]),
        ("prior", [1, 48, 32, 64]),
    ]
    for batch in (1, 3):
        image, prior, wanted = windows_for(model, batch)
        (found,) = session.run(["logits"], {"image": image.numpy(), "prior": prior.numpy()})
        assert wanted.std() > 0.01
        assert np.abs(found - wanted.numpy()).max() <= 1e-4
    assert done.probability_apart <= 1e-4 and done.size == (48, 32, 64)
    said = {one.key: one.value for one in onnx.load(tmp_path / "out.onnx").metadata_props}["radiogen"]
    about = json.loads(said)
    assert (about["model"], about["priors"]) == (model.hash, ["box", "lungs"])
    assert about["preprocessing"]["spacing_mm"] == [3.0, 4.0, 5.0]
    assert b"PATIENT-7" not in (tmp_path / "out.onnx").read_bytes()
    record = json.loads((tmp_path / "out.run.json").read_text())
    assert record["model_hash"] == model.hash and "out.onnx" in record["outputs"]


@pytest.mark.parametrize("name", ["paper", "modern", "pruned"])
def test_torchscript_computes_the_same_without_radiogen(tmp_path, name):
    model = made_model(tmp_path / "model", name)
    export_model(tmp_path / "model", tmp_path / "out.pt", "torchscript")
    image, prior, wanted = windows_for(model, 1)
    np.savez(tmp_path / "given.npz", image=image.numpy(), prior=prior.numpy())
    code = (
        "import sys, numpy, torch; z = numpy.load('given.npz'); more = {'radiogen.json': ''};"
        "f = torch.jit.load('out.pt', _extra_files=more);"
        "numpy.save('found.npy', f(torch.from_numpy(z['image']), torch.from_numpy(z['prior'])).detach());"
        "print(more['radiogen.json'].decode() if isinstance(more['radiogen.json'], bytes)"
        " else more['radiogen.json']); assert 'radiogen' not in sys.modules"
    )
    words = (sys.executable, "-c", code)
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.abs(np.load(tmp_path / "found.npy") - wanted.numpy()).max() <= 1e-4
    assert json.loads(done.stdout)["size"] == [48, 32, 64]


def test_another_size_of_window_can_be_asked_for(tmp_path):
    model = made_model(tmp_path / "model", "paper")
    done = export_model(tmp_path / "model", tmp_path / "out.pt", "torchscript", parse_size("32,64,32"))
    assert done.size == (32, 64, 32)
    network, (image, prior) = load_script(tmp_path / "out.pt"), torch.rand(2, 1, 1, 32, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(image, prior), model.network(image, prior))


def placed(array, spacing, kind):
    """A volume whose axes run to the left, to the back and to the head, somewhere."""
    volume = sitk.GetImageFromArray(array.astype(kind))
    volume.SetSpacing(spacing)
    volume.SetOrigin((-40.0, 25.0, -700.0))
    return volume


def bundle_answer(bundle, home, ct, prior):
    """The mask that `python -m monai.bundle run` writes."""
    write_volume(ct, home / "ct.nii.gz")
    write_volume(prior, home / "prior.nii.gz")
    words = (
        sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json",
        "--image", str(home / "ct.nii.gz"), "--prior", str(home / "prior.nii.gz"), "--output_dir", str(home),
    )  # fmt: skip
    done = subprocess.run(words, cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return sitk.ReadImage(str(home / "ct_lesion.nii.gz"))


@pytest.mark.parametrize("how", ["as it lies", "seen from behind and in finer voxels"])
def test_monai_runs_the_bundle_and_finds_the_lesion_where_radiogen_finds_it(tmp_path, how):
    model = sure_model(tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "bundle", "monai-bundle")
    meta = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    assert list(meta["network_data_format"]["inputs"]["image"]["channel_def"].values())[-1] == (
        "prior in [0, 1], where to look: box or lungs"
    )
    rng = np.random.default_rng(0)
    z, y, x = np.indices((52, 40, 70))
    hu = rng.integers(-900, 100, size=(52, 40, 70))
    where = ((z - 25) / 12) ** 2 + ((y - 18) / 9) ** 2 + ((x - 40) / 15) ** 2 < 1
    spacing = model.config.preprocessing.spacing_mm
    ct, prior = placed(hu, spacing, np.int16), placed(where, spacing, np.uint8)
    expected = radiogen_answer(model, hu.astype(np.int16), where)
    assert 0.02 < expected.mean() < 0.98
    if how == "as it lies":
        found = sitk.GetArrayFromImage(bundle_answer(tmp_path / "bundle", tmp_path, ct, prior)) > 0
        assert (found == expected).mean() > 0.999
        return
    fine = [(sitk.Flip(sitk.Expand(one, [2, 2, 1], sitk.sitkNearestNeighbor), [True, True, False]))
            for one in (ct, prior)]  # fmt: skip
    mask = bundle_answer(tmp_path / "bundle", tmp_path, *fine)
    assert mask.GetSize() == fine[0].GetSize()
    assert mask.GetDirection() == pytest.approx(fine[0].GetDirection())
    found = sitk.GetArrayFromImage(sitk.Resample(mask, ct, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9


def sure_model(folder) -> Model:
    """A small model whose answers are far from undecided: its last layer is scaled up."""
    made_model(folder, "small")
    model = load_model(folder, CPU)
    model.network.head.weight.data *= 20
    save_model(folder, model.network.state_dict(), model.config, {}, "card")
    return load_model(folder, CPU)


def radiogen_answer(model, hu, where):
    everywhere = tuple(slice(0, length) for length in hu.shape)
    piece = Inference(model, InferenceSettings()).run(hu, where, everywhere, np.ones_like(where))
    return piece.logits >= 0


def test_what_computes_something_else_is_refused_and_not_written(tmp_path, monkeypatch):
    model = made_model(tmp_path / "model", "paper")

    def wrong(network, given, path, about):
        broken = build_raseg(model.config.network, 9).eval()
        onnx_file.write_onnx(broken, given, path, about)

    monkeypatch.setitem(model_export.FORMS, "onnx", (wrong, onnx_file.load_onnx))
    with pytest.raises(ModelError, match=r"differs from torch .*, and is not written"):
        export_model(tmp_path / "model", tmp_path / "new" / "out.onnx", "onnx", (32, 32, 32))
    assert not list((tmp_path / "new").iterdir())


def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path, monkeypatch):
    made_model(tmp_path / "model", "paper")
    made_model(tmp_path / "small", "small")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("kept")
    for given, error, said in (
        (("model", "out.pt", "onnx"), ConfigError, "end it in .onnx"),
        (("model", "out.onnx", "torchscript"), ConfigError, "end it in .pt or .ts"),
        (("model", "out.onnx", "onnx", (40, 32, 32)), ConfigError, "--size: 40,32,32 does not fit RA-Seg"),
        (("model", "bundle", "monai-bundle"), ConfigError, "presses the box of the lungs into one window"),
        (("small", "full", "monai-bundle"), OutputError, "is there already"),
        (("absent", "out.pt", "torchscript"), ModelError, "holds no"),
    ):
        folder, out, *rest = given
        with pytest.raises(error) as refused:
            export_model(tmp_path / folder, tmp_path / out, *rest)
        assert said in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="--size 3x3: is no list of numbers"):
        parse_size("3x3")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'radiogen\[onnx\]'"):
        export_model(tmp_path / "model", tmp_path / "out.onnx", "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "model", "small"]


def test_an_export_starts_no_openvino(tmp_path):
    made_model(tmp_path / "model", "paper")
    code = (
        "import sys; from pathlib import Path; from radiogen.model.exporting import export_model;"
        "export_model(Path('model'), Path('out.pt'), 'torchscript', (32, 32, 32));"
        "assert not any(name.startswith('openvino') for name in sys.modules)"
    )
    done = subprocess.run(
        (sys.executable, "-c", code), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
