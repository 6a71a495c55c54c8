"""Wrong input ends with exit code 1, one line that names the thing and the way out, and no file."""

import gzip
import json
import os
import shutil
import signal
import tempfile

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_phantom import ct_slices, rtstruct, save, square, write_ct
from egfr.made_tables import make_rows, write_rows

from radiogen import runtime
from radiogen.io.cases import find_cases
from radiogen.io.nifti import read_volume, write_volume

PRUNE = ("prune", "cases", "-o", "out", "--sparsity")
TABLES = ("train-egfr", "--features", "features.csv", "--clinical", "clinical.csv", "-o", "out")


@pytest.fixture
def segment(radiogen, made_cases, tiny_model):
    """Segment the first made case, or another source."""

    def call(*words, source=None, model=tiny_model.folder):
        source = source or find_cases(made_cases)[0].folder
        return radiogen("segment", source, "-o", "deep/out", "-m", model, *words)

    return call


@pytest.fixture
def volume(tmp_path, made_cases):
    """The CT of a made case as a NIfTI file of its own."""
    return shutil.copy(find_cases(made_cases)[0].ct_path, tmp_path / "chest.nii.gz")


@pytest.mark.parametrize("name", ["absent", "empty", "text"])
def test_a_folder_without_ct_is_refused(radiogen, segment, tmp_path, name):
    if name != "absent":
        (tmp_path / name).mkdir()
    if name == "text":
        (tmp_path / name / "letter.txt").write_text("Dear colleague")
    assert radiogen("ingest", name, "-o", "out").refuses(name)
    assert segment(source=name).refuses(name)


def test_a_folder_of_outlines_alone_is_refused(radiogen, tmp_path):
    save([rtstruct({"GTV": [square(2, (3, 2), (7, 5))]})], tmp_path / "src")
    assert radiogen("ingest", "src", "-o", "out").refuses("src", "holds no CT")


def test_a_truncated_file_is_refused(radiogen, segment, scan, volume):
    slice_ = sorted(scan.iterdir())[0]
    slice_.write_bytes(slice_.read_bytes()[:-40])
    assert radiogen("ingest", scan, "-o", "out").refuses(slice_.name, "truncated")
    volume.write_bytes(volume.read_bytes()[:-100])
    assert radiogen("ingest", volume, "-o", "out").refuses(volume.name)
    assert segment(source=volume).refuses(volume.name)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_mha_is_one_line_and_none_of_itk(radiogen, volume, tmp_path, compressed):
    path = tmp_path / "chest.mha"
    sitk.WriteImage(read_volume(volume), str(path), useCompression=compressed)
    path.write_bytes(path.read_bytes()[:-100])
    assert radiogen("ingest", path, "-o", "out").refuses("chest.mha", "is truncated")


def test_a_volume_without_a_sure_place_is_refused(radiogen, volume):
    content = bytearray(gzip.decompress(volume.read_bytes()))
    content[252:256] = bytes(4)  # qform_code and sform_code
    volume.write_bytes(gzip.compress(bytes(content)))
    assert radiogen("ingest", volume, "-o", "out").refuses(
        "chest.nii.gz", "where the patient lies", "dcm2niix"
    )


def test_qc_of_a_folder_without_cases_is_refused(radiogen, scan):
    assert radiogen("qc", scan, "-o", "qc.html").refuses("scan", "no manifest.csv")


def test_two_patients_in_one_series_are_refused(radiogen, tmp_path):
    slices = ct_slices(patient="A")
    slices[2].PatientID = "B"
    save(slices, tmp_path / "src")
    assert radiogen("ingest", "src", "-o", "out").refuses("src", "several patients")


def test_a_missing_slice_is_refused(radiogen, segment, tmp_path):
    slices = ct_slices()
    save([*slices[:2], *slices[3:]], tmp_path / "src")
    assert radiogen("ingest", "src", "-o", "out").refuses("missing")
    assert segment(source="src").refuses("missing")


def test_an_outline_outside_the_ct_is_refused(radiogen, scan, tmp_path):
    save([rtstruct({"GTV": [square(9, (1, 1), (3, 3))]})], tmp_path / "rt", ["far.dcm"])
    answer = radiogen("ingest", scan, "-o", "out", "--outline", "rt/far.dcm")
    assert answer.refuses("far.dcm", "outside the CT")


def test_a_mask_of_another_size_is_refused(radiogen, volume, tmp_path):
    mask = sitk.GetImageFromArray(np.ones((3, 4, 5), np.uint8))
    sitk.WriteImage(mask, str(tmp_path / "mask.nii.gz"))
    assert radiogen("ingest", volume, "-o", "out", "--outline", "mask.nii.gz").refuses("mask.nii.gz")


