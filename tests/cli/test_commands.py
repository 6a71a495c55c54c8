"""Every command does its work on made cases, and every option tested here changes something."""

import csv
import json
import shutil
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_phantom import box_hu, ct_slices, rtstruct, save, square, write_ct
from egfr.made_tables import write_rows

from radiogen import __version__
from radiogen.io.cases import find_cases, write_manifest
from radiogen.phantoms.chest import ChestSize
from radiogen.phantoms.cohort import make_phantoms
from radiogen.provenance import file_sha256
from radiogen.volume import array_of

COMMANDS = (
    *("ingest", "qc", "split", "prune", "train", "segment", "evaluate", "extract-features"),
    *("train-egfr", "classify-egfr", "report", "view", "model", "benchmark", "doctor", "demo"),
)
QUICK = ("--folds", "2", "--repeats", "1", "--permutations", "0")
SCORING = ("--samples", "2", "--scope", "layer", "--sparsity", "0.5", "--device", "cpu")
HEAVY = ("torch", "monai", "pandas", "sklearn", "matplotlib", "SimpleITK", "pydicom")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def segment(radiogen, cases, tiny_model):
    """Segment the first of the cases, or more, without pictures."""

    def call(*words, source=None, out="seg", picture=False, model=tiny_model.folder):
        source = source or find_cases(cases)[0].folder
        more = () if picture else ("--no-picture",)
        return radiogen("segment", source, "-o", out, "-m", model, *more, *words)

    return call


@pytest.fixture
def eager(tiny_model, tmp_path):
    """A model that calls lesion early: one of a few steps is sure of nothing."""
    shutil.copytree(tiny_model.folder, tmp_path / "eager")
    config = tmp_path / "eager" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "threshold": 0.05}))
    return tmp_path / "eager"


@pytest.fixture
def train(radiogen, cases, small):
    """Train one epoch on the cases."""

    def call(*words, out="model"):
        settings = (*small, "--set", "training.epochs=1", "--device", "cpu")
        return radiogen("train", cases, "-o", out, *settings, *words)

    return call


def test_qc_writes_one_page_and_says_where(radiogen, cases):
    answer = radiogen("qc", cases, "-o", "qc.html", "--jobs", "1", "--quiet")
    assert (answer.code, answer.out.strip(), answer.err) == (0, "qc.html", "")
    assert answer.touched == ("qc.html", "qc.run.json")


