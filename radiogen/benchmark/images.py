"""Read labelled images from local files: CIFAR in its binary version, class folders, or the digits."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from radiogen.errors import VolumeError

DIGITS = "digits"
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
CIFAR_SIDE, CIFAR_PIXELS = 32, 3 * 32 * 32
TEST_SHARE = 3  # one image in three is for testing where a set has no split
ANNOTATIONS = "val_annotations.txt"
HINT = "give a folder of class folders, CIFAR in its binary version, or the word digits"


@dataclass(frozen=True)
class LabelledImages:
    """Images and their classes."""

    pixels: npt.NDArray[np.uint8]  # (N, C, H, W)
    labels: npt.NDArray[np.int64]  # (N,), from 0

    def __len__(self) -> int:
        return len(self.labels)

    def first_of_each(self, count: int) -> "LabelledImages":
        """Return at most this many images of each class, the first ones, in their order."""
        places = [np.flatnonzero(self.labels == label)[:count] for label in np.unique(self.labels)]
        chosen = np.sort(np.concatenate(places))
        return LabelledImages(self.pixels[chosen], self.labels[chosen])

    def without(self, share: float) -> "LabelledImages":
        """Leave out the last images of each class, this share of them."""
        if share == 0:
            return self
        own = [np.flatnonzero(self.labels == label) for label in np.unique(self.labels)]
        chosen = np.sort(
            np.concatenate([places[: len(places) - round(share * len(places))] for places in own])
        )
        return LabelledImages(self.pixels[chosen], self.labels[chosen])


@dataclass(frozen=True)
class ImageSet:
    """A set for training and testing a classifier."""

    name: str  # digits, cifar-10, cifar-100 or folder
    classes: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages

    def limited(self, count: int | None) -> "ImageSet":
        """Return at most this many images of each class, for training and for testing each."""
        if count is None:
            return self
        return replace(self, train=self.train.first_of_each(count), test=self.test.first_of_each(count))

    def hash(self) -> str:
        """Return twelve hexadecimal digits that stand for every pixel and label."""
        digest = hashlib.sha256()
        for images in (self.train, self.test):
            # The shape too: the same bytes may be 1 x 4 or 2 x 2 pixels.
            digest.update(repr(images.pixels.shape).encode())
            digest.update(images.pixels.tobytes() + images.labels.tobytes())
        return digest.hexdigest()[:12]


def read_image_set(source: Path, side: int = 32) -> ImageSet:
    """Read labelled images.

    Args:
        source: The word `digits` (8 x 8 pixels, comes with scikit-learn); a folder with data_batch_1.bin or
            train.bin (CIFAR-10 or CIFAR-100, binary version); or a folder of class folders with images, with
            `train` and `test` above them if the set is split already; or Tiny-ImageNet as distributed, whose
            validation images are for testing, for its test images have no labels. Without a split, every
            third image of a class, by name, is for testing.
        side: Pixels a side that the images of class folders are resized to.

    Raises:
        VolumeError: There is no such set, or a file of it is damaged; the file is named.
    """
    if source.as_posix() == DIGITS:
        return _read_digits()
    if not source.is_dir():
        raise VolumeError(source, "is not a folder of images", HINT)
    if (source / "data_batch_1.bin").is_file():
        batches = [source / f"data_batch_{number}.bin" for number in range(1, 6)]
        return _read_cifar("cifar-10", source, batches, source / "test_batch.bin", 10, "batches.meta.txt")
    if (source / "train.bin").is_file():
        names = "fine_label_names.txt"
        return _read_cifar("cifar-100", source, [source / "train.bin"], source / "test.bin", 100, names)
    return _read_class_folders(source, side)


def _read_digits() -> ImageSet:
    from sklearn.datasets import load_digits

    found = load_digits()
    # Grey values are 0 to 16 there.
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)[:, None]
    images = LabelledImages(pixels, found.target.astype(np.int64))
    return _split_every_third(DIGITS, tuple(str(digit) for digit in range(10)), images)


def _read_cifar(
    name: str, folder: Path, train: list[Path], test: Path, classes: int, names_file: str
) -> ImageSet:
    parts = [_read_records(path, classes) for path in train]
    joined = LabelledImages(
        np.concatenate([part.pixels for part in parts]), np.concatenate([part.labels for part in parts])
    )
    names = tuple(str(label) for label in range(classes))
    if (folder / names_file).is_file():
        text = (folder / names_file).read_text(encoding="utf-8", errors="replace")
        written = tuple(line.strip() for line in text.splitlines() if line.strip())
        names = written if len(written) == classes else names
    return ImageSet(name, names, joined, _read_records(test, classes))


def _read_records(path: Path, classes: int) -> LabelledImages:
    """Read records of one label byte (CIFAR-100: a coarse one before it) and 3 planes of 32 x 32 pixels."""
    label_bytes = 1 if classes == 10 else 2
    size = label_bytes + CIFAR_PIXELS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise VolumeError(path, f"cannot be read: {error.strerror}", "unpack the archive again") from error
    # A download that broke off is the usual case: half an image at the end.
    if not content or len(content) % size:
        wrong = f"holds {len(content)} bytes, which are not whole images of {size} bytes"
        raise VolumeError(path, wrong, "unpack the archive again")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels = records[:, label_bytes - 1].astype(np.int64)
    if labels.max() >= classes:
        place = int(np.argmax(labels >= classes))
        wrong = f"image {place} has the label {labels[place]}, and there are {classes} classes"
        raise VolumeError(path, wrong, "unpack the archive again")
    pixels = records[:, label_bytes:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
    return LabelledImages(np.ascontiguousarray(pixels), labels)


def _read_class_folders(source: Path, side: int) -> ImageSet:
    train, test = source / "train", source / "test"
    if (source / "val" / ANNOTATIONS).is_file():
        names = _class_names(train)
        held = _read_annotated(source / "val", names, side)
        return ImageSet("folder", names, _read_folder(train, names, side), held)
    if train.is_dir() and test.is_dir():
        names = _class_names(train)
        if _class_names(test) != names:
            raise VolumeError(test, f"has other class folders than {train.name}", "name them alike")
        return ImageSet("folder", names, _read_folder(train, names, side), _read_folder(test, names, side))
    names = _class_names(source)
    return _split_every_third("folder", names, _read_folder(source, names, side))


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."))
    if len(names) < 2:
        raise VolumeError(folder, f"holds {len(names)} class folders, at least 2 are needed", HINT)
    return names


def _read_folder(folder: Path, names: tuple[str, ...], side: int) -> LabelledImages:
    pixels, labels = [], []
    for label, name in enumerate(names):
        # By name, not by the order of the folder: the split and the hash are the same on every machine.
        place = folder / name / "images" if (folder / name / "images").is_dir() else folder / name
        paths = [p for p in sorted(place.iterdir()) if p.suffix.lower() in IMAGE_ENDINGS]
        if not paths:
            raise VolumeError(place, "holds no image", f"put {', '.join(IMAGE_ENDINGS)} files there")
        pixels += [_read_image(path, side) for path in paths]
        labels += [label] * len(paths)
    return LabelledImages(np.stack(pixels), np.array(labels, np.int64))


def _read_annotated(folder: Path, names: tuple[str, ...], side: int) -> LabelledImages:
    """Read the validation images of Tiny-ImageNet: a file of lines `image, class, box`, parted by tabs."""
    path = folder / ANNOTATIONS
    pixels, labels = [], []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        file, _, rest = line.partition("\t")
        name = rest.split("\t")[0]
        if name not in names:
            wrong = f"gives {file!r} the class {name!r}, which is no folder of train"
            raise VolumeError(path, wrong, "unpack the archive again")
        pixels.append(_read_image(folder / "images" / Path(file).name, side))
        labels.append(names.index(name))
    if not pixels:
        raise VolumeError(path, "names no image", "unpack the archive again")
    return LabelledImages(np.stack(pixels), np.array(labels, np.int64))


def _read_image(path: Path, side: int) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            # Grey pictures too get three channels: a set may mix both.
            small = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VolumeError(path, f"cannot be read as an image: {error}", "replace or remove it") from error
    return np.ascontiguousarray(np.asarray(small, np.uint8).transpose(2, 0, 1))


def _split_every_third(name: str, classes: tuple[str, ...], images: LabelledImages) -> ImageSet:
    """Take every third image of each class for testing, so that each class is on both sides."""
    is_test = np.zeros(len(images), bool)
    for label, class_name in enumerate(classes):
        own = np.flatnonzero(images.labels == label)
        if len(own) < TEST_SHARE:
            wrong = f"has {len(own)} images, too few to split"
            raise VolumeError(
                f"class {class_name}", wrong, f"give at least {TEST_SHARE}, or train and test folders"
            )
        is_test[own[TEST_SHARE - 1 :: TEST_SHARE]] = True
    parts = [LabelledImages(images.pixels[chosen], images.labels[chosen]) for chosen in (~is_test, is_test)]
    return ImageSet(name, classes, parts[0], parts[1])