def test_a_mask_of_another_size_is_not_evaluated(radiogen, made_cases, tmp_path):
    write_volume(sitk.Image(4, 5, 6, sitk.sitkUInt8), tmp_path / "mask.nii.gz")
    reference = find_cases(made_cases)[0].lesion_path
    assert radiogen("evaluate", "mask.nii.gz", reference, "-o", "out/rows.csv").refuses("mask.nii.gz")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--size-bins", "20,10"), "size_bins_mm"),
        (("--size-bins", "a"), "--size-bins a"),
        (("--least-iou", "0"), "least_iou"),
        (("--tolerance-mm", "inf"), "tolerance_mm"),
        (("-o", "rows.txt"), "rows.txt"),
    ],
)
def test_a_rule_of_an_evaluation_that_cannot_be_is_refused(radiogen, made_cases, words, named):
    assert radiogen("evaluate", made_cases, made_cases, *words).refuses(named)


@pytest.mark.parametrize(
    ("levels", "model", "named"),
    [("0,x", "tiny", "--jitter 0,x"), ("0.5", "tiny", "levels"), ("0", "absent", "absent")],
)
def test_a_jitter_that_cannot_be_is_refused(radiogen, made_cases, tiny_model, levels, model, named):
    folder = tiny_model.folder if model == "tiny" else model
    answer = radiogen("evaluate", made_cases, "--jitter", levels, "--model", folder, "-o", "out/j.csv")
    assert answer.refuses(named)


def test_a_table_without_the_id_column_is_refused(radiogen, scan, tables, tmp_path):
    features, clinical = make_rows(24)
    for name, rows in (("clinical.csv", clinical), ("features.csv", features)):
        write_rows(tmp_path / name, [{k: v for k, v in row.items() if k != "patient_id"} for row in rows])
        assert radiogen(*TABLES).refuses(name)
    assert radiogen("ingest", scan, "-o", "out", "--clinical", "clinical.csv").refuses("clinical.csv")


def test_one_class_only_is_refused(radiogen, tables, tmp_path):
    rows = [{**row, "egfr": "mutant"} for row in make_rows(24)[1]]
    write_rows(tmp_path / "clinical.csv", rows)
    assert radiogen(*TABLES).refuses("statuses mutant")


def test_too_few_patients_for_a_classifier_are_said(radiogen, tables):
    words = ("--classifier", "qda", "--folds", "2", "--repeats", "1")
    assert radiogen(*TABLES, *words).refuses("classifier qda", "too few patients")


def test_a_box_outside_the_lungs_is_refused(segment, volume):
    x, y, z = read_volume(volume).GetOrigin()
    box = f"--box={x},{y},{z},{x + 10},{y + 10},{z + 10}"
    assert segment(box).refuses("outside the lungs")
    assert segment(box, source=volume).refuses("outside the lungs")


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d,e,f", "0,0,0,nan,1,1"])
def test_a_box_that_is_none_is_refused(segment, box):
    assert segment(f"--box={box}").refuses("box")


def test_a_box_for_many_scans_is_refused_before_they_stay(segment, made_cases, tmp_path):
    for number, case in enumerate(find_cases(made_cases)[:2]):
        (tmp_path / "src").mkdir(exist_ok=True)
        shutil.copy(case.ct_path, tmp_path / "src" / f"chest{number}.nii.gz")
    assert segment("--box=0,0,0,9,9,9", source=tmp_path / "src").refuses("--box", "2 cases")


@pytest.mark.parametrize("sparsity", ["1.0", "1.5", "-0.1", "nan"])
def test_a_sparsity_that_is_no_share_is_refused(radiogen, cases, sparsity):
    assert radiogen(*PRUNE, sparsity).refuses("sparsity")


def test_an_unknown_criterion_is_refused_with_the_known_ones(radiogen, cases):
    assert radiogen(*PRUNE, "0.5", "--criterion", "luck").refuses("criterion luck", "fts", "snip")


@pytest.mark.parametrize("scale", ["1x", "everything", "-2"])
def test_an_unknown_fisher_scale_is_refused(radiogen, cases, scale):
    assert radiogen(*PRUNE, "0.5", "--fisher-scale", scale).refuses("fisher_scale")


def test_a_collapsed_layer_leaves_the_earlier_masks(radiogen, cases, small):
    words = ("prune", cases, "-o", "pruned", *small, "--samples", "1", "--criterion", "magnitude")
    assert radiogen(*words, "--scope", "layer", "--sparsity", "0.5").code == 0
    assert radiogen(*words, "--sparsity", "0.9999").refuses("no path", "take sparsity")