def test_help_names_every_command_and_loads_nothing_heavy(tmp_path):
    program = (
        "import sys\nfrom radiogen.cli.main import run\nsys.argv[1:] = ['--help']\n"
        "try:\n    run()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 5  # with torch it would be more
    assert not {name.split(".")[0] for name in done.stderr.split()} & set(HEAVY)
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(radiogen, command):
    answer = radiogen(command, "--help")
    assert answer.code == 0 and "Usage" in answer.out and not answer.err


def test_ingest_lists_what_it_would_take_and_writes_nothing(radiogen, tmp_path):
    write_ct(tmp_path / "src" / "long", box_hu((11, 7, 8)), series="long")
    write_ct(tmp_path / "src" / "short", series="short")
    (tmp_path / "src" / "notes.txt").write_text("x")
    answer = radiogen("ingest", "--list", "src")
    assert answer.code == 0 and not answer.touched
    assert "left out: 1 not DICOM" in answer.err
    taken, other = answer.out.split("\n- ")
    assert taken.startswith("+ ") and "8 slices, 11 x 7, 0.75 x 1.25 x 2.50 mm, kernel B40" in taken
    assert "taken: of 2 CT series" in taken and "not taken: it has fewer slices" in other
    listing = json.loads(radiogen("ingest", "--list", "--json", "src", "--series-rule", "thinnest").out)
    assert [one["slices"] for one in listing["candidates"]] == [8, 5]
    assert "A 1" not in answer.out and "Doe" not in answer.out


def test_ingest_resamples_gaps_and_tilt_only_when_asked(radiogen, tmp_path):
    slices = ct_slices(box_hu((11, 7, 8)))
    for k, item in enumerate(slices):
        item.ImagePositionPatient = [-20.0, 10.0 + k, -100.0 + 2.5 * k]
    del slices[3]
    save(slices, tmp_path / "src")
    assert radiogen("ingest", "src", "-o", "out").refuses("missing", "--gaps resample")
    assert radiogen("ingest", "src", "-o", "out", "--gaps", "resample").refuses("tilt", "--tilt resample")
    answer = radiogen("ingest", "src", "-o", "out", "--gaps", "resample", "--tilt", "resample")
    assert answer.code == 0 and "1 of 8 planes interpolated" in answer.err and "gantry tilt" in answer.err


def test_version_is_that_of_the_package(radiogen):
    assert radiogen("--version").out.strip() == f"radiogen {__version__}"


def test_doctor_answers_as_json(radiogen):
    answer = radiogen("doctor", "--json")
    assert answer.code == 0 and {"radiogen", "device"} <= {key.lower() for key in json.loads(answer.out)}
    assert "torch" in radiogen("doctor").out


def test_ingest_makes_cases_of_a_phantom_cohort(radiogen, tmp_path):
    size = ChestSize((48, 40, 32), (6.0, 6.4, 7.0), variation=0.04)
    cohort = make_phantoms(tmp_path / "made", 2, size=size, broken=False)
    words = ("ingest", cohort.dicom, "-o", "cases", "--clinical", cohort.clinical, "--cohort", "phantoms")
    answer = radiogen(*words)
    assert answer.code == 0, answer.err
    found = find_cases(tmp_path / "cases")
    assert [line.split("\t")[0] for line in answer.out.splitlines()] == [case.case_id for case in found]
    assert {case.egfr for case in found} == {"mutant", "wildtype"} and all(case.has_lesion for case in found)
    assert not radiogen(*words).touched
    assert radiogen(*words, "--existing", "fail").refuses("existing")


def test_ingest_takes_an_outline_from_elsewhere(radiogen, scan, tmp_path):
    rois = {"Tumour": [square(2, (3, 2), (7, 5))], "Node": [square(1, (3, 2), (5, 5))]}
    save([rtstruct(rois)], tmp_path / "rt", ["1.dcm"])
    for out, roi, voxels in (("a", "Tumour", 12), ("b", "Node", 6)):
        answer = radiogen("ingest", scan, "-o", out, "--outline", "rt/1.dcm", "--roi", roi)
        assert answer.code == 0, answer.err
        (case,) = find_cases(tmp_path / out)
        assert int((array_of(case.lesion()) == 1).sum()) == voxels


def test_ingest_quiet_says_only_results(radiogen, scan):
    assert radiogen("ingest", scan, "-o", "loud").err
    answer = radiogen("ingest", scan, "-o", "silent", "--quiet")
    assert not answer.err and answer.out


def test_ingest_takes_ids_of_patients_where_asked(radiogen, tmp_path):
    write_ct(tmp_path / "src", box_hu(), patient="A 1")
    assert radiogen("ingest", "src", "-o", "hash").out.split("\t")[0] != "A-1"
    assert radiogen("ingest", "src", "-o", "plain", "--id-from", "patient-id").out.split("\t")[0] == "A-1"


def test_split_marks_patients_and_the_seed_decides_which(radiogen, tmp_path):
    empty = dict.fromkeys(("cohort", "split", "ct", "lesion", "lungs"), "")
    rows = [
        {"case_id": f"c{n}", "patient_id": f"p{n}", "egfr": ("mutant", "wildtype")[n % 2], **empty}
        for n in range(12)
    ]
    write_manifest(tmp_path, rows)
    splits = []
    for seed in (0, 1, 0):
        answer = radiogen("split", ".", "--test", "0.5", "--seed", seed)
        assert sorted(answer.out.splitlines()) == ["test\t6", "train\t6"]
        splits.append([case.split for case in find_cases(tmp_path)])
    assert splits[0] == splits[2] != splits[1]


def test_prune_prints_its_layers_and_writes_masks(radiogen, cases, small, tmp_path):
    answer = radiogen("prune", cases, "-o", "pruned", *small, *SCORING)
    assert answer.code == 0 and "kept" in answer.err
    assert len(answer.out.splitlines()) == len(rows_of(tmp_path / "pruned" / "layers.csv")) + 3
    assert not (tmp_path / "pruned" / "prepared").exists()
    again = radiogen("prune", cases, "-o", "pruned", *small, *SCORING, "--existing", "fail")
    assert again.refuses("pruned", "existing")


@pytest.mark.parametrize(
    "words", [("--seed", "1"), ("--criterion", "snip"), ("--sparsity", "0.3"), ("--samples", "1")]
)
def test_options_of_prune_decide_what_is_kept(radiogen, cases, small, tmp_path, words):
    for out, more in (("a", ()), ("b", words)):
        assert radiogen("prune", cases, "-o", out, *small, *SCORING, *more).code == 0
    first, other = (file_sha256(tmp_path / out / "weight_masks.safetensors") for out in "ab")
    assert first != other


def test_train_takes_weight_masks_and_holds_them(radiogen, cases, train, small, tmp_path):
    assert radiogen("prune", cases, "-o", "pruned", *small, "--set", "training.epochs=1", *SCORING).code == 0
    answer = train("--pruned", "pruned")
    assert answer.code == 0 and answer.out == "model\n", answer.err
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["sparsity"] == pytest.approx(0.5, abs=0.01)


def test_train_again_does_nothing_unless_told(train):
    assert train().code == 0
    assert not train().touched
    assert train("--existing", "fail").refuses("model")
    assert train("--seed", "1").refuses("other settings")
    assert train("--seed", "1", "--existing", "overwrite").touched


def test_options_of_train_reach_the_model(train, tmp_path):
    assert train("--prior", "box", "--set", "training.epochs=2", "--seed", "3").code == 0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert config["priors"] == ["box"] and config["seed"] == 3 and len(metrics["epochs"]) == 2


def test_each_fold_holds_out_other_patients(train, tmp_path):
    seen = []
    for fold in (0, 1):
        answer = train("--folds", "2", "--fold", fold, out=f"fold{fold}")
        assert answer.code == 0 and "Dice" in answer.out
        seen.append(set(json.loads((tmp_path / f"fold{fold}" / "config.json").read_text())["patients_seen"]))
    assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 4


def test_train_reads_a_settings_file(train, tmp_path):
    (tmp_path / "more.yaml").write_text("training:\n  learning_rate: 1.0e-5\n")
    for out, words in (("plain", ()), ("slow", ("--config", "more.yaml"))):
        assert train(*words, out=out).code == 0
    first, other = (file_sha256(tmp_path / out / "model.safetensors") for out in ("plain", "slow"))
    assert first != other


def test_segment_writes_mask_table_and_picture(segment, tmp_path):
    answer = segment(picture=True)
    assert answer.code == 0, answer.err
    (folder,) = (path for path in (tmp_path / "seg").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} == {
        *("lesion.ctbl", "lesion.nii.gz", "lesion.png", "lesion.run.json", "lesions.csv"),
    }
    assert len(rows_of(tmp_path / "seg" / "lesions.csv")) == answer.out.count("\tlesion ")


def test_segment_takes_the_shipped_model_and_says_so(radiogen, cases, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("radiogen.model.folder.data_folder", lambda _: tmp_path / "models")
    words = ("segment", find_cases(cases)[0].folder, "-o", "seg", "--no-picture")
    assert radiogen(*words).refuses("raseg-starter", "not part of this installation", "--model")
    shutil.copytree(tiny_model.folder, tmp_path / "models" / "raseg-starter")
    for _ in range(2):
        answer = radiogen(*words)
        assert answer.code == 0
        assert answer.err.splitlines()[0] == "no --model given: the shipped model raseg-starter is used"
    record = json.loads(next((tmp_path / "seg").rglob("lesion.run.json")).read_text())
    assert record["model_hash"] == tiny_model.hash


def test_segment_takes_boxes_by_itself_where_the_model_can(segment, tmp_path):
    assert segment("-q").code == 0
    record = json.loads(next((tmp_path / "seg").rglob("lesion.run.json")).read_text())
    assert (record["options"]["prior"], record["options"]["prompt"]) == ("auto", "auto")
    assert any("in the first pass" in said for said in record["decisions"])


def test_segment_averages_models_and_mirror_images(segment, tiny_model, tmp_path):
    shutil.copytree(tiny_model.folder, tmp_path / "other")
    path = tmp_path / "other" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 7}))
    hashes = []
    for out, words in (("both", ("-m", "other")), ("views", ("--tta",))):
        assert segment("--prior", "box", *words, out=out).code == 0
        assert all(float(row["score"]) >= 0.5 for row in rows_of(tmp_path / out / "lesions.csv"))
        assert all(row["disagreement"] for row in rows_of(tmp_path / out / "lesions.csv"))
        record = json.loads(next((tmp_path / out).rglob("lesion.run.json")).read_text())
        hashes.append(record["model_hash"])
        assert record["options"]["how"]["tta"] == (out == "views")
    assert hashes[0] != tiny_model.hash == hashes[1]


