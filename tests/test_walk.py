"""Walking class-per-folder directories: what is data, what is not, and wrong layouts."""

import os
import re

import pytest
from PIL import Image

from mnist_keras.datasets.image_folder.findings import Finding
from mnist_keras.datasets.image_folder.walk import walk, walk_flat

pytestmark = pytest.mark.any_backend


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(folder, **options):
    """Return the paths of the files and (kind, path) of the findings."""
    walked = walk(folder, **options)
    return [file.path for file in walked.files], {(f.kind, f.path) for f in walked.findings}


def test_natural_order_of_classes_and_keras_order_of_files(tmp_path):
    """Class 10 follows 9; within a class, files of one folder stay together, by name."""
    touch(tmp_path, "10/b.png", "9/z.jpg", "9/sub/a.png", "9/a.PNG", "9/b.jpeg", "1/c.gif")
    walked = walk(tmp_path)
    assert walked.class_names == ("1", "9", "10")
    assert [(file.label, file.path) for file in walked.files] == [
        (0, "1/c.gif"),
        *((1, path) for path in ("9/a.PNG", "9/b.jpeg", "9/z.jpg", "9/sub/a.png")),
        (2, "10/b.png"),
    ]
    assert walked.findings == (Finding("nested_folder", "9/sub"),)


def test_what_is_not_data_is_named(tmp_path):
    """Hidden, system and other files are left out and named; what is called an image is taken."""
    touch(tmp_path, "a/1.png", "b/2.png", "README.md", ".git/x.png", "__MACOSX/a/._1.png")
    touch(tmp_path, "a/.hidden.png", "a/Thumbs.db", "a/.ipynb_checkpoints/1.png")
    touch(tmp_path, "a/notes.txt", "a/2.png.txt", "a/noextension")
    touch(tmp_path, "a/x.webp", "b/y.TIF")
    (tmp_path / "b" / "folder.png").mkdir()
    assert found(tmp_path) == (
        ["a/1.png", "a/x.webp", "b/2.png", "b/y.TIF"],
        {
            *(("hidden", p) for p in (".git", "__MACOSX", "a/.hidden.png", "a/Thumbs.db")),
            *(("hidden", "a/.ipynb_checkpoints"), ("beside_classes", "README.md")),
            *(("other_files", f"a/{p}") for p in ("notes.txt", "2.png.txt", "noextension")),
            ("image_named_folder", "b/folder.png"),
        },
    )


@pytest.mark.parametrize(
    "name",
    [
        *("$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", "DESKTOP.INI", "__MACOSX"),
        *("lost+found", "LOST.DIR", ".Trash-1000", ".fseventsd", ".ipynb_checkpoints"),
        *("#recycle", "@eaDir", "@Recycle", "#snapshot", "__pycache__", "Network Trash Folder"),
    ],
)
def test_what_systems_put_there_is_no_class(tmp_path, name):
    """Whether it is empty or holds deleted images, it is left out everywhere, and named."""
    touch(tmp_path, "a/1.png", "b/2.png")
    for folder in (tmp_path / name, tmp_path / "a" / name):
        folder.mkdir()
    expected = (["a/1.png", "b/2.png"], {("hidden", name), ("hidden", f"a/{name}")})
    assert found(tmp_path) == expected
    touch(tmp_path, f"{name}/R1.png", f"a/{name}/x.png")
    assert found(tmp_path) == expected
    assert walk(tmp_path).class_names == ("a", "b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_links_and_pipes(tmp_path):
    """Links to files are used and named, broken ones are refused, folders are entered once."""
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "link.png").symlink_to("../b/2.png")
    (tmp_path / "a" / "broken.png").symlink_to("nowhere")
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    (tmp_path / "a" / "broken.txt").symlink_to("nowhere")
    (tmp_path / "a" / "loop").symlink_to("..")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "above").symlink_to(".")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert found(tmp_path) == (
        ["a/1.png", "a/link.png", "b/2.png"],
        {
            *(("link", "a/link.png"), ("broken_link", "a/broken.png")),
            *(("broken_link", "a/self.png"), ("other_files", "a/broken.txt")),
            *(("folder_link", "a/loop"), ("beside_classes", "circle")),
            ("folder_link", "above"),
            ("not_a_file", "a/pipe.png"),
        },
    )


def test_a_class_folder_that_is_a_link(tmp_path):
    """A link to a class folder is a class, and is named."""
    touch(tmp_path, "data/a/1.png", "elsewhere/2.png")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "data") == (["a/1.png", "b/2.png"], {("link", "b")})


