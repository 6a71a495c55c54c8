"""Bags of lesions: each lesion is treated alike, and a model of bags goes from table to prediction."""

import json

import numpy as np
import pandas as pd
import pytest
from egfr.made_tables import ABOUT, QUICK, make_rows, write_rows
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from radiogen.config import check_settings
from radiogen.egfr.classify import classify_egfr
from radiogen.egfr.feature_table import count_instances, spread_out
from radiogen.egfr.preprocessing import PerInstance
from radiogen.egfr.settings import EgfrSettings
from radiogen.egfr.train import train_egfr
from radiogen.errors import ConfigError

BAG = EgfrSettings(
    **{
        **QUICK.model_dump(),
        "classifier": "attention",
        "lesion": "bag",
        "permutations": 0,
        "inner_folds": 2,
        "folds": 2,
    }
)


def test_lesions_stand_side_by_side_the_largest_first():
    rows = pd.DataFrame({"volume": [1.0, 5.0, 2.0], "mean": [10.0, 50.0, 20.0]})
    wide = spread_out(rows, pd.Series(["a", "a", "b"]), rows["volume"])
    assert list(wide.columns) == ["volume@1", "mean@1", "volume@2", "mean@2"]
    assert wide.loc["a"].tolist() == [5, 50, 1, 10]
    assert wide.loc["b", ["volume@1", "mean@1"]].tolist() == [2, 20] and wide.loc["b"].isna().sum() == 2
    assert count_instances(tuple(wide.columns)) == 2 and count_instances(("volume",)) == 1


def test_of_too_many_lesions_the_largest_stay():
    rows = pd.DataFrame({"volume": [1.0, 3.0, 2.0]})
    wide = spread_out(rows, pd.Series(["a"] * 3), rows["volume"], most=2)
    assert wide.loc["a"].tolist() == [3, 2]


def test_every_instance_is_transformed_like_the_same_row_alone():
    rng = np.random.default_rng(0)
    bags = rng.normal(size=(20, 3, 4))
    bags[::2, 2] = np.nan
    inner = make_pipeline(StandardScaler(), PCA(2))
    found = PerInstance(inner, 3).fit(bags.reshape(20, -1)).transform(bags.reshape(20, -1)).reshape(20, 3, 2)
    there = ~np.isnan(bags).all(axis=2)
    alone = inner.fit(bags[there]).transform(bags[there])
    assert found[there] == pytest.approx(alone) and np.isnan(found[~there]).all()


def with_second_lesions(patients=24):
    features, clinical = make_rows(patients)
    more = [{**row, "lesion": 2, "shape_volume_ml": -5.0} for row in features[::4]]
    return [*features, *more], clinical


def test_a_model_of_bags_goes_from_table_to_prediction(tmp_path):
    features, clinical = with_second_lesions()
    (tmp_path / "features.json").write_text(json.dumps(ABOUT))
    table = write_rows(tmp_path / "features.csv", features)
    done = train_egfr(table, tmp_path / "model", write_rows(tmp_path / "clinical.csv", clinical), BAG)
    assert done.auc.value > 0.7 and {"volume", "deep", "radiomics"} <= set(done.validation["candidates"])
    single = tmp_path / "new" / "features.csv"
    single.parent.mkdir()
    (single.parent / "features.json").write_text(json.dumps(ABOUT))
    write_rows(single, [{**row, "patient_id": f"N{i}"} for i, row in enumerate(features[:4])])
    said = classify_egfr(single, tmp_path / "model", tmp_path / "predictions.csv")
    both = classify_egfr(table, tmp_path / "model", tmp_path / "both.csv")
    assert said.predictions["N1"].probability == both.predictions["P01"].probability
    assert said.predictions["N1"].missing == 0


def test_bags_need_the_classifier_that_pools_them():
    with pytest.raises(ConfigError, match="attention"):
        check_settings(EgfrSettings, {"lesion": "bag"}, source="train-egfr")
