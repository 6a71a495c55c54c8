"""`import radiogen`: the public Python API is one short list, costs nothing, and says what it does."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_overloads

import pytest

import radiogen
from radiogen.model.folder import Model

HEAVY = ("torch", "monai", "pandas", "SimpleITK", "sklearn", "matplotlib", "scipy", "pydantic")


def test_the_face_is_a_short_list_and_each_name_is_offered_for_import():
    assert list(radiogen.__all__) == sorted(radiogen._ROOM_OF)
    assert len(radiogen.__all__) <= 20
    assert set(radiogen.__all__) <= set(dir(radiogen))


def test_importing_radiogen_imports_nothing_heavy():
    code = f"import sys, radiogen; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", radiogen.__all__)
def test_each_name_is_what_its_room_calls_it_and_is_documented(name):
    value = getattr(radiogen, name)
    assert value.__module__ == radiogen._ROOM_OF[name]
    assert value.__name__ == name
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        assert "Args:" in inspect.getdoc(value)


@pytest.mark.parametrize("name", [each for each in radiogen.__all__ if each[0].islower()])
def test_a_function_of_the_face_needs_no_more_than_paths_and_a_loaded_model(name):
    function = getattr(radiogen, name)
    # Where a function takes two kinds of things, such as prune, this is about its first kind.
    form = (get_overloads(function) or [function])[0]
    parameters = inspect.signature(form).parameters.values()
    needed = [each for each in parameters if each.default is each.empty]
    for each in needed:
        takes_text = "str" in str(each.annotation)  # AnyPath and sequences of it are spelled out there
        assert takes_text or each.annotation is Model, f"{each.name}: {each.annotation}"


def test_prune_takes_cases_or_any_network_its_batches_and_a_loss():
    forms = [list(inspect.signature(form).parameters) for form in get_overloads(radiogen.prune)]
    assert [form[:3] for form in forms] == [["cases", "out", "settings"], ["model", "batches", "loss"]]
    described = inspect.getdoc(radiogen.prune)
    assert all(f"    {name}: " in described for form in forms for name in form)


def test_a_wrong_name_is_an_attribute_error_and_no_subpackage_is_shadowed():
    with pytest.raises(AttributeError, match="segmnt"):
        getattr(radiogen, "segmnt")  # noqa: B009 - to a type checker it is an error already
    rooms = {path.name for path in Path(radiogen.__file__).parent.iterdir() if path.is_dir()}
    assert not rooms & set(radiogen.__all__)
