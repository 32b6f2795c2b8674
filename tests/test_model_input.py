"""What a model takes: photos, other sizes and inverted images get the form it was trained on."""

import io

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageDraw

from mnist_keras.datasets import sources
from mnist_keras.datasets.image_folder.reading import ImageForm
from mnist_keras.datasets.image_folder.resizing import resize
from mnist_keras.inference.model_input import ModelInput, written

pytestmark = pytest.mark.any_backend


def model_input(background="dark", resized=False, mode="rgb"):
    return ModelInput(ImageForm(mode), background, resized)


def ring(side=28, center=(14, 14), radius=8.0, width=2.5):
    """A bright ring on black, in three channels."""
    y, x = np.mgrid[:side, :side]
    distance = np.hypot(y - center[0] + 0.5, x - center[1] + 0.5)
    gray = 255 * (0.5 + width / 2 - np.abs(distance - radius)).clip(0, 1)
    return np.repeat(np.rint(gray).astype(np.uint8)[..., np.newaxis], 3, axis=-1)


def enlarged(image, times):
    return np.kron(image, np.ones((times, times, 1), np.uint8))


def test_of_training_images():
    """Background, channels, size and resizing are read off the training images."""
    dark = np.stack([ring()] * 10)
    assert ModelInput.of(dark) == model_input("dark")
    assert ModelInput.of(255 - dark) == model_input("bright")
    assert ModelInput.of(np.concatenate([dark, 255 - dark])).background == "mixed"
    assert ModelInput.of(dark.astype(np.float32)).resized
    assert ModelInput.of(dark[:, :20, :24, :1]).form == ImageForm("grayscale", (20, 24))
    assert [model_input(g).background_level for g in ("dark", "bright", "mixed")] == [0, 255, 128]


def test_an_image_of_the_models_kind_is_left_alone():
    """If size and background are right, not a bit changes, unless the ink is asked for."""
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    image[[0, -1]] = image[:, [0, -1]] = 0
    for fit in ("auto", "resize"):
        assert_array_equal(model_input().bring(image, fit=fit), image)


@pytest.mark.parametrize("background", ["dark", "bright", "mixed"])
@pytest.mark.parametrize("invert", ["auto", "yes", "no"])
def test_ink_is_centered_at_the_models_size_too(background, invert):
    """`fit="ink"` moves and scales a digit of 28×28 pixels, with the levels that are asked for."""
    found = model_input(background).bring(ring(28, (10, 17), 6), invert, "ink")[..., 0]
    is_dark = background == "bright" if invert == "auto" else invert == "yes"
    gray = 255 - found if is_dark else found
    for axis in (0, 1):
        inked = np.flatnonzero((gray > 127).any(axis))
        assert inked[0] in (4, 5)
        assert inked[-1] in (23, 24)
    assert (gray[[0, -1]] == 0).all()


@pytest.mark.parametrize("invert", ["auto", "yes", "no"])
@pytest.mark.parametrize("background", ["dark", "bright", "mixed"])
def test_invert(background, invert):
    """Dark ink on light paper is inverted for a model that saw the reverse, or on demand."""
    inverted = invert == "yes" or (background, invert) == ("dark", "auto")
    expected = ring() if inverted else 255 - ring()
    assert_array_equal(model_input(background).bring(255 - ring(), invert), expected)


def test_alpha_is_not_inverted():
    """In an image with an alpha channel, only the colors are inverted."""
    paper = np.concatenate([255 - ring(), np.full((28, 28, 1), 255, np.uint8)], axis=-1)
    brought, large = (model_input(mode="rgba").bring(enlarged(paper, n)) for n in (1, 4))
    assert_array_equal(brought[..., :3], ring())
    assert (brought[..., 3] == 255).all()
    assert large.shape == (28, 28, 4)
    assert (large[..., 3] == 255).all()


def photo(width=16, shade=60, noise=6):
    """Blue ink on lighter paper, shaded to one side, grainy and saved as JPEG."""
    ink = ring(300, (190, 100), 50, width)[..., :1] / 255
    slope = shade * np.linspace(-0.5, 0.5, 300)[:, np.newaxis, np.newaxis]
    colors = np.array([225, 220, 205]) * (1 - ink) + np.array([40, 50, 110]) * ink
    grainy = colors + slope + np.random.default_rng(0).normal(0, noise, (300, 300, 1))
    file = io.BytesIO()
    Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=80)
    return np.array(Image.open(file))