def test_segment_finds_the_same_with_another_engine(cases, tiny_model, tmp_path):
    words = (sys.executable, "-m", "radiogen.cli.main", "segment", find_cases(cases)[0].folder)
    for engine in ("torch", "openvino"):  # apart: see model/test_backends.py
        more = ("-o", tmp_path / engine, "-m", tiny_model.folder, "--prior", "lungs", "--engine", engine)
        answer = subprocess.run([*words, *more, "--no-picture"], capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
        record = json.loads(next((tmp_path / engine).rglob("lesion.run.json")).read_text())
        assert record["options"]["how"]["engine"] == engine
    first, second = (rows_of(tmp_path / out / "lesions.csv") for out in ("torch", "openvino"))
    assert len(first) == len(second)
    for ours, theirs in zip(first, second, strict=True):
        assert abs(float(ours["volume_ml"]) - float(theirs["volume_ml"])) < 0.01 * float(ours["volume_ml"])


def test_segment_says_how_long_it_takes_when_it_is_asked(segment, cases):
    words = ("--prior", "none", "--existing", "overwrite")
    assert "windows of 32 x 32 x 32" in segment(*words, "-v", source=cases).err
    assert "windows of" not in segment(*words, source=cases).err


def test_segment_saves_probabilities_that_viewers_scale(segment, tmp_path):
    assert segment("--save-probabilities", "--prior", "lungs", picture=True).code == 0
    (folder,) = (path for path in (tmp_path / "seg").iterdir() if path.is_dir())
    for read in (
        lambda path: nibabel.load(path).get_fdata().T,
        lambda path: sitk.GetArrayFromImage(sitk.ReadImage(path)),
    ):
        values = read(folder / "lesion_probability.nii.gz")
        lesion = read(folder / "lesion.nii.gz") > 0
        assert values.min() >= 0 and 0.3 < values.max() <= 1
        assert not lesion.any() or values[lesion].min() >= 0.5 - 1 / 255
    record = json.loads((folder / "lesion.run.json").read_text())
    assert "lesion_probability.nii.gz" in record["outputs"]
    assert segment("--prior", "lungs").code == 0  # other options: what this run does not make goes away
    assert {path.name for path in folder.iterdir()} == {
        *("lesion.ctbl", "lesion.nii.gz", "lesion.run.json", "lesions.csv"),
    }


def test_segment_refuses_a_setting_that_is_none(segment):
    assert segment("--set", "auto.least_score=2").refuses("least_score")
    assert segment("--set", "luck=1").refuses("luck", "overlap")


def test_segment_without_a_picture_writes_none(segment, tmp_path):
    assert segment().code == 0
    assert not list((tmp_path / "seg").rglob("*.png"))


def test_a_second_run_keeps_overwrites_or_refuses(segment, tmp_path):
    assert segment().touched
    assert not any("lesion.nii.gz" in name or "run.json" in name for name in segment().touched)
    (record,) = (tmp_path / "seg").glob("*/lesion.run.json")
    before = record.stat().st_mtime_ns
    assert segment("--existing", "overwrite").code == 0
    assert record.stat().st_mtime_ns > before  # its bytes may be the same: seconds rounded to thousandths
    assert segment("--existing", "fail").refuses("existing")


def test_a_box_or_an_outline_is_taken_as_the_prompt(segment, cases, tmp_path):
    case = find_cases(cases)[0]
    lesion = case.lesion()
    corner = np.argwhere(array_of(lesion) == 1)[:, ::-1]
    low, high = (
        lesion.TransformContinuousIndexToPhysicalPoint([float(v) for v in edge])
        for edge in (corner.min(0) - 0.5, corner.max(0) + 0.5)
    )
    box = ",".join(f"{value:.2f}" for value in (*low, *high))
    for out, words, prompt in (
        ("lungs", (), "auto"),
        ("none", ("--prior", "none"), "none"),
        ("box", (f"--box={box}",), "human"),
        ("outline", ("--box-from", case.lesion_path), "oracle"),
    ):
        assert segment(*words, out=out).code == 0
        record = json.loads((tmp_path / out / case.case_id / "lesion.run.json").read_text())
        assert record["options"]["prompt"] == prompt


def test_small_parts_are_left_out_where_asked(segment, eager):
    all_parts = segment("--smallest-ml", "0", "--prior", "lungs", out="all", model=eager)
    none = segment("--smallest-ml", "100000", "--prior", "lungs", out="none", model=eager)
    assert "\tlesion 1" in all_parts.out and "no lesion" in none.out


def test_only_cases_of_the_split_are_segmented(radiogen, segment, cases):
    radiogen("split", cases, "--test", "0.25")
    answer = segment("--split", "test", source=cases)
    asked = {case.case_id for case in find_cases(cases) if case.split == "test"}
    assert asked and {line.split("\t")[0] for line in answer.out.splitlines()} == asked


def test_a_volume_file_is_segmented_as_well(segment, cases, tmp_path):
    answer = segment(source=find_cases(cases)[0].ct_path)
    assert answer.code == 0, answer.err
    assert len(list((tmp_path / "seg").glob("*/lesion.nii.gz"))) == 1


def test_evaluate_of_the_reference_itself_is_perfect(radiogen, cases, tmp_path):
    answer = radiogen("evaluate", cases, cases, "-o", "rows.csv", "--json")
    found = json.loads(answer.out)
    assert [row["dice"] for row in found["rows"]] == [1.0] * 4
    assert [row["case_id"] for row in rows_of(tmp_path / "rows.csv")] == [
        row["case_id"] for row in found["rows"]
    ]
    said = radiogen("evaluate", cases, cases, "--loosen", 0.1, "--size-bins", "15,40").out
    assert "dice 1.000" in said and "15-40 mm" in said and "in 4 of 4 cases" in said


def test_evaluate_names_the_case_that_failed_and_goes_on(radiogen, cases, tmp_path):
    shutil.copytree(cases, tmp_path / "predicted")
    bad = find_cases(tmp_path / "predicted")[0]
    bad.lesion_path.write_bytes(b"no mask")
    answer = radiogen("evaluate", "predicted", cases, "-o", "rows.csv")
    assert answer.code == 3 and answer.err.count(bad.case_id) == 1
    assert len(rows_of(tmp_path / "rows.csv")) == 4
    assert [row["case_id"] for row in rows_of(tmp_path / "rows_failures.csv")] == [bad.case_id]


def test_evaluate_shakes_the_boxes_of_a_model(radiogen, cases, tiny_model, tmp_path):
    words = ("evaluate", cases, "--model", tiny_model.folder, "--jitter", "0,0.1", "--draws", 1)
    found = json.loads(radiogen(*words, "-o", "jitter.csv", "--json").out)
    assert [row["prompt"] for row in found["levels"]] == ["oracle", "jitter"]
    assert len(rows_of(tmp_path / "jitter.csv")) == len(found["rows"]) == 8
    assert "Each face off by up to 10%" in radiogen(*words, "-o", "jitter.csv").out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("cases",), "REFERENCE"),
        (("cases", "--jitter", "0"), "--model"),
        (("cases", "other", "--jitter", "0", "--model", "model"), "one argument"),
        (("cases", "other", "--draws", "2"), "--jitter only"),
        (("cases", "--jitter", "0", "--model", "model", "--tolerance-mm", "2"), "--tolerance-mm"),
    ],
)
def test_evaluate_says_what_does_not_go_together(radiogen, words, named):
    answer = radiogen("evaluate", *words)
    assert answer.code == 2 and named in answer.err and not answer.touched


