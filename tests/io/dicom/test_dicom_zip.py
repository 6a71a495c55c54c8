"""A zip of DICOM is read within limits; what cannot be is refused, and nothing stays behind."""

import zipfile

import numpy as np
import pytest
from dicom_phantom import box_hu, ct_slices, files_in, rtstruct, save, square, write_ct

from radiogen.errors import OutputError, RadiogenError, SeriesError
from radiogen.ingestion.ingest import ingest
from radiogen.ingestion.listing import list_sources
from radiogen.ingestion.options import IngestOptions
from radiogen.io.cases import find_cases
from radiogen.io.dicom import zip as dicom_zip
from radiogen.io.dicom.zip import unpacked
from radiogen.volume import array_of


def archive(path, files, names=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for n, file in enumerate(files):
            out.write(file, names[n] if names else f"Doe Jane/{file.parent.name}/{file.name}")
    return path


def scan(folder):
    write_ct(folder / "ct")
    save([rtstruct({"GTV-1": [square(2, (3, 2), (7, 5))]})], folder / "rt", ["1.dcm"])
    (folder / "README.txt").write_text("hello")
    return archive(folder.parent / "scan.zip", [path for path in files_in(folder) if path.is_file()])


def test_a_zip_becomes_the_same_case_as_its_folder(tmp_path):
    path = scan(tmp_path / "src")
    report = ingest(path, tmp_path / "a")
    ingest(tmp_path / "src", tmp_path / "b")
    (one,), (other,) = find_cases(tmp_path / "a"), find_cases(tmp_path / "b")
    assert one.case_id == other.case_id and report.cases[0].where == path
    assert np.array_equal(array_of(one.ct()), box_hu())
    assert np.array_equal(array_of(one.lesion()), array_of(other.lesion()))
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted([one.case_id, "manifest.csv"])


def test_members_get_names_of_our_own_wherever_theirs_point(tmp_path):
    paths = write_ct(tmp_path / "src")
    path = archive(tmp_path / "x.zip", paths, [f"../../{'a' * 200}/{n}" for n in range(5)])
    with unpacked(path, tmp_path / "out") as folder:
        assert {p.name for p in files_in(folder) if p.is_file()} == {f"member-{n:06d}" for n in range(1, 6)}
        assert all(tmp_path / "out" in p.parents for p in files_in(folder))
    assert not (tmp_path / "out").exists()


def encrypted(path, paths):
    archive(path, paths)
    content = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(sign)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(sign, at + 1)
    path.write_bytes(content)


def damaged(path, paths):
    archive(path, paths)
    content = bytearray(path.read_bytes())
    content[120:160] = bytes(40)
    path.write_bytes(content)


def without_ct(path, paths):
    archive(path, paths)
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a.txt", "hello")


def torn_slice(path, paths):
    paths[1].write_bytes(paths[1].read_bytes()[:-40])
    archive(path, paths)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (encrypted, "scan.zip: is encrypted"),
        (damaged, "scan.zip: cannot be unpacked"),
        (without_ct, "scan.zip: holds no CT"),
        (torn_slice, "scan.zip: member-000002: is truncated"),
    ],
)
def test_a_zip_that_cannot_be_used_is_one_line_and_leaves_nothing(tmp_path, make, says):
    make(tmp_path / "scan.zip", write_ct(tmp_path / "src"))
    with pytest.raises(RadiogenError) as caught:
        ingest(tmp_path / "scan.zip", tmp_path / "deep" / "cases")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(("name", "value"), [("MOST_MEMBERS", 4), ("MOST_BYTES", 2000)])
def test_a_zip_beyond_the_limits_is_refused(tmp_path, monkeypatch, name, value):
    monkeypatch.setattr(dicom_zip, name, value)
    path = archive(tmp_path / "scan.zip", write_ct(tmp_path / "src"))
    with pytest.raises(SeriesError, match=r"at most 4|unpacks to more"):
        ingest(path, tmp_path / "cases")
    assert not (tmp_path / "cases").exists()


def test_a_member_that_lies_about_its_size_is_stopped_at_the_limit(tmp_path, monkeypatch):
    big = ct_slices(np.full((2, 512, 512), 40))
    path = archive(tmp_path / "bomb.zip", save(big, tmp_path / "src"))
    monkeypatch.setattr(dicom_zip, "MOST_BYTES", 100_000)
    monkeypatch.setattr(dicom_zip, "_BLOCK", 4096)
    with pytest.raises(SeriesError, match="unpacks to more"), unpacked(path, tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()


def test_a_zip_is_listed_without_a_trace(tmp_path):
    path = scan(tmp_path / "src")
    before = files_in(tmp_path)
    (one,) = list_sources(path, IngestOptions()).candidates
    assert one.taken and one.outline == "rtstruct" and one.folder == path and files_in(tmp_path) == before


def test_a_zip_that_cannot_be_unpacked_anywhere_is_one_line(tmp_path):
    path = scan(tmp_path / "src")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        ingest(path, tmp_path / "file" / "cases")


def test_a_folder_and_a_volume_file_are_given_back_as_they_are(tmp_path):
    for path in (tmp_path, tmp_path / "x.nii"):
        path.touch()
        with unpacked(path, tmp_path / "out") as same:
            assert same == path
