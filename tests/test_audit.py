"""Audits of folders: they name every problem, touch nothing, remember and stream."""

import functools
import io
import json
import os
import random
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from mnist_keras import image_dataset_from_directory
from mnist_keras.datasets import user_images
from mnist_keras.datasets.image_folder import image_store, reading
from mnist_keras.datasets.image_folder.audit import audit
from mnist_keras.datasets.image_folder.decoding import BadImageError
from mnist_keras.datasets.image_folder.findings import ImageFolderError
from mnist_keras.datasets.image_folder.oddities import look
from mnist_keras.datasets.image_folder.reading import ImageForm
from mnist_keras.datasets.image_folder.walk import walk
from mnist_keras.datasets.images import DataError, LazyImages, png

pytestmark = pytest.mark.any_backend

CACHES = ["memory", "disk", "none"]


def load(folder, **options):
    """Return `Batches` of the size of the files, unless the options say else."""
    plain = {"image_size": 28, "seed": 1, "format": None, "verbose": False}
    return image_dataset_from_directory(folder, **plain | options)


def forget():
    """Empty the cache folder."""
    for path in image_store.cache_folder().iterdir():
        path.unlink()


@pytest.fixture
def run(invoke, two_classes, tmp_path, write_experiment, without_figures):
    """The function that trains one epoch on `two_classes`."""
    path = write_experiment(tmp_path, {"name": "a"}, epochs=1)
    return functools.partial(invoke, "run", path, "--data", two_classes)


