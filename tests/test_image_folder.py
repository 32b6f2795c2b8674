"""Reading class-per-folder directories: what is accepted, and every refusal with its reason."""

import os

import numpy as np
import pytest
from PIL import Image

from mnist_keras.image_folder import (
    ImageFolderError,
    escaped,
    find_classes,
    read_data_folder,
    read_image_folder,
    resize,
)
from mnist_keras.images import DataError


@pytest.mark.parametrize(("color_mode", "channels"), [("grayscale", 1), ("rgb", 3), ("rgba", 4)])
def test_grey_png_is_read_as_it_is(image_folder, digit_images, color_mode, channels):
    """The values of a plain PNG arrive unchanged, in the channels asked for."""
    images = read_image_folder(image_folder, color_mode)

    assert images.images.dtype == np.uint8
    assert images.images.shape == (30, 28, 28, channels)
    np.testing.assert_array_equal(images.images[..., 0], digit_images[0])
    np.testing.assert_array_equal(images.labels, digit_images[1])
    assert images.class_names == tuple("0123456789")
    assert images.file_paths[4] == str(image_folder / "1" / "004.png")


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def two_classes(tmp_path):
    """A folder of two classes with one grey image each."""
    for name in ("a", "b"):
        save(Image.new("L", (28, 28), 7), tmp_path / "two" / name / "plain.png")
    return tmp_path / "two"


GREY = np.linspace(0, 255, 784).astype(np.uint8).reshape(28, 28)