@pytest.mark.parametrize("background", ["dark", "bright"])
@pytest.mark.parametrize("shade", [0, 60, 180])
def test_a_photo_becomes_a_centered_digit(background, shade):
    """Ink is found on shaded paper and put where MNIST has it: 20 pixels long, in the middle."""
    brought = model_input(background).bring(photo(shade=shade))
    assert (brought.shape, brought.dtype) == ((28, 28, 3), np.uint8)
    assert (brought == brought[..., :1]).all()
    gray = (brought if background == "dark" else 255 - brought)[..., 0]
    rows, columns = (np.flatnonzero((gray > 127).any(axis)) for axis in (1, 0))
    for found in (rows, columns):
        assert found[0] in (4, 5)
        assert found[-1] in (23, 24)
    assert gray.max() == 255
    assert (gray[[0, 1, -2, -1]] == 0).all()
    # Twenty pixels about pixel 14 begin at 4 or at 5.
    centers = [(y, x) for y in (14, 15) for x in (14, 15)]
    expected = [ring(28, c, 20 * 50 / 116, 20 * 16 / 116)[..., 0].astype(int) for c in centers]
    assert min(np.abs(gray - one).mean() for one in expected) < 10


def test_a_thin_line_is_thickened():
    """A pen's line keeps about two pixels when it is made small."""
    thin = model_input().bring(photo(width=3, shade=0, noise=0))[..., 0]
    assert 2.0 < (thin[14] / 255).sum() / 2 < 3.5


def test_specks_are_not_ink():
    """A few dark pixels beside the digit do not move it."""
    clean, specked = photo(noise=0), photo(noise=0)
    specked[20:23, 280:283] = 0
    difference = model_input().bring(clean).astype(int) - model_input().bring(specked)
    assert np.abs(difference).max() <= 2


COLORS = {
    "red on white": ((200, 0, 0), (255, 255, 255)),
    "yellow on white": ((255, 255, 0), (255, 255, 255)),
    "blue on gray": ((0, 0, 255), (85, 85, 85)),
    "red on green": ((200, 40, 40), (40, 200, 40)),
    "white on blue": ((250, 250, 250), (20, 40, 160)),
}