def test_features_of_outlines_masks_and_splits(radiogen, segment, cases, tiny_model, eager, tmp_path):
    words = ("extract-features", cases, "-m", tiny_model.folder, "-o")
    assert radiogen(*words, "f.csv").code == 0
    rows = rows_of(tmp_path / "f.csv")
    assert {row["case_id"] for row in rows} == {case.case_id for case in find_cases(cases)}
    assert any(name.startswith("deep_") for name in rows[0]) and float(rows[0]["shape_volume_ml"]) > 0
    radiogen("split", cases, "--test", "0.5")
    assert radiogen(*words, "t.csv", "--split", "test").code == 0
    assert {row["case_id"] for row in rows_of(tmp_path / "t.csv")} < {row["case_id"] for row in rows}
    assert segment("--smallest-ml", "0", "--prior", "lungs", model=eager).code == 0
    again = ("extract-features", cases, "-m", eager, "-o", "m.csv", "--masks", "seg")
    answer = radiogen(*again)
    assert answer.code == 3 and len({row["case_id"] for row in rows_of(tmp_path / "m.csv")}) == 1
    assert json.loads((tmp_path / "m.json").read_text())["prompt"] == "auto"


def test_more_features_on_request(radiogen, cases, tiny_model, tmp_path):
    case = find_cases(cases)[0].folder
    words = ("extract-features", case, "-m", tiny_model.folder, "-o", "f.csv")
    seen = {}
    for more in ((), ("--ring", "2,30"), ("--lungs",), ("--no-outside",), ("--level", "encoder1")):
        assert radiogen(*words, *more).code == 0
        seen[more] = tuple(rows_of(tmp_path / "f.csv")[0])
    assert len(set(seen.values())) == 5
    answer = radiogen(*words, "--perturb", "2", "--seed", "3", "--batch", "2")
    assert "features have an ICC of 0.75 or more" in answer.out and (tmp_path / "f.stability.csv").is_file()
    assert radiogen(*words, "--existing", "fail").refuses("f.csv")
    assert radiogen(*words, "--ring", "10,2").refuses("ring_mm")
    assert radiogen(*words, "--ring", "wide").refuses("--ring wide")
    assert radiogen(*words, "--level", "decoder9", "--existing", "overwrite").refuses("decoder9")