def snapshot(folder):
    """Return mode, time, size and content of everything below a folder."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[path] = (status.st_mode, status.st_mtime_ns, status.st_size, content)
    return found


@pytest.fixture
def bad_files(two_classes, picture):
    """Files in `two_classes` that cannot be used: by path, a word of the reason."""
    whole, webp = png(picture(50)), io.BytesIO()
    Image.fromarray(picture(50)).save(webp, "WEBP")
    files = {
        "a/empty.png": (b"", "empty file"),
        "a/page.png": (b"<!doctype html>", "web page"),
        "a/pointer.png": (b"version https://git-lfs.github.com/spec/v1\n", "LFS pointer"),
        "b/text.jpg": (b"this is text", "not a BMP, GIF, JPEG or PNG"),
        "b/half.png": (whole[:60], "truncated"),
        "b/flipped.png": (whole[:-20] + b"x" + whole[-19:], "checksum"),
        "b/photo.webp": (webp.getvalue(), "a WEBP image"),
        "b/strange\nname\x1b[31m.png": (b"", "empty file"),
    }
    for path, (content, _) in files.items():
        (two_classes / path).write_bytes(content)
    return {path: reason for path, (_, reason) in files.items()}


def test_check_names_every_problem_and_touches_nothing(invoke, two_classes, bad_files):
    """All bad files have their reasons, escaped or, in JSON, by kind; the folder is as it was."""
    before = snapshot(two_classes)
    result = invoke("check", two_classes, code=3)
    lines = [line.strip() for line in result.stdout.splitlines()]
    for path, reason in bad_files.items():
        name = path.replace("\n", "\\n").replace("\x1b", "\\x1b")
        (line,) = [line for line in lines if line.startswith(f"{name}: ")]
        assert reason in line
    assert "\x1b" not in result.stdout
    assert f"Refused: {len(bad_files)} findings" in lines[-1]

    document = json.loads(invoke("check", two_classes, "--format", "json", code=3).stdout)
    assert document["refused"] is True
    assert (document["files"], document["usable"]) == (16, 8)
    assert document["classes"] == {"a": 4, "b": 4}
    kinds = {group["kind"]: group for group in document["findings"]}
    assert kinds["truncated"]["severity"] == "refused"
    assert kinds["truncated"]["files"] == [
        {"path": "b/half.png", "reason": "truncated image: the PNG has no end"}
    ]
    paths = {file["path"] for group in document["findings"] for file in group["files"]}
    assert paths == {*bad_files, "."}  # the classes now have different sizes
    assert snapshot(two_classes) == before


def test_check_of_a_clean_folder(invoke, two_classes):
    """It ends with exit code 0, and shows the sizes of the classes and no finding."""
    assert invoke("check", two_classes).stdout.splitlines() == [
        f"{two_classes}: 8 images, 8 of them usable, in 2 classes",
        *("  a: 4", "  b: 4", "", "It can be used."),
    ]


def test_long_lists_of_warnings_are_cut_and_refusals_are_not(invoke, two_classes):
    """Ten warnings of a kind are shown, but all refusals."""
    for number in range(30):
        (two_classes / "a" / f"{number}.txt").touch()
        (two_classes / "b" / f"empty{number}.png").touch()
    out = invoke("check", two_classes, code=3).stdout
    assert "and 20 more (--format json lists them all)" in out
    assert out.count(".txt: ") == 10
    assert out.count(": empty file") == 30


def test_if_most_files_fail_in_one_way_the_machine_is_to_blame(invoke, two_classes):
    """If more than half of the files fail alike, the message does not blame the images."""
    for path in two_classes.rglob("*.png"):
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    result = invoke("check", two_classes, code=3)
    assert "8 of 8 files fail in one way" in result.stdout
    with pytest.raises(ImageFolderError, match="8 of 8 files fail in one way"):
        user_images.read(two_classes).require()


def test_the_machine_is_not_to_blame_for_how_images_were_made(two_classes, picture, invoke):
    """Transparent images, and those of a type that is not read, are the work of people."""
    for path in (two_classes / "a").iterdir():
        Image.fromarray(picture(0)).convert("RGB").save(path, "WEBP")
    for path in (two_classes / "b").iterdir():
        Image.fromarray(picture(0)).save(path, transparency=int(picture(0)[0, 0]))
    for path in list(two_classes.rglob("*.png")):
        for number in range(4 if path.parent.name == "b" else 0):
            path.with_name(f"{path.stem}-{number}.png").write_bytes(path.read_bytes())
    assert "fail in one way" not in invoke("check", two_classes, code=3).stdout
    for path in (two_classes / "b").iterdir():
        Image.fromarray(picture(0)).convert("RGB").save(path, "WEBP")
    result = invoke("check", two_classes, code=3)
    assert "24 × image of an unsupported type" in result.stdout
    assert "fail in one way" not in result.stdout


def test_refused_by_default_and_skipped_on_demand(two_classes, bad_files):
    """on_bad="refuse" lists all; "skip" uses the rest, and says how many are left out."""
    (two_classes / "0").mkdir()
    (two_classes / "0" / "only.png").write_bytes(b"")

    with pytest.raises(ImageFolderError) as error:
        load(two_classes)
    # The eight, the ninth file, and its class without a usable image.
    assert len(error.value.findings) == 10
    dataset = load(two_classes, on_bad="skip")
    assert len(dataset.x) == 8
    assert dataset.class_names == ["a", "b"]
    assert [dataset.class_names[y] for y in dataset.y] == [
        Path(path).parent.name for path in dataset.file_paths
    ]
    assert set(dataset.audit.left_out) == {*bad_files, "0/only.png", "0"}
    assert dataset.audit.images.name == "two, 9 bad files left out, 1 class left out"


def test_what_cannot_be_skipped(two_classes, picture):
    """A wrong layout and a single remaining class are refused even with on_bad="skip"."""
    (two_classes / "A").mkdir()
    (two_classes / "A" / "1.png").write_bytes(png(picture(60)))
    with pytest.raises(ImageFolderError, match="looks like"):
        user_images.read(two_classes).require("skip")
    (two_classes / "A").rename(two_classes / ".A")
    for path in (two_classes / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ImageFolderError, match="fewer than two classes"):
        user_images.read(two_classes).require("skip")


def test_sizes_types_and_conversions_are_counted(two_classes, picture):
    """Resized, distorted, converted and mislabeled images are used and named."""
    (two_classes / "a" / "larger.png").write_bytes(png(picture(51, 30, 28)))
    (two_classes / "a" / "wide.png").write_bytes(png(picture(52, 28, 56)))
    (two_classes / "a" / "bits.png").write_bytes(png(picture(53) > 100))
    Image.fromarray(picture(54)).save(two_classes / "b" / "jpeg.png", "JPEG")
    (two_classes / "b" / "duplicate.png").write_bytes((two_classes / "b" / "004.png").read_bytes())
    audited = user_images.read(two_classes).require()
    assert {(f.kind, f.path) for f in audited.findings} == {
        ("resized", "a/larger.png"),
        ("stretched", "a/wide.png"),
        ("one_bit", "a/bits.png"),
        ("mislabeled", "b/jpeg.png"),
        ("duplicate", "b/duplicate.png"),
        ("uneven", "."),
    }
    assert audited.remarks == ("Of 13 image files: 2 resized, 1 converted in memory, 1 duplicated.")
    assert audited.images.images.dtype == np.float32
    assert len(audited.images) == 13


@pytest.mark.parametrize("extension", ["jfif", "JPE", "pjpeg", "apng", "dib", "webp", "pnm", "hif"])
def test_the_content_decides_for_every_extension(two_classes, extension):
    """A file that is called an image is read if it holds one, and refused if it does not."""
    whole, bad = (two_classes / "a" / f"{name}.{extension}" for name in ("whole", "bad"))
    format = {"apng": "PNG", "dib": "BMP"}.get(extension, "JPEG")
    Image.open(two_classes / "a" / "000.png").transpose(0).save(whole, format)
    bad.write_bytes(b"P7 332")
    audited = user_images.read(two_classes)
    assert {"a/bad." + extension: "not_an_image"} == {
        f.path: f.kind for f in audited.findings if f.severity == "refused"
    }
    assert str(whole) in audited.images.file_paths
    mislabeled = [f.path for f in audited.findings if f.kind == "mislabeled"]
    assert mislabeled == (["a/whole." + extension] if extension in ("webp", "pnm", "hif") else [])


def test_turned_images_are_counted_as_converted(two_classes, picture):
    """A photo that lies on its side is turned upright, and tables say how many were converted."""
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(picture(60)).save(two_classes / "a" / "side.png", exif=exif)
    audited = user_images.read(two_classes).require()
    assert ("rotated", "a/side.png") in {(f.kind, f.path) for f in audited.findings}
    assert "1 converted in memory" in audited.remarks
    position = audited.images.file_paths.index(str(two_classes / "a" / "side.png"))
    np.testing.assert_array_equal(audited.images.images[position][..., 0], np.rot90(picture(60)))


def test_what_keras_takes_is_kept_on_demand(two_classes, picture):
    """With on_bad="keep", what Keras takes is used and named, and photos lie as in the file."""
    side, clear, moving, tiny = (Image.fromarray(picture(number)) for number in range(60, 64))
    exif = Image.Exif()
    exif[0x0112] = 8
    side.save(two_classes / "a" / "side.png", exif=exif)
    clear.save(two_classes / "a" / "clear.png", transparency=int(picture(61)[0, 0]))
    moving.save(two_classes / "b" / "two.gif", save_all=True, append_images=[side])
    tiny.crop((0, 0, 5, 5)).save(two_classes / "b" / "tiny.png")
    (two_classes / "b" / "same.png").write_bytes((two_classes / "a" / "000.png").read_bytes())
    with pytest.raises(ImageFolderError) as error:
        load(two_classes)
    dataset = load(two_classes, on_bad="keep")
    kept = {finding.path for finding in dataset.audit.findings if finding.kind == "kept"}
    assert kept == {"a/000.png", "b/same.png", "a/clear.png", "b/two.gif", "b/tiny.png"}
    assert kept == {finding.path for finding in error.value.findings}
    (row,) = (n for n, path in enumerate(dataset.file_paths) if path.endswith("side.png"))
    np.testing.assert_array_equal(dataset.x[row][..., 0], picture(60))


def test_links_are_followed_on_demand(two_classes, write_images, picture, tmp_path):
    """Folders that a class links to are read with follow_links, and circles end."""
    other = write_images(tmp_path / "other", [picture(20)], ["below"])
    (two_classes / "a" / "more").symlink_to(other)
    (other / "below" / "back").symlink_to(two_classes)
    for labels in ("inferred", None):
        assert len(load(two_classes, labels=labels, follow_links=True).x) == 9
        assert len(load(two_classes, labels=labels).x) == 8


def test_duplicates_are_found_whatever_their_size_in_the_file(two_classes):
    """A copy that has to be resized is a duplicate, if it comes out the same."""
    with Image.open(two_classes / "a" / "000.png") as image:
        larger = image.resize((56, 56), Image.Resampling.NEAREST)
    larger.save(two_classes / "a" / "larger.png")
    kinds = {(f.kind, f.path) for f in user_images.read(two_classes).findings}
    assert ("duplicate", "a/larger.png") in kinds
    larger.save(two_classes / "b" / "larger.png")
    assert "two_labels" in {f.kind for f in user_images.read(two_classes).findings}


def test_a_refused_file_is_not_in_another_finding(two_classes, picture):
    """A file that is not used has one finding."""
    half = Image.fromarray(picture(55)).convert("P")
    half.save(two_classes / "a" / "clear.png", transparency=0)
    found = user_images.read(two_classes).findings
    assert [f.kind for f in found if f.path == "a/clear.png"] == ["transparent"]


@pytest.mark.parametrize("kept", CACHES)
def test_every_cache_gives_the_same_images(two_classes, picture, kept, monkeypatch):
    """Memory, disk and files give equal images, also when they are remembered."""
    monkeypatch.setattr(reading, "_CHUNK", 3)  # the resized image makes earlier chunks float
    (two_classes / "b" / "bad.png").write_bytes(b"")
    (two_classes / "b" / "larger.png").write_bytes(png(picture(51, 40, 40)))
    options = {"on_bad": "skip", "validation_split": 0.4, "subset": "both"}
    plain = load(two_classes, **options)
    for path, image in zip(plain[0].file_paths, plain[0].x, strict=True):
        if "larger" not in path:
            np.testing.assert_array_equal(image[..., 0], np.asarray(Image.open(path)))
    forget()
    for _ in range(2):
        datasets = load(two_classes, cache=kept, **options)
        for expected, found in zip(plain, datasets, strict=True):
            expected.set_epoch(0)
            assert isinstance(found.x, np.ndarray if kept == "memory" else LazyImages)
            assert found.file_paths == expected.file_paths
            for (x, y), (x_found, y_found) in zip(expected, found, strict=True):
                np.testing.assert_array_equal(x, x_found)
                np.testing.assert_array_equal(y, y_found)
                assert x_found.dtype == np.float32
        moved = load(two_classes, cache=kept, data_format="channels_first", **options)[1]
        np.testing.assert_array_equal(np.moveaxis(moved[0][0], 1, -1), datasets[1][0][0])


def test_large_folders_go_to_the_disk_unless_it_is_full(two_classes, monkeypatch):
    """By default the size decides; on a full disk the files are decoded for each batch."""
    monkeypatch.setattr(image_store, "_MEMORY_BYTES", 1000)
    dataset = load(two_classes, shuffle=False)
    assert isinstance(dataset.x, LazyImages)
    forget()
    monkeypatch.setattr(image_store.shutil, "disk_usage", lambda path: mock.Mock(free=0))
    streamed = load(two_classes, shuffle=False)
    assert list(image_store.cache_folder().glob("*.npy")) == []
    np.testing.assert_array_equal(streamed.x[:], dataset.x[:])


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_an_unchanged_folder_is_not_decoded_again(two_classes, monkeypatch, invoke, kept):
    """After a check or an audit, the next one decodes no file and finds the same."""
    invoke("check", two_classes)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "decode", None)
        again = user_images.read(two_classes, cache=kept)
        images = again.images.images[:]
    forget()
    first = user_images.read(two_classes, cache="none")
    np.testing.assert_array_equal(first.images.images[:], images)
    assert again.findings == first.findings
    assert again.images.fingerprint == first.images.fingerprint


def test_a_moved_folder_is_still_known_and_a_changed_file_is_not(two_classes, tmp_path, picture):
    """An audit is remembered after a move, but not after any change of a file."""
    user_images.read(two_classes)
    (before,) = image_store.cache_folder().glob("*.npz")
    moved = two_classes.rename(tmp_path / "elsewhere")
    user_images.read(moved)
    assert list(image_store.cache_folder().glob("*.npz")) == [before]
    path = moved / "a" / "000.png"
    times = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [f.path for f in user_images.read(moved).findings] == ["a/000.png"]


@pytest.mark.parametrize("kept", CACHES)
def test_equal_times_bring_no_images_back(tmp_path, write_images, picture, kept):
    """Folders of equal names, sizes and times have their own images; a change is seen."""
    folders = []
    for name, order in (("one", range(8)), ("other", range(7, -1, -1))):
        bitmaps = write_images(tmp_path / name, [picture(n) for n in order], ["a", "b"] * 4)
        for path in bitmaps.rglob("*.png"):
            Image.open(path).save(path.with_suffix(".bmp"))
            path.unlink()
        folders.append(bitmaps)

    def first(folder):
        for path in folder.rglob("*"):
            os.utime(path, ns=(0, 0))
        audited = user_images.read(folder, cache=kept)
        by_path = dict(zip(audited.images.file_paths, audited.images.images[:], strict=True))
        return by_path[str(folder / "a" / "000.bmp")][..., 0]

    one, other = folders
    for folder, number in ((one, 0), (other, 7), (other, 7), (one, 0)):
        np.testing.assert_array_equal(first(folder), picture(number))
    Image.fromarray(picture(20)).save(one / "a" / "000.bmp")
    np.testing.assert_array_equal(first(one), picture(20))


def test_what_cannot_be_read_today_is_tried_again(two_classes, monkeypatch):
    """A failing disk is not remembered as a bad file, and an interrupted audit leaves no file."""
    failure = BadImageError("unreadable_file", "cannot be read: Input/output error")
    with monkeypatch.context() as patch:
        patch.setattr(reading, "read_file", mock.Mock(side_effect=failure))
        assert len(user_images.read(two_classes).findings) == 8 + 2  # and both classes
    for interruption in (KeyboardInterrupt, MemoryError):
        with monkeypatch.context() as patch:
            patch.setattr(reading, "_CHUNK", 3)
            looks = mock.Mock(wraps=look, side_effect=[mock.DEFAULT, interruption])
            patch.setattr(reading.oddities, "look", looks)
            with pytest.raises(interruption):
                user_images.read(two_classes)
        assert list(image_store.cache_folder().iterdir()) == []
    assert user_images.read(two_classes).require().files == 8


@pytest.mark.parametrize("damage", [b"", b"PK", b"x" * 1000, "flip"])
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_a_damaged_cache_is_made_anew(two_classes, damage, kind):
    """Files of the cache folder that are damaged, if only by a byte, are ignored."""
    expected = user_images.read(two_classes).images.images
    user_images.read(two_classes, cache="disk")
    (path,) = image_store.cache_folder().glob(f"*.{kind}")
    content = bytearray(path.read_bytes())
    content[-3000 if kind == "npy" else 700] ^= 1
    path.unlink()
    path.write_bytes(content if damage == "flip" else damage)
    again = user_images.read(two_classes, cache="disk")
    np.testing.assert_array_equal(again.images.images[:], expected)


def test_a_cache_folder_that_cannot_be_made(two_classes, monkeypatch, tmp_path):
    """Without a cache folder everything works and nothing is remembered."""
    (tmp_path / "file").touch()
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(tmp_path / "file"))
    for kept in CACHES:
        assert len(user_images.read(two_classes, cache=kept).images.images[:]) == 8


def test_a_file_that_changes_between_audit_and_batch(two_classes, picture):
    """A streamed image that changed since the audit ends the epoch with its name."""
    dataset = load(two_classes, cache="none")
    path = two_classes / "a" / "000.png"
    for content in (png(picture(70)), b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a/000\.png: changed since it was audited"):
            list(dataset)


@pytest.mark.parametrize("kept", CACHES)
def test_renaming_every_file_changes_no_side(two_classes, kept):
    """Content decides the split: other names in another order change nothing."""
    (two_classes / "b" / "duplicate.png").write_bytes((two_classes / "b" / "005.png").read_bytes())

    def sides():
        datasets = load(two_classes, validation_split=0.3, subset="both", cache=kept)
        return [sorted(x.tobytes() for x in dataset.x[:]) for dataset in datasets]

    before = sides()
    assert not set(before[0]) & set(before[1])  # the duplicates are together
    paths = sorted(two_classes.rglob("*.png"))
    random.Random(0).shuffle(paths)
    for number, path in enumerate(paths):
        path.rename(path.with_name(f"{number:02d}.png"))
    assert sides() == before


def test_progress_is_told(two_classes, monkeypatch):
    """Callers are told how many files are read."""
    monkeypatch.setattr(reading, "_CHUNK", 3)
    told = []
    user_images.read(two_classes, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 8), (6, 8), (8, 8)]


def test_form_of_the_images(two_classes):
    """Images have the channels and size of their form; each form is remembered by itself."""
    for form in (ImageForm("grayscale", (14, 20)), ImageForm("rgba"), ImageForm()):
        audited = audit(two_classes, walk(two_classes), form=form)
        assert audited.images.images.shape == (8, *form.shape)


def test_a_read_only_folder(two_classes):
    """A read-only folder is read like any other."""
    for path in (two_classes / "a", two_classes / "b", two_classes):
        path.chmod(0o555)
    assert len(user_images.read(two_classes).require().images) == 8


def test_every_table_says_what_is_left_out(run, invoke, two_classes, picture, tmp_path):
    """`run --on-bad skip` counts them in every table, and names them in plan and page."""
    (two_classes / "a" / "bad\n.png").write_bytes(b"")
    (two_classes / "b" / "larger.png").write_bytes(png(picture(60, 32, 32)))
    out = tmp_path / "out"
    refused = run("--seeds", 1, "--output", out, code=3)
    assert "a/bad\\n.png: empty file (fetch it again)" in refused.stderr
    assert not list(out.rglob("*.json"))

    result = run("--seeds", 1, "--output", out, "--on-bad", "skip")

    assert "1 × empty file" in result.stderr
    name = "two, 1 bad file left out"
    for table in ("tables.md", "tables.csv", "tables.tex", "tables.json", "report.html"):
        assert name in (out / table).read_text(), table
    assert f"Claim: {name}" not in result.stdout
    assert "Of 10 image files: 1 left out, 1 resized." in result.stdout
    assert "numbers compare only if these are 10 classes of 50 MNIST images" in result.stdout
    plan = json.loads((out / "plan.json").read_text())
    assert plan["left_out"] == {"a/bad\n.png": "empty file"}
    assert json.loads((out / "tables.json").read_text())["left_out"] == plan["left_out"]
    page = (out / "report.html").read_text()
    assert "a/bad\\n.png" in page
    for name in "ab":
        assert f'alt="{name}" src="data:image/png;base64,{plan["samples"][name]}"' in page
    assert invoke("report", out).stdout == result.stdout


@pytest.mark.slow
def test_run_trains_from_every_cache_alike(run, tmp_path):
    """The numbers of a run do not depend on where its images are kept."""
    for kept in CACHES:
        run("--seeds", 1, "--output", tmp_path / kept, "--cache", kept)
    tables = [(tmp_path / kept / "tables.json").read_bytes() for kept in CACHES]
    assert tables[0] == tables[1] == tables[2]


def test_per_class_draws_from_a_folder(run, two_classes, tmp_path, picture):
    """--per-class N trains on N of each class and holds out the others; too few are refused."""
    for number in range(30, 60):
        (two_classes / "a" / f"{number}.png").write_bytes(png(picture(number)))
    arguments = ("--seeds", 2, "--output", tmp_path / "out")
    assert "4 images of class 'b', 34 of class 'a'" in run(*arguments, code=3).stderr
    assert "b: 4 images, 5 are needed" in run(*arguments, "--per-class", 5, code=3).stderr
    assert "held-out (n = 32)" in run(*arguments, "--per-class", 3).stdout
