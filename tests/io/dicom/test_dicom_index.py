"""A large tree is crawled once: the index is refreshed where files changed, and names nobody."""

import gzip
import os

import pytest
from dicom_phantom import ct_slices, rtstruct, save, square, write_ct

from radiogen.io.dicom import files as dicom_files
from radiogen.io.dicom import files as dicom_index
from radiogen.io.dicom.files import HeaderIndex, find_dicom


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_index, "INDEX_FROM", 1)
    for name in ("MRN-1", "MRN-2"):
        write_ct(tmp_path / "src" / name, patient=name)
        outline = rtstruct({"GTV": [square(1, (2, 2), (4, 4))]}, patient=name)
        save([outline], tmp_path / "src" / name, ["rt.dcm"])
    (tmp_path / "src" / "notes.txt").write_text("x")
    return tmp_path / "src"


def crawl(tree, reads=None, monkeypatch=None):
    if monkeypatch is not None:
        read = dicom_files._read_all  # not the one file a patient that the index reads for the id
        monkeypatch.setattr(dicom_files, "_read_all", lambda paths: reads.extend(paths) or read(paths))
    return find_dicom(tree, index=HeaderIndex(tree.parent / "index.json.gz"))


def test_a_second_crawl_reads_nothing_and_finds_the_same(tree, monkeypatch):
    first = crawl(tree)
    reads = []
    assert crawl(tree, reads, monkeypatch) == first
    assert reads == []
    assert len(first.slices) == 10 and len(first.outlines) == 2


def test_what_was_changed_added_or_removed_is_read_anew(tree, monkeypatch):
    crawl(tree)
    changed = tree / "MRN-1" / "000.ima"
    other = ct_slices(patient="MRN-1")[4]
    other.ConvolutionKernel = "B99"
    save([other], tree / "MRN-1", ["000.ima"])
    (tree / "MRN-1" / "007.ima").unlink()
    save(ct_slices(patient="MRN-3"), tree / "MRN-3")
    reads = []
    tree_now = crawl(tree, reads, monkeypatch)
    assert set(reads) == {changed, *(tree / "MRN-3").iterdir()}
    assert tree_now == find_dicom(tree)
    assert len(HeaderIndex(tree.parent / "index.json.gz")) == 17


def test_the_same_size_at_another_time_is_read_anew(tree, monkeypatch):
    crawl(tree)
    os.utime(tree / "MRN-1" / "000.ima", ns=(1, 1))
    reads = []
    crawl(tree, reads, monkeypatch)
    assert reads == [tree / "MRN-1" / "000.ima"]


def test_the_index_names_no_patient_and_no_path(tree):
    crawl(tree)
    content = gzip.decompress((tree.parent / "index.json.gz").read_bytes())
    for word in (b"MRN", b"Doe", b".ima", str(tree.parent).encode()):
        assert word not in content


@pytest.mark.parametrize(
    "content", [b"", b"hello", gzip.compress(b"[]", mtime=0), gzip.compress(b'{"schema": "0"}', mtime=0)]
)
def test_a_damaged_index_is_made_anew(tree, content):
    first = crawl(tree)
    path = tree.parent / "index.json.gz"
    whole = path.read_bytes()
    path.write_bytes(content)
    assert crawl(tree) == first and path.read_bytes() == whole


def test_a_small_tree_gets_no_index(tree, monkeypatch):
    monkeypatch.setattr(dicom_index, "INDEX_FROM", 100)
    crawl(tree)
    assert not (tree.parent / "index.json.gz").exists()


def test_several_processes_find_what_one_finds(tree, monkeypatch):
    alone = find_dicom(tree)
    monkeypatch.setattr(dicom_files, "PARALLEL_FROM", 1)
    monkeypatch.setattr(dicom_files, "CHUNK", 4)
    monkeypatch.setattr(dicom_files, "cpu_count", lambda: 2)
    seen = []
    assert find_dicom(tree, progress=lambda done, total: seen.append((done, total))) == alone
    assert seen[-1] == (13, 13)


def test_pipes_and_links_to_nowhere_are_not_opened(tmp_path):
    write_ct(tmp_path)
    os.mkfifo(tmp_path / "pipe.dcm")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert len(find_dicom(tmp_path).slices) == 5
