"""The feature table: what it holds, how it goes on after a kill, and what is said of cases that failed."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from radiogen.egfr.feature_table import read_features
from radiogen.egfr.settings import EgfrSettings
from radiogen.errors import OutputError
from radiogen.features import extract
from radiogen.features.case import measure_case
from radiogen.features.extract import extract_features
from radiogen.features.settings import FeatureOptions
from radiogen.io.cases import find_cases
from radiogen.io.nifti import read_mask, write_volume
from radiogen.provenance import record_path, write_json
from radiogen.volume import array_of, volume_like


class Killed(BaseException):
    """What no handler of errors catches."""


@pytest.fixture
def cases(made_cases, tmp_path):
    return shutil.copytree(made_cases, tmp_path / "cases")


def run(cases, out, model, **options):
    return extract_features(cases, out, model, FeatureOptions(**options))


def count_measured(monkeypatch, die_after=99):
    seen = []

    def counted(case, *rest):
        if len(seen) == die_after:
            raise Killed
        seen.append(case.case_id)
        return measure_case(case, *rest)

    monkeypatch.setattr(extract, "measure_case", counted)
    return seen


def test_a_crop_has_no_features_of_lungs_that_it_does_not_show(cases, tmp_path, tiny_model):
    run(cases, tmp_path / "chests.csv", tiny_model)
    crop = find_cases(cases)[0]
    write_json(crop.folder / "case.json", {**crop.about(), "crop": True})
    run(cases, tmp_path / "crop.csv", tiny_model)
    chests, mixed = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("chests", "crop"))
    assert list(mixed.columns) == list(chests.columns)
    changed = {name for name in mixed if not mixed[name].equals(chests[name])}
    of_lungs = {"shape_distance_to_pleura_mm", "shape_is_right", "intensity_lungs_laa950"}
    assert changed == of_lungs | {name for name in mixed if name.startswith("outside_")}
    is_crop = mixed["case_id"].eq(crop.case_id)
    assert is_crop.any() and mixed.loc[is_crop, sorted(changed)].isna().all(axis=None)
    pd.testing.assert_frame_equal(mixed.loc[~is_crop], chests.loc[~is_crop], check_dtype=False)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(cases, tmp_path, tiny_model, monkeypatch):
    run(cases, tmp_path / "one" / "f.csv", tiny_model)
    seen = count_measured(monkeypatch, die_after=2)
    with pytest.raises(Killed):
        run(cases, tmp_path / "two" / "f.csv", tiny_model)
    assert not (tmp_path / "two" / "f.csv").exists()
    seen = count_measured(monkeypatch)
    run(cases, tmp_path / "two" / "f.csv", tiny_model)
    assert len(seen) == 2
    for name in ("f.csv", "f.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert not list((tmp_path / "two").glob(".*"))


def test_what_is_done_is_not_done_again_but_anew_with_other_options(cases, tmp_path, tiny_model, monkeypatch):
    out = tmp_path / "f.csv"
    first = run(cases, out, tiny_model)
    seen = count_measured(monkeypatch)
    again = run(cases, out, tiny_model)
    assert not seen and again.columns == first.columns and len(again.rows) == len(first.rows)
    with pytest.raises(OutputError, match="is there already"):
        run(cases, out, tiny_model, existing="fail")
    run(cases, out, tiny_model, existing="overwrite")
    assert len(seen) == 4
    run(cases, out, tiny_model, lungs=True)
    assert len(seen) == 8 and "deep_lungs_decoder2_mean_000" in pd.read_csv(out).columns


def test_a_failed_case_is_listed_never_zero_and_only_it_is_done_again(
    cases, tmp_path, tiny_model, monkeypatch
):
    out, broken = tmp_path / "f.csv", find_cases(cases)[1]
    kept = broken.lesion_path.read_bytes()
    write_volume(read_mask(broken.lesion_path) * 0, broken.lesion_path)
    table = run(cases, out, tiny_model)
    assert [case_id for case_id, *_ in table.failures] == [broken.case_id]
    assert broken.case_id not in set(pd.read_csv(out)["case_id"])
    failures = pd.read_csv(tmp_path / "f.failures.csv")
    assert failures["case_id"].tolist() == [broken.case_id] and "no lesion" in failures["reason"][0]
    broken.lesion_path.write_bytes(kept)
    seen = count_measured(monkeypatch)
    assert not run(cases, out, tiny_model).failures
    assert seen == [broken.case_id] and not (tmp_path / "f.failures.csv").exists()


def test_parquet_and_csv_hold_the_same(cases, tmp_path, tiny_model):
    pytest.importorskip("pyarrow")
    run(cases, tmp_path / "f.csv", tiny_model)
    run(cases, tmp_path / "g.parquet", tiny_model)
    one = read_features(tmp_path / "f.csv", EgfrSettings())
    two = read_features(tmp_path / "g.parquet", EgfrSettings())
    assert one.features.columns.tolist() == two.features.columns.tolist()
    assert np.allclose(one.features, two.features, rtol=1e-6, equal_nan=True)
    assert pd.read_parquet(tmp_path / "g.parquet")["deep_decoder2_mean_000"].dtype == np.float64
    with pytest.raises(OutputError, match=r"\.csv nor in \.parquet"):
        run(cases, tmp_path / "f.xlsx", tiny_model)


def test_a_lesion_of_one_voxel_beside_another_has_its_row(cases, tmp_path, tiny_model):
    case = find_cases(cases)[0]
    mask = read_mask(case.lesion_path)
    array = array_of(mask)
    array[array > 0] = 1
    z, y, x = np.argwhere(array)[0]
    array[z, y, x] = 2
    write_volume(volume_like(array, mask), case.lesion_path)
    rows = run(case.folder, tmp_path / "f.csv", tiny_model).rows
    assert [row["lesion"] for row in rows] == [1, 2]
    deep = [value for name, value in rows[1].items() if name.startswith("deep_")]
    assert np.isfinite(deep).all() and any(deep)


def test_perturbed_masks_give_repeats_and_an_icc(cases, tmp_path, tiny_model):
    table = run(cases, tmp_path / "f.csv", tiny_model, perturb=2)
    repeats = pd.read_csv(tmp_path / "f.perturbed.csv")
    outlines = repeats[repeats["repeat"] == 0]
    assert len(repeats) == 3 * len(table.rows)
    assert np.allclose(outlines["shape_volume_ml"], pd.read_csv(tmp_path / "f.csv")["shape_volume_ml"])
    stability = pd.read_csv(tmp_path / "f.stability.csv").set_index("feature")
    assert stability["icc"].max() <= 1 and table.stable == (stability["icc"] >= 0.75).sum()
    assert not any(name.startswith("outside") for name in stability.index)
    plain = run(cases, tmp_path / "g.csv", tiny_model)
    assert pd.read_csv(tmp_path / "g.csv").equals(pd.read_csv(tmp_path / "f.csv")) and plain.stable is None


def test_radiomics_stands_beside_with_its_settings(cases, tmp_path, tiny_model):
    pytest.importorskip("radiomics")
    case = find_cases(cases)[0]
    run(case.folder, tmp_path / "f.csv", tiny_model, radiomics=True)
    assert "original_firstorder_Mean" in pd.read_csv(tmp_path / "f.csv").columns
    about = json.loads((tmp_path / "f.json").read_text())["extractor"]
    assert about["radiomics"]["settings"]["binWidth"] == 25
    options = FeatureOptions.like(about, outside=False)
    assert options.radiomics and options.extractor() == FeatureOptions().extractor()


def test_the_options_of_a_table_come_back_from_its_json(cases, tmp_path, tiny_model):
    run(cases, tmp_path / "f.csv", tiny_model, ring_mm=(2, 10), levels=("encoder3",), outside=False)
    about = json.loads((tmp_path / "f.json").read_text())["extractor"]
    assert FeatureOptions.like(about).ring_mm == (2, 10)
    assert FeatureOptions.like(about).levels == ("encoder3",)
    record = json.loads(record_path(tmp_path / "f.csv").read_text())
    assert record["options"]["ring_mm"] == [2, 10] and set(record["outputs"]) == {"f.csv", "f.json"}


def test_patches_of_a_lesion_are_a_bag_for_the_classifier(cases, tmp_path, tiny_model):
    run(cases, tmp_path / "f.csv", tiny_model, patches=3)
    patches = pd.read_csv(tmp_path / "f.patches.csv")
    lesions = pd.read_csv(tmp_path / "f.csv")
    assert set(patches.groupby(["case_id", "lesion"])["patch"].max()) <= {1, 2, 3}
    assert patches["shape_volume_ml"].sum() == pytest.approx(lesions["shape_volume_ml"].sum(), rel=1e-5)
    assert not any("patch" in name for name in lesions.columns)
    one = patches[patches["case_id"] == lesions["case_id"][0]]
    highest = "deep_decoder2_max_000"
    assert one[one["lesion"] == 1][highest].max() == pytest.approx(lesions[highest][0], rel=1e-5)
    bag = read_features(tmp_path / "f.patches.csv", EgfrSettings(lesion="bag", classifier="attention"))
    assert f"{highest}@1" in bag.features.columns and len(bag.features) == lesions["patient_id"].nunique()