def test_an_audit_fits_nothing(radiogen, tables, tmp_path):
    features, clinical = tables
    answer = radiogen("train-egfr", "--audit", "--features", features, "--clinical", clinical, "-o", "a.json")
    assert answer.code == 0 and "patients\t24" in answer.out and "with volume" in answer.out
    assert json.loads((tmp_path / "a.json").read_text())["patients"] == 24
    assert not (tmp_path / "a").exists()


def test_a_second_cohort_is_judged_beside(radiogen, tables, tmp_path):
    features, clinical = tables
    words = ("train-egfr", "--features", features, "--clinical", clinical, *QUICK, "-o", "egfr")
    other = [{**row, "patient_id": f"N{row['patient_id']}"} for row in rows_of(tmp_path / features)]
    status = [{**row, "patient_id": f"N{row['patient_id']}"} for row in rows_of(tmp_path / clinical)]
    rng = np.random.default_rng(7)  # not the seed of the table
    for row in other:  # else they are twins of the first
        row.update({name: str(rng.normal()) for name in list(row)[3:]})
    write_rows(tmp_path / "other.csv", other)
    write_rows(tmp_path / "status.csv", status)
    second = ("--external", "other.csv", "--external-clinical", "status.csv")
    assert radiogen(*words, *second).refuses("other.csv", "another extractor")
    shutil.copy(tmp_path / "features.json", tmp_path / "other.json")
    answer = radiogen(*words, *second)
    assert answer.code == 0 and "AUC on the second cohort" in answer.out, answer.err
    assert radiogen(*words, "--external", features, "--external-clinical", clinical).refuses("learned from")
    assert radiogen(*words, "--stable", "0.75").refuses("perturbed.csv")
    bags = radiogen(*words, "--classifier", "attention", "--lesion", "bag")
    assert bags.code == 0, bags.err


