import pytest
from pydantic import ValidationError

from radiogen.config import Settings, check_settings, load_settings, merge, read_yaml
from radiogen.errors import ConfigError


class Window(Settings):
    low_hu: float = -200.0
    high_hu: float = 250.0


class Plan(Settings):
    window: Window = Window()
    rounds: int = 1


def test_a_setting_does_not_change_once_made():
    with pytest.raises(ValidationError):
        Plan().rounds = 2


def test_without_anything_the_defaults_hold():
    assert load_settings(Plan) == Plan()


def test_the_file_wins_over_the_defaults_and_a_pair_wins_over_the_file(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text("rounds: 3\nwindow:\n  low_hu: -1000\n")
    plan = load_settings(Plan, {"rounds": 2, "window": {"high_hu": 400}}, file, ["window.low_hu=-900"])
    assert plan == Plan(rounds=3, window=Window(low_hu=-900, high_hu=400))


def test_an_empty_file_changes_nothing(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text("# nothing yet\n")
    assert load_settings(Plan, file=file) == Plan()


def test_an_unknown_key_is_named_beside_the_known_ones(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text("round: 3\n")
    with pytest.raises(ConfigError, match=r"plan\.yaml: round: .*window, rounds") as caught:
        load_settings(Plan, file=file)
    assert "\n" not in str(caught.value)


def test_an_unknown_key_inside_nested_settings_is_named_by_its_whole_way():
    with pytest.raises(ConfigError, match=r"window\.low"):
        load_settings(Plan, overrides=["window.low=3"])


def test_a_value_of_the_wrong_kind_is_refused():
    with pytest.raises(ConfigError, match="rounds"):
        check_settings(Plan, {"rounds": "many"}, source="plan")


@pytest.mark.parametrize("pair", ["rounds", "=3", "rounds=[1", ""])
def test_a_pair_that_is_none_is_refused_in_one_line(pair):
    with pytest.raises(ConfigError, match="--set") as caught:
        load_settings(Plan, overrides=[pair])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"- a\n- b\n", b"a: [1\n", b"\xff\xfe\x00", b"!!python/object:os.system {}\n"]
)
def test_a_file_that_holds_no_plain_settings_is_refused_in_one_line(tmp_path, content):
    file = tmp_path / "plan.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"plan\.yaml") as caught:
        read_yaml(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="absent"):
        read_yaml(tmp_path / "absent.yaml")


def test_merging_leaves_both_dictionaries_as_they_were():
    base, over = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(base, over) == {"a": {"b": 1, "c": 2}}
    assert (base, over) == ({"a": {"b": 1}}, {"a": {"c": 2}})
