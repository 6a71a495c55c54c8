"""Feature tables that radiogen did not write: PyRadiomics' own CSV, embeddings, several rows a patient."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from egfr.made_tables import QUICK
from shown_commands import shown_commands, type_command

from radiogen.egfr.cohort import read_cohort
from radiogen.egfr.feature_table import read_features
from radiogen.egfr.own_features import not_a_feature
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.train import train_egfr
from radiogen.errors import TableError
from radiogen.report.page import report

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-features.md"
SHORT = ["--folds", "2", "--repeats", "1", "--permutations", "0"]
NAMES = ("original_shape_MeshVolume", "original_shape_VoxelVolume", "original_shape_Sphericity")
TEXTURES = tuple(f"wavelet-LLH_{kind}_F{n}" for kind in ("glcm", "glrlm", "gldm", "ngtdm") for n in range(3))
RECORDED = {  # as PyRadiomics 3 writes them before the features
    "diagnostics_Versions_PyRadiomics": "v3.0.1",
    "diagnostics_Configuration_Settings": "{'minimumROIDimensions': 2, 'label': 1, 'binWidth': 25}",
    "diagnostics_Image-original_Spacing": "(0.7, 0.7, 1.25)",
    "diagnostics_Image-original_Mean": "-512.25",
    "diagnostics_Mask-original_VoxelNum": "837",
}


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def pyradiomics_rows(ids, seed=0, lesions=1, place="/data/{}/CT/image.nrrd"):
    """Rows as `pyradiomics cases.csv -f csv` writes them: the input columns, diagnostics, features."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, patient in enumerate(ids):
        for label in range(1, 1 + (lesions if number % 4 == 0 else 1)):
            image = place.format(patient)
            values = rng.normal(size=len(NAMES) + len(TEXTURES)) + (number % 3 == 0) * 0.3
            features = dict(zip((*NAMES, *TEXTURES), np.exp(values).round(6), strict=True))
            mask = image.replace("image", "label")
            rows.append({"Image": image, "Mask": mask, "Label": label, **RECORDED, **features})
    return rows


def clinical_rows(ids, header="Case ID"):
    words = ("Wildtype", "Mutant")
    return [
        {
            header: patient,
            "EGFR mutation status": words[number % 3 == 0],
            "KRAS mutation status": words[number % 2],
            "Histology ": ("Adenocarcinoma", "Squamous cell carcinoma", "NSCLC NOS")[number % 3],
            "Survival Status": ("Alive", "Dead")[number % 2],
            "Age": 50 + number,
            "Gender": ("Male", "Female")[number % 5 == 0],
        }
        for number, patient in enumerate(ids)
    ]


R01 = [f"R01-{number:03d}" for number in range(1, 25)]


@pytest.fixture
def own(tmp_path):
    """Tables under the names of the page."""
    cases = [f"case{number}" for number in range(16)]
    write(tmp_path / "pyradiomics.csv", pyradiomics_rows(R01, lesions=2))
    write(tmp_path / "clinical.csv", clinical_rows(R01))
    write(tmp_path / "hospital.csv", pyradiomics_rows(cases, seed=3, place="/pacs/{}/ct.nrrd"))
    write(tmp_path / "hospital-clinical.csv", clinical_rows(cases, "patient_id"))
    write(tmp_path / "new.csv", pyradiomics_rows([f"R01-{number}" for number in range(801, 804)], seed=5))
    rng = np.random.default_rng(1)
    embeddings = [
        {"pid": one, **{f"pred_{n}": rng.normal() for n in range(12)}, "scanner": "GE"} for one in R01
    ]
    write(tmp_path / "fmcib.csv", embeddings)
    return tmp_path


def test_the_commands_of_the_page_run(own, monkeypatch, capsys):
    commands = shown_commands(PAGE.read_text(encoding="utf-8"))
    assert len(commands) == 9
    for words in commands:
        short = SHORT if words[0] == "train-egfr" else []
        assert type_command([*words, *short], own, monkeypatch) == 0, f"{words}\n{capsys.readouterr().err}"
    kras = own / "kras"
    for name in ("MODEL_CARD.md", "validation.json"):
        assert "KRAS" in (kras / name).read_text() and "EGFR" not in (kras / name).read_text()
    assert json.loads((own / "egfr" / "validation.json").read_text())["candidates"]["volume"]
    assert "volume" not in json.loads((own / "fmcib" / "validation.json").read_text())["candidates"]
    assert (own / "predictions.csv").read_text().count("R01-80") == 3