def test_a_prior_the_model_does_not_know_is_refused(segment, tiny_model):
    assert segment("--prior", "mask").refuses(tiny_model.folder.name, "mask")


def test_weight_masks_of_another_preprocessing_are_refused(radiogen, cases, small):
    words = ("--samples", "1", "--criterion", "magnitude", "--scope", "layer", "--sparsity", "0.5")
    assert radiogen("prune", cases, "-o", "pruned", *small, *words).code == 0
    other = [*small, "--set", "preprocessing.spacing_mm=[7, 7, 7]"]
    assert radiogen("train", cases, "-o", "out", *other, "--pruned", "pruned").refuses("--pruned")


def test_features_of_another_extractor_are_refused(radiogen, tables, tmp_path):
    quick = ("--folds", "2", "--repeats", "1", "--permutations", "0")
    assert radiogen(*TABLES[:-1], "egfr", *quick).code == 0
    about = json.loads((tmp_path / "features.json").read_text())
    (tmp_path / "features.json").write_text(json.dumps({**about, "model_hash": "other"}))
    answer = radiogen("classify-egfr", "features.csv", "-m", "egfr", "-o", "out.csv")
    assert answer.refuses("features.csv", "another segmentation model")


@pytest.mark.parametrize(
    "words",
    [
        ("prune", "cases", "-o", "out", "--sparsity", "0.5"),
        ("train", "cases", "-o", "out"),
        ("segment", "cases", "-o", "out", "-m", "model"),
        ("extract-features", "cases", "-o", "out/f.csv", "-m", "model"),
        (*TABLES, "--classifier", "mlp"),
        ("demo", "-o", "out"),
    ],
)
def test_a_device_that_is_not_there_is_refused(radiogen, cases, tables, tiny_model, tmp_path, words):
    shutil.copytree(tiny_model.folder, tmp_path / "model")
    device = "cuda:99" if torch.cuda.is_available() else "cuda"
    assert radiogen(*words, "--device", device).refuses(f"--device {device}")
    assert radiogen(*words, "--device", "toaster").refuses("--device toaster")


def test_a_pickle_is_never_a_model(radiogen, segment, cases, tables, tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "net.pkl")
    assert segment(model="net.pkl").refuses("net.pkl")
    assert radiogen("extract-features", cases, "-o", "f.csv", "-m", "net.pkl").refuses("net.pkl")
    assert radiogen("classify-egfr", "features.csv", "-o", "p.csv", "-m", "net.pkl").refuses("net.pkl")
    assert radiogen("model", "show", "net.pkl").refuses("net.pkl")
    assert radiogen("model", "import", "net.pkl", "-o", "out").refuses()


def test_an_egfr_model_that_is_none_is_refused_before_the_scan_is_read(radiogen, cases, tiny_model, tmp_path):
    torch.save({}, tmp_path / "net.pkl")
    words = ("classify-egfr", cases, "-o", "out", "--segmentation", tiny_model.folder)
    assert radiogen(*words, "-m", "net.pkl").refuses("net.pkl")
    assert radiogen("classify-egfr", cases, "-o", "out", "-m", "net.pkl").refuses("--segmentation")


@pytest.mark.parametrize("name", ["ct", "lungs", "lesion"])
def test_a_spoiled_case_leaves_no_half_made_folder(radiogen, cases, small, name):
    path = find_cases(cases)[0].folder / f"{name}.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert radiogen("train", cases, "-o", "deep/model", *small).refuses(path.name)
    assert radiogen("prune", cases, "-o", "deep/pruned", "--sparsity", "0.5", *small).refuses(path.name)


