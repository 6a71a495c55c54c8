"""Labelled images from files: every pixel in its place, and damage is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radiogen.benchmark.images import read_image_set
from radiogen.errors import VolumeError

IMAGE = np.arange(3072, dtype=np.uint32).astype(np.uint8)  # red rows, then green, then blue


def write_records(path, labels, before=b""):
    path.write_bytes(b"".join(before + bytes([label]) + np.roll(IMAGE, label).tobytes() for label in labels))


@pytest.fixture
def cifar(tmp_path):
    """A CIFAR-10 of six images a file."""
    for name in [*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]:
        write_records(tmp_path / name, [0, 1, 9, 2, 0, 1])
    return tmp_path


@pytest.fixture
def folders(tmp_path):
    """Two classes of four images, one grey and one in colour."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for number in range(4):
            image = Image.new("RGB" if label else "L", (40, 20), (number, 50, 60) if label else number)
            image.save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_cifar_10_is_read_plane_by_plane(cifar):
    found = read_image_set(cifar)
    assert (found.name, len(found.classes)) == ("cifar-10", 10)
    assert found.train.pixels.shape == (30, 3, 32, 32) and found.test.pixels.shape == (6, 3, 32, 32)
    assert found.train.labels[:6].tolist() == [0, 1, 9, 2, 0, 1]
    channel, row, column = 2, 3, 5
    place = channel * 1024 + row * 32 + column
    assert found.train.pixels[2, channel, row, column] == np.roll(IMAGE, 9)[place]


def test_the_names_of_the_classes_are_taken_where_they_are_written(cifar):
    (cifar / "batches.meta.txt").write_text("\n".join(f"name{n}" for n in range(10)) + "\n\n")
    assert read_image_set(cifar).classes[9] == "name9"


def test_cifar_100_takes_the_fine_label(tmp_path):
    for name in ("train.bin", "test.bin"):
        write_records(tmp_path / name, [99, 3], before=b"\x07")
    found = read_image_set(tmp_path)
    assert found.train.labels.tolist() == [99, 3] and len(found.classes) == 100
    assert (found.train.pixels[1].reshape(-1) == np.roll(IMAGE, 3)).all()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            "18437 bytes, which are not whole images of 3073",
        ),
        (lambda path: path.write_bytes(b""), "holds 0 bytes"),
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: write_records(path, [0, 10]), "image 1 has the label 10, and there are 10 classes"),
    ],
    ids=["truncated", "empty", "missing", "wrong label"],
)
def test_a_damaged_cifar_file_is_named(cifar, spoil, said):
    spoil(cifar / "data_batch_4.bin")
    with pytest.raises(VolumeError, match=rf"data_batch_4\.bin: .*{said}"):
        read_image_set(cifar)


def test_class_folders_are_split_every_third_and_resized(folders):
    found = read_image_set(folders, side=16)
    assert found.classes == ("cat", "dog") and found.train.pixels.shape == (6, 3, 16, 16)
    assert found.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and found.test.labels.tolist() == [0, 1]
    assert found.test.pixels[0].max() == 2 and found.test.pixels[1, :, 0, 0].tolist() == [2, 50, 60]


def test_a_split_that_is_there_is_kept(folders):
    for part in ("train", "test"):
        for name, value in (("cat", 10), ("dog", 200)):
            (folders / part / name).mkdir(parents=True)
            Image.new("L", (8, 8), value + (part == "test")).save(folders / part / name / "0.png")
    found = read_image_set(folders, side=8)
    assert found.train.pixels[:, 0, 0, 0].tolist() == [10, 200]
    assert found.test.pixels[:, 0, 0, 0].tolist() == [11, 201]
    (folders / "test" / "mouse").mkdir()
    with pytest.raises(VolumeError, match=r"test: has other class folders than train"):
        read_image_set(folders)


def test_what_is_no_set_of_images_is_refused(folders, tmp_path):
    with pytest.raises(VolumeError, match=r"nowhere: is not a folder of images"):
        read_image_set(tmp_path / "nowhere")
    whole = (folders / "cat" / "1.png").read_bytes()
    (folders / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeError, match=r"1\.png: cannot be read as an image"):
        read_image_set(folders)
    for path in (folders / "cat").iterdir():
        path.unlink()
    with pytest.raises(VolumeError, match=r"cat: holds no image"):
        read_image_set(folders)
    (folders / "cat").rmdir()
    with pytest.raises(VolumeError, match=r"holds 1 class folders, at least 2"):
        read_image_set(folders)


def test_the_digits_come_with_scikit_learn():
    found = read_image_set(Path("digits"))
    assert found.train.pixels.shape == (1201, 1, 8, 8) and len(found.test) == 596
    assert set(found.train.labels) == set(found.test.labels) == set(range(10))
    assert found.train.pixels.max() == 255


def test_a_limit_takes_the_first_of_each_class_and_changes_the_hash(cifar):
    found = read_image_set(cifar)
    few = found.limited(1)
    assert few.train.labels.tolist() == [0, 1, 9, 2] and few.test.labels.tolist() == [0, 1, 9, 2]
    assert found.limited(None) is found
    assert few.hash() != found.hash() == read_image_set(cifar).hash()


@pytest.fixture
def tiny_imagenet(tmp_path):
    """Two classes as Tiny-ImageNet is distributed, grey and coloured; validation images named in a file."""
    for label, name in enumerate(("n01443537", "n01629819")):
        (tmp_path / "train" / name / "images").mkdir(parents=True)
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("n01443537_0.JPEG\t0\t10\t63\t58\n")
        for number in range(3):
            image = Image.new("RGB" if label else "L", (64, 64), (200, 0, 0) if label else 90)
            image.save(tmp_path / "train" / name / "images" / f"{name}_{number}.JPEG")
    (tmp_path / "val" / "images").mkdir(parents=True)
    (tmp_path / "test" / "images").mkdir(parents=True)
    for number, colour in enumerate(((200, 0, 0), (90, 90, 90))):
        Image.new("RGB", (64, 64), colour).save(tmp_path / "val" / "images" / f"val_{number}.JPEG")
    lines = ["val_0.JPEG\tn01629819\t0\t32\t44\t62", "val_1.JPEG\tn01443537\t52\t55\t57\t59"]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_tiny_imagenet_is_read_as_it_is_distributed(tiny_imagenet):
    found = read_image_set(tiny_imagenet, side=64)
    assert found.classes == ("n01443537", "n01629819")
    assert found.train.pixels.shape == (6, 3, 64, 64) and found.test.labels.tolist() == [1, 0]
    reds = found.test.pixels[:, 0].mean(axis=(1, 2))
    assert reds == pytest.approx([200, 90], abs=3)
    assert found.train.pixels[3:, 0].mean() == pytest.approx(200, abs=3)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("val_0.JPEG\tn9\t0\t0\t1\t1", "class 'n9'"),
        ("", "names no image"),
        ("val_7.JPEG\tn01443537", "val_7"),
    ],
)
def test_damaged_annotations_are_named(tiny_imagenet, text, wrong):
    (tiny_imagenet / "val" / "val_annotations.txt").write_text(text)
    with pytest.raises(VolumeError, match=wrong):
        read_image_set(tiny_imagenet)