def test_the_columns_of_pyradiomics_are_known(own):
    table = read_features(own / "pyradiomics.csv", EgfrSettings())
    assert list(table.features.columns) == [*NAMES, *TEXTURES]
    assert table.features.index.tolist() == R01 and table.volume_column == "original_shape_MeshVolume"
    assert table.notes == (
        "the patient ids are those of the column Image",
        "5 columns left out, each a diagnostic of PyRadiomics by its header: "
        "diagnostics_Versions_PyRadiomics, diagnostics_Configuration_Settings, "
        "diagnostics_Image-original_Spacing, "
        "diagnostics_Image-original_Mean, diagnostics_Mask-original_VoxelNum",
        "2 columns left out, each an id, a path or a label by its header: Mask, Label",
        "6 patients with several lesions: the largest, by original_shape_MeshVolume",
    )


def test_rows_without_a_number_of_the_lesion_are_lesions(tmp_path):
    rows = [{"patient_id": one, **dict.fromkeys(NAMES, n)} for n, one in enumerate("AABC")]
    path = write(tmp_path / "f.csv", [*rows, rows[0]])
    largest = read_features(path, EgfrSettings())
    assert largest.features[NAMES[0]].to_dict() == {"A": 1.0, "B": 2.0, "C": 3.0}
    assert largest.notes[0] == "1 rows that repeat another one left out"
    mean = read_features(path, EgfrSettings(lesion="mean"))
    assert mean.features.loc["A", NAMES[0]] == 0.5
    by_volume = EgfrSettings(volume_column="absent")
    with pytest.raises(TableError, match=r"several rows for 1 patients and no column absent.*--lesion mean"):
        read_features(path, by_volume)


def test_a_path_that_tells_no_patient_asks_for_a_pattern(tmp_path):
    path = write(tmp_path / "f.csv", pyradiomics_rows(["alice", "bob"]))
    with pytest.raises(
        TableError, match=r"Image '/data/alice/CT/image.nrrd' does not tell the patient.*--id-pattern"
    ):
        read_features(path, EgfrSettings())
    found = read_features(path, EgfrSettings(id_pattern="/data/([a-z]+)/"))
    assert found.features.index.tolist() == ["alice", "bob"]


def test_tables_without_a_common_id_say_what_each_has_and_what_would_match(own):
    others = write(own / "others.csv", clinical_rows([one.lower().replace("-", "_") for one in R01]))
    wrong = (
        r"shares no id with others.csv: 24 here \(R01-001, R01-002, R01-003\), "
        r"24 there \(r01_001, r01_002, r01_003\) \(24 would match if R01-001 were r01_001"
    )
    with pytest.raises(TableError, match=wrong):
        read_cohort(own / "pyradiomics.csv", others, QUICK)


def test_more_than_two_classes_are_refused_by_name_and_other_words_need_the_positive_one(own):
    tables = own / "pyradiomics.csv", own / "clinical.csv"
    with pytest.raises(
        TableError, match="statuses Adenocarcinoma, NSCLC NOS, Squamous cell carcinoma of Histology"
    ):
        read_cohort(*tables, EgfrSettings(target="Histology"))
    with pytest.raises(TableError, match=r"Alive, Dead of Survival.*--positive"):
        read_cohort(*tables, EgfrSettings(target="Survival"))
    dead = read_cohort(*tables, EgfrSettings(target="Survival", positive="Dead"))
    assert dead.label_names == ("Alive", "Dead") and dead.labels.sum() == 12
    with pytest.raises(TableError, match=r"has no column of ROS1.*--target-column"):
        read_cohort(*tables, EgfrSettings(target="ROS1"))


def test_a_mapping_of_another_marker_must_name_it(own):
    mapping = own / "mapping.yaml"
    mapping.write_text("columns: {egfr: KRAS mutation status}")
    tables = own / "pyradiomics.csv", own / "clinical.csv"
    with pytest.raises(TableError, match=r"reads 'KRAS mutation status' as EGFR status.*--target"):
        read_cohort(*tables, EgfrSettings(clinical_mapping=mapping))


@pytest.mark.parametrize(
    "header", ["original_glcm_Id", "log-sigma-1-0-mm-3D_firstorder_90Percentile", "Age", "pred_7"]
)
def test_features_are_not_taken_for_something_else(header):
    assert not_a_feature(header) == ""


ORIGINAL = "nsclc_radiogenomics_tables/NSCLCR01Radiogenomic_DATA_LABELS_2018-05-22_1500-shifted.csv"


def test_kras_on_the_original_table_says_kras_everywhere(shared_data, tmp_path):
    settings = QUICK.model_copy(update={"inputs": "clinical", "target": "KRAS"})
    done = train_egfr(None, tmp_path / "kras", shared_data / ORIGINAL, settings)
    assert (done.patients, done.positives) == (171, 38)
    page = report(done.folder, tmp_path / "page.html").read_text(encoding="utf-8")
    files = {path.name: path.read_text() for path in done.folder.glob("*.[jmc]*")}
    assert (
        "KRAS classifier" in page and "KRAS" in files["MODEL_CARD.md"] and "KRAS" in files["validation.json"]
    )
    for name, text in {**files, "page": page}.items():
        assert "EGFR" not in text, name