@pytest.mark.parametrize(
    "words",
    [
        ("split", "absent"),
        ("train", "absent", "-o", "out"),
        ("prune", "absent", "-o", "out", "--sparsity", "0.5"),
        ("evaluate", "absent", "absent"),
        ("report", "absent", "-o", "out.html"),
        ("model", "list", "absent"),
        ("model", "show", "absent"),
        ("model", "import", "absent", "-o", "out"),
        ("train-egfr", "--features", "absent", "-o", "out"),
        ("train-egfr", "-o", "out"),
        ("train", "cases", "-o", "out", "--config", "absent"),
        ("train", "cases", "-o", "out", "--set", "training.nonsense=1"),
        ("train", "cases", "-o", "out", "--set", "nonsense"),
        ("train", "cases", "-o", "out", "--folds", "9"),
        ("train", "cases", "-o", "out", "--folds", "2", "--fold", "2"),
        ("split", "cases", "--test", "1.5"),
        ("ingest", "cases/manifest.csv", "-o", "out"),
        ("demo", "-o", "out", "--patients", "3"),
        ("demo", "-o", "cases"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(radiogen, cases, words):
    assert radiogen(*words).refuses()


@pytest.mark.parametrize("verb", ["ingest", "train", "prune", "segment"])
def test_an_output_that_is_a_file_is_refused(radiogen, cases, scan, tiny_model, small, tmp_path, verb):
    (tmp_path / "taken").write_text("mine")
    more = {
        "ingest": [scan],
        "train": [cases, *small],
        "prune": [cases, "--sparsity", "0.5", "--samples", "1", *small],
        "segment": [find_cases(cases)[0].folder, "-m", tiny_model.folder],
    }
    assert radiogen(verb, *more[verb], "-o", "taken").refuses("taken")


@pytest.mark.parametrize(
    "words",
    [
        ("ingest",),
        ("ingest", "src"),
        ("ingest", "src", "-o", "out", "--gaps", "guess"),
        ("nonsense",),
        ("prune", "cases", "-o", "out"),
        ("train", "cases", "-o", "out", "--fold", "-1"),
        ("train", "cases", "-o", "out", "--fold", "first"),
        ("segment", "cases", "-o", "out", "-m", "model", "--prior", "luck"),
        ("train-egfr", "-o", "out", "--folds", "two"),
    ],
)
def test_a_usage_error_exits_with_2(radiogen, words):
    answer = radiogen(*words)
    assert answer.code == 2 and "Error" in answer.err and not answer.touched


def test_some_failing_cases_exit_with_3_and_stand_in_a_table(radiogen, tmp_path):
    for name in ("A", "B"):
        write_ct(tmp_path / "src" / name, patient=name)
    sorted((tmp_path / "src" / "B").iterdir())[2].unlink()
    answer = radiogen("ingest", "src", "-o", "out")
    assert answer.code == 3 and len(answer.out.splitlines()) == 1
    failures = (tmp_path / "out" / "failures.csv").read_text().splitlines()
    assert len(failures) == 2 and "missing" in failures[1]


def test_scans_that_all_fail_exit_with_3_as_well(radiogen, tiny_model, tmp_path):
    for name in ("A", "B"):
        write_ct(tmp_path / "src" / name, patient=name)
        sorted((tmp_path / "src" / name).iterdir())[2].unlink()
    answer = radiogen("segment", "src", "-o", "out", "-m", tiny_model.folder)
    assert answer.code == 3 and "failures.csv" in answer.err
    assert len((tmp_path / "out" / "failures.csv").read_text().splitlines()) == 3


def test_one_failing_case_of_many_does_not_stop_the_others(radiogen, cases, tiny_model, tmp_path):
    find_cases(cases)[1].lungs_path.unlink()
    words = ("-m", tiny_model.folder, "--no-picture")
    answer = radiogen("segment", cases, "-o", "out", *words)
    assert answer.code == 3
    assert len((tmp_path / "out" / "failures.csv").read_text().splitlines()) == 2
    assert len(list((tmp_path / "out").glob("*/lesion.nii.gz"))) == 3


def test_a_bug_exits_with_70_one_line_and_a_log(radiogen, tmp_path, monkeypatch):
    def fail():
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(runtime, "examine_machine", fail)
    answer = radiogen("doctor")
    assert answer.code == 70 and len(answer.err.splitlines()) == 1
    (log,) = answer.touched
    assert log in answer.err and "of all things" in (tmp_path / log).read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_exits_with_130(radiogen, monkeypatch, number):
    monkeypatch.setattr(runtime, "examine_machine", lambda: os.kill(os.getpid(), number))
    answer = radiogen("doctor")
    assert answer.code == 130 and len(answer.err.splitlines()) == 1


def test_formats_that_cannot_be_are_refused(radiogen, segment, volume, scan, tiny_model):
    assert segment("--format", "png").refuses("--format png", "dicom-seg")
    assert segment("--format", "dicom-seg", "--prior", "lungs").refuses("made from")
    assert radiogen("convert", volume, "-o", "out.dcm", "--to", "rtstruct").refuses("--reference")
    assert radiogen("convert", volume, "-o", "out.txt").refuses("out.txt", "does not say what to write")
    assert radiogen("convert", "absent.dcm", "-o", "out.nii", "--reference", scan).refuses("absent.dcm")
    export = ("model", "export", tiny_model.folder, "-o", "out.onnx")
    assert radiogen(*export, "--to", "onnx", "--size", "32").refuses("--size", "multiples of 16")
    assert radiogen(*export, "--to", "torchscript").refuses("out.onnx", ".pt")
