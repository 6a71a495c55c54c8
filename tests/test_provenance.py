import json
import os
import stat
from pathlib import Path

import pytest

from radiogen import __version__
from radiogen.errors import OutputError
from radiogen.provenance import (
    RunRecord,
    clear_drafts,
    file_sha256,
    is_done,
    record_path,
    short_hash,
    whole_file,
    write_json,
    write_text,
)

OPTIONS = {"prompt": "auto", "where": Path("out"), "sizes": (1, 2)}


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "in" / "scan.nii.gz"
    write_text(path, "voxels")
    return path


@pytest.fixture
def result(tmp_path, scan):
    """A finished result with its record."""
    record = RunRecord("segment", OPTIONS, seed=7, inputs=[scan], model_hash="abc")
    path = tmp_path / "out" / "lesion.nii.gz"
    write_text(path, "mask")
    write_text(path.with_name("lesions.csv"), "lesion\n")
    record.finish(path, [path, path.with_name("lesions.csv")])
    return path


def test_a_file_is_there_whole_with_its_folder(tmp_path):
    target = tmp_path / "deep" / "down" / "table.csv"
    write_text(target, "a,b\n")
    assert target.read_text() == "a,b\n"
    assert [path.name for path in target.parent.iterdir()] == ["table.csv"]


def test_a_draft_lies_beside_its_target_and_ends_like_it(tmp_path):
    with whole_file(tmp_path / "scan.nii.gz") as draft:
        assert draft.parent == tmp_path
        assert draft.name.endswith(".nii.gz")
        assert not (tmp_path / "scan.nii.gz").exists()


def test_an_error_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "table.csv") as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_the_old_file_as_it_was(tmp_path):
    target = tmp_path / "table.csv"
    write_text(target, "old")
    with pytest.raises(KeyboardInterrupt), whole_file(target) as draft:
        draft.write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert target.read_text() == "old"


def test_what_killed_processes_were_writing_is_cleared_away_and_nothing_else(tmp_path):
    left, kept = (".writing-ab12.json", ".tmpbOSVGH"), (".tmp", ".tmpfolder.json", "mask.safetensors")
    for name in (*left, *kept):
        (tmp_path / name).touch()
    clear_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="No space left"), whole_file(tmp_path / "table.csv"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    write_text(tmp_path / "file", "")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "file" / "table.csv", "a")


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_file_may_be_read_as_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "table.csv", "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "table.csv").stat().st_mode) == 0o640


def test_json_ends_with_a_newline_and_keeps_its_order(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": Path("x")})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1,\n  "a": "x"\n}\n'


def test_the_hash_of_a_file_is_sha256_of_its_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert file_sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert short_hash("abc") == "ba7816bf8f01"


def test_the_record_of_a_folder_lies_in_it_under_its_name(tmp_path):
    assert record_path(tmp_path / "case.json").name == "case.run.json"
    assert record_path(tmp_path) == tmp_path / f"{tmp_path.name}.run.json"


def test_a_record_says_what_made_the_result_and_no_place_of_the_machine(result, scan, tmp_path):
    text = record_path(result).read_text()
    record = json.loads(text)
    assert record["radiogen"] == __version__
    assert (record["verb"], record["seed"], record["model_hash"]) == ("segment", 7, "abc")
    assert record["inputs"] == {"scan.nii.gz": file_sha256(scan)}
    assert record["outputs"]["lesion.nii.gz"] == file_sha256(result)
    assert record["note"] == "not for clinical use"
    assert str(tmp_path) not in text


def test_a_result_with_its_record_is_done(result, scan):
    assert is_done(result, OPTIONS, [scan], "abc")


def test_a_folder_with_its_record_is_done_until_a_file_in_it_changes(tmp_path):
    folder = tmp_path / "model"
    write_text(folder / "weights", "1")
    RunRecord("train", {}).finish(folder, [folder / "weights"])
    assert is_done(folder, {}, [], None)
    write_text(folder / "weights", "2")
    assert not is_done(folder, {}, [], None)


@pytest.mark.parametrize(
    "change",
    [
        {"options": OPTIONS | {"prompt": "oracle"}},
        {"options": OPTIONS | {"new": 1}},
        {"options": {}},
        {"inputs": []},
        {"model_hash": "abd"},
        {"model_hash": None},
    ],
)
def test_a_result_of_other_options_inputs_or_model_is_not_done(result, scan, change):
    call = {"options": OPTIONS, "inputs": [scan], "model_hash": "abc"} | change
    assert not is_done(result, **call)


def test_a_changed_or_lost_input_makes_a_result_undone(result, scan):
    write_text(scan, "other voxels")
    assert not is_done(result, OPTIONS, [scan], "abc")
    scan.unlink()
    assert not is_done(result, OPTIONS, [scan], "abc")


@pytest.mark.parametrize("name", ["lesion.nii.gz", "lesions.csv"])
def test_a_changed_or_lost_output_makes_a_result_undone(result, scan, name):
    write_text(result.with_name(name), "tampered")
    assert not is_done(result, OPTIONS, [scan], "abc")
    result.with_name(name).unlink()
    assert not is_done(result, OPTIONS, [scan], "abc")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"outputs": 3}', "\x00"])
def test_a_result_without_a_sound_record_is_not_done(result, scan, content):
    record_path(result).write_text(content)
    assert not is_done(result, OPTIONS, [scan], "abc")
    record_path(result).unlink()
    assert not is_done(result, OPTIONS, [scan], "abc")