@pytest.mark.parametrize("colors", COLORS)
@pytest.mark.parametrize("background", ["dark", "bright"])
def test_ink_is_found_by_its_color(colors, background):
    """Ink of any color is what black ink is, also where its mean level is that of the paper."""
    ink, paper = map(np.array, COLORS[colors])
    share = ring(300, (190, 100), 50, 16)[..., :1] / 255
    grain = np.random.default_rng(0).normal(0, 2, (300, 300, 1))
    page, plain = (
        paper * (1 - share) + ink * share + grain,
        np.repeat(255 * (1 - share), 3, axis=-1),
    )
    page, plain = (x.clip(0, 255).astype(np.uint8) for x in (page, plain))
    found, expected = (model_input(background).bring(x).astype(int) for x in (page, plain))
    # A center between two pixels may be put on either.
    moved = [np.roll(expected, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert min(np.abs(found - one).mean() for one in moved) < 4


def page_of(*rings, size=(300, 400), lines=(), grain=2):
    """Return dark rings, and lines of pixels from one point to another, on light paper."""
    ink = np.zeros((400, 400))
    for center, radius in rings:
        ink = np.maximum(ink, ring(400, center, radius, 14)[..., 0] / 255)
    picture = Image.fromarray((255 * ink[: size[0]]).astype(np.uint8))
    for points in lines:
        ImageDraw.Draw(picture).line(points, fill=255, width=4)
    noise = np.random.default_rng(0).normal(0, grain, (*size, 1))
    page = 230 - np.asarray(picture)[..., np.newaxis] * (180 / 255) + noise
    return np.repeat(page.clip(0, 255).astype(np.uint8), 3, axis=-1)


DIGIT = ((150, 200), 60)
FRAME = [(1, 1), (398, 1), (398, 298), (1, 298), (1, 1)]
CROWDED = {
    "one": (page_of(DIGIT), ""),
    "one, to the edge": (page_of(((120, 120), 110), size=(240, 400))[:, :240], ""),
    "a minus below": (page_of(DIGIT, lines=[[(150, 250), (250, 250)]]), ""),
    "beside each other": (page_of(((150, 100), 50), ((150, 300), 60)), "several digits"),
    "below each other": (page_of(((70, 200), 50), ((220, 200), 60)), "several digits"),
    "three": (page_of(*(((150, x), 40) for x in (60, 200, 340))), "several digits"),
    "touching": (page_of(((150, 100), 50), ((150, 200), 52), ((150, 300), 50)), "several digits"),
    "a line": (page_of(DIGIT, lines=[[(0, 250), (400, 262)]]), "a line"),
    "a margin": (page_of(DIGIT, lines=[[(60, 0), (60, 300)]]), "a line"),
    "ruled": (page_of(DIGIT, lines=[[(0, y), (400, y)] for y in range(20, 300, 50)]), "a line"),
    "a box": (
        page_of(DIGIT, lines=[[(90, 50), (310, 60), (308, 250), (88, 240), (90, 50)]]),
        "a box",
    ),
    "a frame": (page_of(DIGIT, lines=[FRAME]), "a box"),
}


@pytest.mark.parametrize("case", CROWDED)
def test_more_than_a_digit_is_remarked_on(case):
    """Several digits, ruled lines and boxes are named once; a single digit is not remarked on."""
    page, expected = CROWDED[case]
    said = []
    model_input().bring(page, remark=lambda kind, reason: said.append((kind, reason)))
    assert [kind for kind, _ in said] == (["crowded"] if expected else [])
    assert all(expected in reason for _, reason in said)


def test_fit():
    """Resizing is that of training; it is the default if training images were resized."""
    large = enlarged(ring(), 3)
    resized = resize(large, (28, 28), "bilinear")
    assert_array_equal(model_input().bring(large, fit="resize"), resized)
    assert_array_equal(model_input(resized=True).bring(large), resized)
    assert_array_equal(model_input("mixed").bring(large), resized)
    ink = model_input(resized=True).bring(large, fit="ink")
    assert ink.dtype == np.uint8
    assert_array_equal(model_input().bring(large), ink)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_image_stays_empty(level):
    """An image without ink stays without ink: no warning, no enlarged noise."""
    empty = np.full((50, 40, 3), level, np.uint8)
    brought = model_input().bring(empty)
    assert brought.shape == (28, 28, 3)
    assert np.ptp(brought) == 0
    assert not written(empty[..., 0].astype(np.float32)).any()
    assert not model_input().shows_something(brought)


@pytest.mark.parametrize("grain", [1, 5, 20])
@pytest.mark.parametrize("shade", [0, 40])
@pytest.mark.parametrize("side", [28, 90, 300])
def test_grain_and_shade_are_not_ink(grain, shade, side):
    """A photo of an empty page is empty: grain and uneven light are no digit."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    light = 220 - shade * (x**2 + y**2 + x) / 2
    noise = np.random.default_rng(side).normal(0, grain, (side, side))
    page = np.repeat((light + noise).clip(0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=-1)
    brought = model_input().bring(page, fit="ink")
    assert np.ptp(brought) == 0
    assert not model_input().shows_something(brought)
    if shade == 0 and grain < 5:  # at the model's size, the page itself is looked at
        assert not model_input().shows_something(page)


@pytest.mark.parametrize("background", ["dark", "bright", "mixed"])
def test_ink_beside_a_frame_is_not_an_empty_page(background):
    """A page with dark edges on two sides is not taken for grain."""
    page = page_of(DIGIT, lines=[[(1, 0), (1, 300)], [(0, 298), (400, 298)]])
    found = model_input(background).bring(page, fit="ink")
    assert model_input(background).shows_something(found)


@pytest.mark.parametrize("background", ["dark", "bright", "mixed"])
def test_faint_ink_shows_something(background):
    """Ink that differs from its paper by 10 levels is not an empty page."""
    faint = 200 - (ring(28) // 25)
    assert model_input(background).shows_something(faint)


def test_a_large_photo_gives_the_digit_of_a_small_one():
    """A photo of many pixels is reduced first; the digit is the same."""
    small = model_input().bring(photo(noise=0)).astype(int)
    found = model_input().bring(enlarged(photo(noise=0), 5)).astype(int)
    # A center between two pixels may be put on either.
    moved = [np.roll(small, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert min(np.abs(found - one).mean() for one in moved) < 4


@pytest.mark.parametrize("shape", [(8, 300), (300, 8), (29, 28)])
def test_odd_shapes(shape):
    """A digit of any shape fits; its longer side has 20 pixels."""
    image = np.zeros((*shape, 3), np.uint8)
    image[1:-1, 1:-1] = 255
    gray = model_input().bring(image, "no")[..., 0] > 127
    height, width = gray.any(1).sum(), gray.any(0).sum()
    assert max(height, width) in (19, 20)
    assert (height > width) == (shape[0] > shape[1])


def test_genuine_digits_as_photos(mnist_idx):
    """Digits that are enlarged, inverted and moved come back nearly as they were."""
    images = sources.load("mnist", mnist_idx, channels=3).images[:200]
    off = []
    for image in images:
        large = np.asarray(Image.fromarray(image).resize((280, 280), Image.Resampling.BICUBIC))
        page = np.full((400, 500, 3), 235, np.uint8)
        page[90:370, 30:310] = np.minimum(235, 255 - large)
        off.append(np.abs(model_input().bring(page).astype(int) - image).mean())
    # Two different digits are 50 levels apart on average.
    assert np.mean(off) < 12
    assert np.quantile(off, 0.95) < 22