def rgba(alpha):
    image = Image.fromarray(GREY).convert("RGBA")
    image.putalpha(alpha)
    return image


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (Image.fromarray(GREY), "upper.PNG", GREY),
        (Image.fromarray(GREY), "bitmap.bmp", GREY),
        (Image.fromarray(GREY), "still.gif", GREY),
        (Image.fromarray(GREY).convert("RGB"), "rgb.png", GREY),
        (Image.fromarray(GREY).convert("P"), "palette.png", GREY),
        (rgba(255), "opaque.png", GREY),
        (Image.fromarray(GREY.astype(np.uint16) * 257), "deep.png", GREY),
        (Image.fromarray(GREY > 127), "bits.png", np.where(GREY > 127, 255, 0)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_conversions_that_keep_the_meaning(two_classes, image, name, expected):
    """Other encodings of the same grey picture give the same grey values."""
    save(image, two_classes / "a" / name)
    images = read_image_folder(two_classes, "grayscale")
    found = images.images[[name in path for path in images.file_paths].index(True)]
    np.testing.assert_array_equal(found[..., 0], expected)


def test_content_decides_not_the_extension(two_classes):
    """A JPEG called .png is read as a JPEG, the same as under its own name."""
    save(Image.fromarray(GREY), two_classes / "a" / "x.png", format="JPEG", quality=100)
    save(Image.fromarray(GREY), two_classes / "b" / "y.jpg", quality=100)
    images = read_image_folder(two_classes)
    by_name = {
        os.path.basename(p): i for p, i in zip(images.file_paths, images.images, strict=True)
    }
    np.testing.assert_array_equal(by_name["x.png"], by_name["y.jpg"])


def png_bytes(path):
    Image.fromarray(GREY).save(path)
    return path.read_bytes()


def damage(folder):
    """Put ten files that cannot be used into class a, and return their reasons by name."""
    whole = png_bytes(folder / "a" / "plain.png")
    flipped = bytearray(whole)
    flipped[60] ^= 0xFF
    for name, content in {
        "empty.png": b"",
        "text.png": b"this is no image",
        "header.png": whole[:20],
        "half.png": whole[: len(whole) // 2],
        "flipped.png": bytes(flipped),
        "no_end.png": whole[:-12],
    }.items():
        (folder / "a" / name).write_bytes(content)
    save(rgba(128), folder / "a" / "see_through.png")
    frames = [Image.new("L", (28, 28), grey) for grey in (0, 255)]
    frames[0].save(folder / "a" / "moving.gif", save_all=True, append_images=frames[1:])
    os.mkfifo(folder / "a" / "pipe.png")
    (folder / "a" / "gone.png").symlink_to(folder / "nowhere.png")
    return {
        "empty.png": "empty file",
        "text.png": "not a BMP, GIF, JPEG or PNG image",
        "header.png": "not a BMP, GIF, JPEG or PNG image|damaged",
        "half.png": "damaged image",
        "flipped.png": "damaged image",
        "no_end.png": "damaged image",
        "see_through.png": "transparent pixels",
        "moving.gif": "animated: 2 frames",
        "pipe.png": "not a regular file",
        "gone.png": "cannot be read: No such file",
    }


def test_all_bad_files_are_named_at_once_and_nothing_is_touched(two_classes):
    """Every damaged file is in the error with its reason, and the folder is as it was."""
    expected = damage(two_classes)
    pipe = two_classes / "a" / "pipe.png"
    files = {p: p.read_bytes() for p in two_classes.rglob("*") if p.is_file() and p != pipe}

    with pytest.raises(ImageFolderError) as error:
        read_image_folder(two_classes)

    found = dict(error.value.problems)
    assert set(found) == {f"a/{name}" for name in expected}
    for name, reason in expected.items():
        assert any(part in found[f"a/{name}"] for part in reason.split("|")), found[f"a/{name}"]
        assert f"a/{name}: " in str(error.value)
    assert files == {p: p.read_bytes() for p in two_classes.rglob("*") if p in files}


def test_declared_size_is_checked_before_decoding(two_classes):
    """An image that declares a huge size is refused, however small its file is."""
    for side in (7_100, 10_000, 14_000):
        save(Image.new("1", (side, side)), two_classes / "a" / "bomb.png")
        with pytest.raises(
            ImageFolderError, match=r"bomb\.png: declares more than 50,000,000 pixels"
        ):
            read_image_folder(two_classes)


def test_layouts_that_are_no_class_folders(tmp_path, image_folder):
    """Missing, empty, flat, single-class and too deep layouts say what is expected."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    single = tmp_path / "single" / "cats"
    save(Image.new("L", (28, 28)), single / "1.png")
    save(Image.new("L", (28, 28)), tmp_path / "flat" / "1.png")
    cases = {
        tmp_path / "nowhere": "No such file or directory",
        tmp_path / "file": "Not a directory",
        tmp_path / "empty": "found no folders",
        tmp_path / "flat": "found no folders",
        tmp_path / "single": "found only the folder 'cats'",
        tmp_path: None,
    }
    for folder, message in cases.items():
        if message:
            with pytest.raises(ImageFolderError, match=message) as error:
                read_image_folder(folder)
            assert "\n" not in str(error.value)


def test_empty_class_is_refused(image_folder):
    """A class folder without images is named, not kept as a class that never occurs."""
    (image_folder / "10").mkdir()
    with pytest.raises(ImageFolderError, match="10: no images"):
        read_image_folder(image_folder)


def test_natural_order_and_hidden_files(image_folder):
    """Class 10 follows 9; hidden files and folders are no data."""
    save(Image.new("L", (28, 28)), image_folder / "10" / "x.png")
    save(Image.new("L", (28, 28)), image_folder / ".git" / "x.png")
    save(Image.new("L", (28, 28)), image_folder / "3" / ".hidden.png")
    save(Image.new("L", (28, 28)), image_folder / "3" / ".ipynb_checkpoints" / "x.png")
    (image_folder / "3" / "Thumbs.db").write_bytes(b"x")

    images = read_image_folder(image_folder)

    assert images.class_names == (*map(str, range(11)),)
    assert len(images) == 31
    assert find_classes(image_folder)[-1] == "10"


def test_renaming_changes_no_fingerprint(image_folder):
    """The fingerprint is of contents: other names and order leave it, another pixel does not."""
    before = read_image_folder(image_folder).fingerprint
    for number, path in enumerate(sorted(image_folder.rglob("*.png"))):
        path.rename(path.with_name(f"{(number * 7) % 31:02d}-{path.name}"))
    assert read_image_folder(image_folder).fingerprint == before

    path = next(image_folder.rglob("*.png"))
    pixels = np.array(Image.open(path))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert read_image_folder(image_folder).fingerprint != before


def test_unprintable_names_stay_on_one_line():
    """Newlines and control characters in names are escaped."""
    assert escaped("a\nb\x1b[31m.png") == r"a\nb\x1b[31m.png"
    assert escaped("é 数.png") == "é 数.png"


def test_resize_is_bilinear_between_pixel_centres():
    """Linear ramps stay linear inside, and the same size is the same array."""
    ramp = np.tile(np.arange(8, dtype=np.uint8)[:, np.newaxis, np.newaxis], (1, 8, 1))
    large = resize(ramp, (16, 8), "bilinear")
    np.testing.assert_allclose(large[1:-1, 0, 0], np.arange(0.25, 7, 0.5))
    assert resize(ramp, (8, 8), "bilinear") is ramp
    np.testing.assert_array_equal(resize(ramp, (4, 8), "nearest")[:, 0, 0], [1, 3, 5, 7])


def test_data_folder_with_heldout(tmp_path, digit_images, write_images):
    """heldout/ is read beside the class folders or beside train-…, with the same classes."""
    images, labels = digit_images
    for layout in ("plain", "plain/heldout", "both/train-3", "both/heldout"):
        write_images(tmp_path / layout, images, labels)

    for folder, name in (("plain", "plain"), ("both", "both/train-3")):
        found, heldout = read_data_folder(tmp_path / folder)
        assert found.name == name
        assert len(found) == len(heldout) == 30
        assert found.class_names == heldout.class_names == tuple("0123456789")

    assert len(read_data_folder(tmp_path / "both" / "train-3")[1]) == 0


def test_data_folder_with_other_classes_in_heldout(tmp_path, digit_images, write_images):
    """A class that is only held out, or missing there, is refused."""
    images, labels = digit_images
    write_images(tmp_path, images, labels)
    write_images(tmp_path / "heldout", images, labels + 1)
    with pytest.raises(ImageFolderError, match="heldout/10: no such class to train on"):
        read_data_folder(tmp_path)
    (tmp_path / "heldout" / "10").rename(tmp_path / "heldout" / ".ten")
    with pytest.raises(ImageFolderError, match="0: no such class folder"):
        read_data_folder(tmp_path)


def test_two_training_folders_are_ambiguous(tmp_path, digit_images, write_images):
    """Of two train-… folders none is guessed."""
    for name in ("train-3", "train-5"):
        write_images(tmp_path / name, *digit_images)
    with pytest.raises(DataError, match="more than one folder to train on: train-3, train-5"):
        read_data_folder(tmp_path)