def test_egfr_is_learned_and_told(radiogen, tables, tmp_path):
    features, clinical = tables
    words = ("train-egfr", "--features", features, "--clinical", clinical, *QUICK)
    answer = radiogen(*words, "-o", "egfr")
    assert answer.code == 0 and "24, 8 EGFR mutant" in answer.out and "AUC out of fold" in answer.out
    told = radiogen("classify-egfr", features, "-m", "egfr", "-o", "p.csv")
    assert told.code == 0 and len(told.out.splitlines()) == 25
    rows = rows_of(tmp_path / "p.csv")
    assert len(rows) == 24 and all(0 <= float(row["probability"]) <= 1 for row in rows)
    radiogen("classify-egfr", features, "-m", "egfr", "-o", "wary.csv", "--abstain", "0.9")
    assert [row["class"] for row in rows_of(tmp_path / "wary.csv")] != [row["class"] for row in rows]


def test_options_of_train_egfr_change_the_model(radiogen, tables, tmp_path):
    features, clinical = tables
    start = ("train-egfr", "--features", features, "--clinical", clinical, *QUICK)
    said = set()
    for more in ((), ("--classifier", "tree"), ("--inputs", "clinical"), ("--seed", "1")):
        answer = radiogen(*start, "-o", "egfr", *more)
        assert answer.code == 0, answer.err
        said.add((answer.out.splitlines()[1], (tmp_path / "egfr" / "pipeline.skops").read_bytes()))
    assert len(said) == 4