@pytest.mark.parametrize(
    ("names", "kind", "words"),
    [
        ([], "no_classes", "found no folders"),
        (["1.png", "2.png"], "no_classes", "found 2 images and no folders"),
        (["cats/1.png"], "single_class", "only the folder 'cats'"),
        (["all/a/1.png", "all/b/2.png"], "too_deep", "did you mean {tmp}/all?"),
        (["x/train/a/1.png", "y/train/b/1.png"], "too_deep", "did you mean {tmp}/x/train?"),
        (["test/a/1.png", "x/b/2.png"], "too_deep", "did you mean {tmp}/x?"),
        (["m/Testing/a/1.png", "m/z/b/2.png", "n/b/2.png"], "too_deep", "did you mean {tmp}/m/z?"),
        (["holdout/a/1.png", "val/b/2.png"], "too_deep", "only folders within"),
        (["test_set/a/1.png", "test_set/b/2.png"], "no_classes", "images that are not trained on"),
        (["a/1.png", "A/2.png"], "lookalike_classes", "looks like"),
        (["a/1.png", "ａ/2.png"], "lookalike_classes", "looks like"),
        (["a/1.png", "a /2.png"], "lookalike_classes", "looks like"),
        (["a  b/1.png", "a b/2.png"], "lookalike_classes", "looks like"),
        (["a/1.png", "b/x.txt"], "empty_class", "no images (.bmp, .gif, .jpeg, .jpg, .png)"),
    ],
)
def test_layouts_that_are_not_class_folders(tmp_path, names, kind, words):
    """A wrong layout is one finding that says what is wrong and where the data may be."""
    touch(tmp_path, *names)
    (finding,) = [f for f in walk(tmp_path).findings if f.severity in ("fatal", "refused")]
    assert finding.kind == kind
    assert words.format(tmp=tmp_path) in finding.reason
    assert not re.search("(test|holdout|val)[^/]*[?]", finding.reason, re.IGNORECASE)


def test_paths_that_are_not_folders(tmp_path):
    """For a missing path and for a file, the finding has the system's words."""
    touch(tmp_path, "file")
    for name, words in (("no", "No such file or directory"), ("file", "Not a directory")):
        (finding,) = walk(tmp_path / name).findings
        assert (finding.kind, finding.path) == ("missing", ".")
        assert words in finding.reason


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    """A class folder without permission is not an empty class."""
    touch(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (finding,) = walk(tmp_path).findings
    assert (finding.kind, finding.path) == ("unreadable_folder", "b")
    assert "Permission denied" in finding.reason


def test_folders_nested_beyond_the_stack(tmp_path):
    """Folders within folders are walked, however deep they are."""
    touch(tmp_path, "a/1.png", "b/2.png")
    here = os.open(tmp_path / "a", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("n", dir_fd=here)
        inner = os.open("n", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    walked = walk(tmp_path)
    assert len(walked.files) == 2
    assert len(walked.findings) == 1500
    os.removedirs(tmp_path.joinpath("a", *["n"] * 1500))  # too deep for shutil's recursion


def test_too_many_files_end_the_walk(tmp_path):
    """Beyond the limit nothing more is walked, and the finding names the limit."""
    touch(tmp_path, *(f"{c}/{n}.png" for c in "ab" for n in range(9)))
    assert found(tmp_path, max_files=18)[1] == set()
    assert found(tmp_path, max_files=17)[1] == {("too_many_files", ".")}
    walked = walk(tmp_path, max_files=10)
    assert walked.findings == (Finding("too_many_files", ".", "more than 10 files"),)
    assert len(walked.files) == 10


def test_chosen_classes(tmp_path):
    """class_names picks and orders the classes; a missing one is named."""
    touch(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    walked = walk(tmp_path, class_names=["c", "a"])
    assert [(file.label, file.path) for file in walked.files] == [(0, "c/3.png"), (1, "a/1.png")]
    missing = walk(tmp_path, class_names=["a", "d"])
    assert missing.findings == (Finding("no_classes", "d", "no such class folder"),)


def test_a_base_within_the_directory(tmp_path):
    """Paths are relative to the directory, also if the class folders are deeper in it."""
    touch(tmp_path, "train/a/1.png", "train/b/2.png", "train/b/x.txt", "test/a/1.png")
    assert found(tmp_path, base="train") == (
        ["train/a/1.png", "train/b/2.png"],
        {("other_files", "train/b/x.txt")},
    )


def test_flat(tmp_path):
    """Without classes, all image files below a folder are found, in Keras's order."""
    touch(tmp_path, "b.png", "sub/a.png", "a.png", "x.txt")
    walked = walk_flat(tmp_path)
    assert [file.path for file in walked.files] == ["a.png", "b.png", "sub/a.png"]
    assert [f.kind for f in walked.findings] == ["other_files"]
    (tmp_path / "empty").mkdir()
    assert [f.kind for f in walk_flat(tmp_path / "empty").findings] == ["no_images"]
    assert [f.kind for f in walk_flat(tmp_path / "no").findings] == ["missing"]


def test_times_and_sizes_are_those_of_the_files(tmp_path):
    """A change of a file changes its entry."""
    touch(tmp_path, "a/1.png", "b/2.png")
    before = walk(tmp_path).files
    Image.new("L", (9, 9)).save(tmp_path / "a" / "1.png")
    after = walk(tmp_path).files
    assert before[0] != after[0]
    assert before[1] == after[1]