def test_a_scan_goes_all_the_way_to_a_probability(radiogen, cases, tiny_model, tmp_path):
    features = ("extract-features", cases, "-m", tiny_model.folder, "-o", "features.csv")
    assert radiogen(*features).code == 0
    table = tmp_path / "features.csv"
    rows = (rows_of(table) * 6)[:24]
    rng = np.random.default_rng(0)
    many = [{**row, "patient_id": f"P{n}", "shape_volume_ml": 9 + rng.normal()} for n, row in enumerate(rows)]
    for row in many:  # else they are twins
        numbers = [name for name in list(row)[3:] if row[name] not in ("", None)]
        row.update({name: float(row[name]) * (1 + 0.3 * rng.normal()) for name in numbers})
    write_rows(table, many)
    status = [{"patient_id": f"P{n}", "egfr": ("mutant", "wildtype")[n % 2]} for n in range(24)]
    write_rows(tmp_path / "clinical.csv", status)
    words = ("train-egfr", "--features", table, "--clinical", "clinical.csv", "-o", "egfr", *QUICK)
    learned = radiogen(*words)
    assert learned.code == 0, learned.err
    words = ("classify-egfr", find_cases(cases)[0].folder, "-m", "egfr", "-o", "answer")
    answer = radiogen(*words, "--segmentation", tiny_model.folder, "--prior", "none")
    assert answer.code == 0, answer.err
    (row,) = rows_of(tmp_path / "answer" / "predictions.csv")
    assert 0 < float(row["probability"]) < 1 and (tmp_path / "answer" / "report.html").is_file()


def test_report_is_one_page(radiogen, segment, tmp_path):
    assert segment(picture=True).code == 0
    answer = radiogen("report", "seg", "-o", "page.html")
    assert answer.out == "page.html\n"
    assert "data:image/png" in (tmp_path / "page.html").read_text()


def test_models_are_listed_shown_and_imported(radiogen, tiny_model, golden, tmp_path):
    listed = json.loads(radiogen("model", "list", tiny_model.folder, "--json").out)
    assert [row["hash"] for row in listed] == [tiny_model.hash]
    assert listed[0]["name"] in radiogen("model", "list", tiny_model.folder.parent).out
    assert radiogen("model", "list").code == 0
    assert "not for clinical use" in radiogen("model", "show", tiny_model.folder).out.lower()
    shown = json.loads(radiogen("model", "show", tiny_model.folder, "--json").out)
    assert shown["patients_seen"] == list(tiny_model.config.patients_seen)
    with np.load(golden / "raseg_tiny.npz") as file:
        published = {
            name.split("/", 1)[1]: torch.from_numpy(file[name])
            for name in file.files
            if name.startswith(("param/", "buffer/"))
        }
    torch.save(published, tmp_path / "authors.pth")
    answer = radiogen("model", "import", "authors.pth", "-o", "imported")
    assert answer.code == 0 and radiogen("model", "show", "imported").code == 0
    assert radiogen("model", "import", "authors.pth", "-o", "imported").refuses("imported")
