"""The page to draw on: its answers, what it refuses, and that a browser shows it."""

import contextlib
import importlib
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock
from urllib.request import urlopen

import matplotlib
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from mnist_keras.datasets import sources
from mnist_keras.datasets.image_folder.decoding import BadImageError
from mnist_keras.datasets.images import png
from mnist_keras.explanations.maps import hires_cam, occlusion
from mnist_keras.inference import demo
from mnist_keras.training.settings import Settings

# The module; in its package the name is the command's.
command = importlib.import_module("mnist_keras.cli.demo")
PATIENCE = 60  # seconds
any_backend, parametrize = pytest.mark.any_backend, pytest.mark.parametrize
PAPER = np.full((112, 112, 3), 255, np.uint8)
INK = PAPER.copy()
INK[20:28, 25:85] = INK[20:95, 60:68] = 0
DRAWING = png(INK)


@contextlib.contextmanager
def served(trained):
    with demo.listen() as listener, demo.serving(trained, listener) as address:
        yield address


def port_of(address):
    return int(address.rstrip("/").rpartition(":")[2])


@pytest.fixture(scope="module")
def port(trained):
    """Where the page of the model without convolutions is served."""
    with served(trained("basic_net")) as address:
        yield port_of(address)


def pixels_of(url):
    assert url.startswith("data:image/png;base64,")
    return np.asarray(Image.open(urlopen(url)))


def sent(port, lines, body=b""):
    """Return a connection over which this request was sent as it stands."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    head = lines.format(own=f"Host: 127.0.0.1:{port}", port=port).replace("\n", "\r\n")
    connection.sendall(f"{head}\r\n\r\n".encode("latin-1") + body)
    return connection


def stalled(port):
    """Return a connection over which a part of a body was sent."""
    return sent(port, "POST /predict HTTP/1.1\n{own}\nContent-Length: 999999", b".")


def request(port, lines, body=b""):
    """Return status, headers and body of the answer to a request."""
    with sent(port, lines, body) as connection:
        return answered(connection)


def answered(connection):
    """Return status, headers and body; every answer of ours is fenced, and so are refusals."""
    content = b""
    while part := connection.recv(65536):
        content += part
    head, _, body = content.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    if not status.endswith("400 Bad Request"):  # h11's, in plain text
        assert headers["content-security-policy"].startswith("default-src 'none'; ")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-length"] == str(len(body))
    return int(status.split()[1]), headers, body


def predict(port, content, lines="{own}"):
    """Return status and body of the answer to a drawing."""
    lines = f"POST /predict HTTP/1.1\nContent-Length: {len(content)}\n{lines}"
    status, _, body = request(port, lines, content)
    return status, body


def probabilities_of(trained, image):
    logits = trained.model.predict_on_batch(image[np.newaxis].astype("float32") / 255)
    return softmax(logits[0].astype(float))


@pytest.mark.slow
@parametrize("name", ["small_cnn", "basic_net"])
def test_answer_is_what_the_model_makes_of_the_drawing(trained, name):
    """Class, probabilities, image and map are those of the drawing as the model takes it."""
    trained = trained(name)
    found = demo.answer(trained, DRAWING)
    image = trained.card.input.bring(INK)
    expected = probabilities_of(trained, image)
    first = expected.argmax()
    assert found["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert found["class"] == trained.card.class_names[first]
    assert np.array_equal(pixels_of(found["image"]), image)
    explain = hires_cam if name == "small_cnn" else occlusion
    evidence = explain(trained.model, image[np.newaxis] / np.float32(255), np.array([first]))[0]
    assert evidence.max() == 1
    colored = 0.75 * 255 * matplotlib.colormaps["magma"](evidence)[..., :3] + 0.25 * image
    assert np.abs(pixels_of(found["map"]) - colored).max() <= 2
    assert json.loads(json.dumps(found)) == found


@parametrize("paper", [PAPER, np.zeros((50, 70, 1), np.uint8)])
def test_an_empty_paper_has_no_class(trained, paper):
    """If nothing is drawn, there is an image of the background, but no class."""
    found = demo.answer(trained("basic_net"), png(paper))
    assert found["class"] is found["probabilities"] is found["map"] is None
    assert not pixels_of(found["image"]).any()


def test_description_says_what_the_model_is(trained):
    """The page is told class names, training, accuracy with its interval, and method."""
    told = demo.description(trained("small_cnn"))
    score = trained("small_cnn").card.metrics.heldout
    low, high = (100 * bound for bound in score.interval)
    assert told["class_names"] == list("0123456789")
    assert told["title"] == (
        "small_cnn relu crossentropy adam 4 epochs seed 0, trained on 400 images of digits "
        f"(scikit-learn); accuracy on 1,297 other images {100 * score.accuracy:.1f} % "
        f"[{low:.1f}, {high:.1f}]"
    )
    assert told["method"] == "HiResCAM"
    assert demo.description(trained("basic_net"))["method"] == "occlusion"


def header(width, height):
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return DRAWING[:8] + struct.pack(">I", 13) + content + struct.pack(">I", zlib.crc32(content))


BAD_IMAGES = {
    "empty": (b"", "not a PNG image"),
    "text": (b"<html>", "not a PNG image"),
    "signature alone": (DRAWING[:8], "not a PNG image"),
    "header cut": (DRAWING[:18], "image"),
    "GIF": (b"GIF89a" + DRAWING[6:], "not a PNG image"),
    "cut": (DRAWING[: len(DRAWING) // 2], "truncated"),
    "wide": (png(np.zeros((10, 1025, 1), np.uint8)), "1025×10 pixels; at most 1024 per side"),
    "high": (header(10, 2**31 - 1), "at most 1024 per side"),
    "two sizes": (header(28, 28) + png(np.zeros((3000, 3000, 1), np.uint8))[8:], "two"),
    "small": (png(np.zeros((7, 7, 1), np.uint8)), "at least 8 per side"),
    "transparent": (png(np.zeros((28, 28, 4), np.uint8)), "transparent"),
}


@any_backend
@parametrize("name", BAD_IMAGES)
def test_bad_images_are_refused_with_their_reason(trained, port, name):
    """`answer` refuses all but small whole PNGs; the page gets 422 and one line of JSON."""
    content, reason = BAD_IMAGES[name]
    with pytest.raises(BadImageError):
        demo.answer(trained("basic_net"), content)
    status, body = predict(port, content)
    assert (status, body[-1:], body.count(b"\n")) == (422, b"\n", 1)
    assert reason in json.loads(body)["reason"]


@any_backend
def test_a_drawing_is_answered_at_both_names_of_this_machine(trained, port):
    """127.0.0.1 and localhost are served, and the answer is `answer`'s."""
    expected = demo.answer(trained("basic_net"), DRAWING)
    for name in ("127.0.0.1", "localhost", "LocalHost"):
        own = f"Host: {name}:{{port}}\nOrigin: http://{name.lower()}:{{port}}"
        status, body = predict(port, DRAWING, own)
        assert (status, json.loads(body)) == (200, expected)
    status, _, body = request(port, "GET /model HTTP/1.1\n{own}")
    assert (status, json.loads(body)) == (200, demo.description(trained("basic_net")))


HOSTS = ("127.0.0.1", "evil.example:{port}", "127.0.0.1:{port}.evil.example", "127.0.0.1:1")
ORIGINS = ("https://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:{port}", "")
LINES = ("GET /", "GET /model", "GET /other", "POST /predict")
UNKNOWN = ("GET /favicon.ico", "GET /../demo.py", "GET /model/", "POST /other")
UNWRITABLE = ("POST /", "DELETE /", "POST /model")
LENGTHS = ("abc", "-1", "+9", "1_0", "\xb2", "", "9" * 5000, "9\nContent-Length: 8")
REFUSED = [
    *((403, f"{line} HTTP/1.1\nHost: {host}", "") for line in LINES for host in HOSTS),
    *((403, f"{line} HTTP/1.1\n{{own}}\nOrigin: {o}", "") for line in LINES for o in ORIGINS),
    *((400, f"{line} HTTP/1.1", "") for line in LINES),
    *((400, f"{line} HTTP/1.1\n{{own}}\nHost: evil.example", "") for line in LINES),
    (403, "GET / HTTP/1.0", ""),
    *((404, f"{line} HTTP/1.1\n{{own}}", "") for line in UNKNOWN),
    *((405, f"{line} HTTP/1.1\n{{own}}", "GET, HEAD") for line in UNWRITABLE),
    *((405, f"{m} /predict HTTP/1.1\n{{own}}", "POST") for m in ("GET", "PUT", "OPTIONS")),
    (400, "<script> HTTP/1.1\n{own}", ""),
    *((400, f"POST /predict HTTP/1.1\n{{own}}\nContent-Length: {n}", "") for n in LENGTHS),
    (411, "POST /predict HTTP/1.1\n{own}", ""),
    (411, "POST /predict HTTP/1.1\n{own}\nTransfer-Encoding: chunked", ""),
    (411, "POST /predict HTTP/1.1\n{own}\nContent-Length: 9\nTransfer-Encoding: chunked", ""),
    (413, "POST /predict HTTP/1.1\n{own}\nContent-Length: 1000001", ""),
]


@any_backend
@parametrize(("status", "lines", "allow"), REFUSED)
def test_other_requests_are_refused(port, status, lines, allow):
    """Other hosts, origins, paths and methods, and bodies of no clear length are refused."""
    found, headers, body = request(port, lines, b"too short" if lines[0] == "P" else b"")
    assert (found, set(headers.get("allow", "").split(", "))) == (status, set(allow.split(", ")))
    assert status == 400 or json.loads(body)["reason"]


@any_backend
def test_the_page_allows_its_own_script_once(port):
    """Script and style run by a nonce of this copy alone, and the page loads nothing else."""
    nonces = set()
    for _ in range(2):
        status, headers, body = request(port, "GET / HTTP/1.1\n{own}")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        (nonce,) = set(re.findall(r"'nonce-([^']+)'", headers["content-security-policy"]))
        assert body.decode().count(f'nonce="{nonce}"') == 2
        assert b"//" not in re.sub(rb"\s// .*", b"", body)
        nonces.add(nonce)
    assert len(nonces) == 2


@any_backend
def test_the_server_listens_to_this_machine_alone(port):
    """It is bound to one address of the loopback interface, not to all addresses."""
    with pytest.raises(OSError, match=r"refused|timed out|assign"):
        socket.create_connection(("127.0.0.2", port), timeout=1)


@any_backend
def test_clients_that_stall_or_drip_block_nobody(port, monkeypatch):
    """Unfinished requests delay no drawing, and a byte now and then keeps no connection open."""
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(stalled(port))
            silent = socket.create_connection(("127.0.0.1", port))
            stack.enter_context(silent).sendall(b"GET / HTTP/1.1\r\n")
        assert predict(port, DRAWING)[0] == 200
    monkeypatch.setattr(demo, "_SECONDS", 0.3)
    with stalled(port) as connection:
        connection.settimeout(0.05)
        for _ in range(20 * PATIENCE):
            with contextlib.suppress(TimeoutError):
                assert answered(connection)[0] == 408
                return
            connection.sendall(b".")
    pytest.fail("the connection stays open")


@any_backend
def test_the_model_is_called_by_one_thread_at_a_time(port, monkeypatch):
    """Drawings that come together are answered one after the other."""
    inside, most = [], []

    def slow(trained, content):
        inside.append(content)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()

    monkeypatch.setattr(demo, "answer", slow)
    with ThreadPoolExecutor(6) as pool:
        assert [*pool.map(predict, [port] * 6, [DRAWING] * 6)] == [(200, b"null\n")] * 6
    assert most == [1] * 6


@any_backend
def test_serving_says_nothing(port, capfd, caplog):
    """Nothing is printed or logged about requests, refused or broken, or about closed pages."""
    predict(port, DRAWING)
    for lines in ("GET /other", "<script>", "GET /\nConnection: Upgrade\nUpgrade: websocket"):
        request(port, lines.replace("\n", " HTTP/1.1\n{own}\n", 1))
    stalled(port).close()
    with stalled(port) as connection:  # reset before the answer
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for _ in range(3):  # by then, the server knows of the closed ones
        predict(port, DRAWING)
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


@pytest.fixture
def opened(monkeypatch):
    """The browser that is asked to open the page; Ctrl-C comes at once."""
    monkeypatch.setattr(command, "time", Mock(sleep=Mock(side_effect=KeyboardInterrupt)))
    monkeypatch.setattr(command.webbrowser, "open", Mock())
    return command.webbrowser.open


@any_backend
def test_stdout_is_the_address_that_the_browser_opens(opened, model_file, invoke):
    """Only the address goes to stdout; the browser opens it, unless that is switched off."""
    found = invoke("demo", model_file("basic_net"), code=130)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", found.stdout)
    opened.assert_called_once_with(found.stdout.strip())
    invoke("demo", model_file("basic_net"), "--no-browser", code=130)
    opened.assert_called_once()


@any_backend
def test_without_a_file_the_original_is_trained(opened, trained, monkeypatch, invoke):
    """The default model has the original's settings and seed 0 on the data that `train` draws."""
    digits, train_model = (sources.load("digits", None, 3), "offline"), Mock()
    train_model.return_value = trained("basic_net")
    monkeypatch.setattr("mnist_keras.inference.trained_model.train_model", train_model)
    monkeypatch.setattr(sources, "default", lambda *_, channels: digits)
    found = invoke("demo", "--no-browser", code=130)
    train_model.assert_called_once()
    (settings, seed, data), options = train_model.call_args
    assert options.keys() == {"on_epoch"}
    assert (settings, seed, len(data.images)) == (Settings(), 0, 500)
    assert "(offline)" in found.stderr
    assert len(found.stdout.splitlines()) == 1


@any_backend
def test_what_is_not_available_is_one_line(opened, model_file, port, monkeypatch, invoke):
    """A port in use is a usage error with the reason; missing packages are named."""
    found = invoke("demo", model_file("basic_net"), "--port", port, code=2)
    assert f"--port {port}: Address already in use" in found.stderr
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "mnist_keras.inference.demo")
    found = invoke("demo", model_file("basic_net"), code=4)
    assert found.stdout == ""
    assert 'pip install "mnist-keras[demo]"' in found.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=any_backend), (signal.SIGTERM, 143)],
)
def test_the_program_serves_until_it_is_stopped(model_file, number, code):
    """Once the address is printed, it answers; Ctrl-C and SIGTERM end it with their codes, soon."""
    arguments = ["-m", "mnist_keras", "demo", str(model_file("basic_net")), "--no-browser"]
    with subprocess.Popen([sys.executable, *arguments], stdout=-1, stderr=-1, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            with urlopen(f"{address}model", timeout=PATIENCE) as told:
                assert json.load(told)["method"] == "occlusion"
            with stalled(port_of(address)):
                process.send_signal(number)
                rest, said = process.communicate(timeout=demo._SECONDS - 1)
        finally:
            process.kill()
    assert (process.returncode, rest) == (code, ""), said
    assert "Traceback" not in said


@pytest.fixture
def browser(tmp_path):
    """A headless Chromium of the test's own."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run window-size=640,900"
    more = "disable-background-networking disable-component-update disable-sync"
    for flag in f"{flags} {more}".split():
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield started
    started.quit()


def settled(browser, **texts):
    """Wait until the page has had its last answer and says so."""
    from selenium.webdriver.support.ui import WebDriverWait

    def says(_):
        busy = browser.find_element("id", "answer").get_attribute("aria-busy")
        found = {name: browser.find_element("id", name).text for name in texts}
        return busy == "false" and all(re.fullmatch(texts[name], found[name]) for name in texts)

    WebDriverWait(browser, PATIENCE, 0.1).until(says)


@pytest.mark.slow
@any_backend
@parametrize("kind", ["mouse", "touch"])
def test_a_browser_shows_what_the_model_makes_of_strokes(trained, browser, kind):
    """Strokes show the class that the model gives to the image; a key press clears them."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput
    from selenium.webdriver.common.keys import Keys

    trained, find = trained("small_cnn"), browser.find_element
    with served(trained) as address:
        browser.get(address)
        settled(browser, sure="Nothing drawn yet")
        canvas = find("tag name", "canvas")
        for stroke in ([(-80, -120), (80, -120), (0, 120)], [(-50, 0), (60, 0)]):
            actions = ActionBuilder(browser, mouse=PointerInput(kind, "pen"), duration=50)
            pen = actions.pointer_action.move_to(canvas, *stroke[0]).pointer_down()
            for point in stroke[1:]:
                pen.move_to(canvas, *point)
            pen.pointer_up()
            actions.perform()
        settled(browser, sure="with probability .*")

        shown = pixels_of(find("id", "image").get_attribute("src"))
        expected = probabilities_of(trained, shown)
        drawn = pixels_of(browser.execute_script("return arguments[0].toDataURL()", canvas))
        assert np.array_equal(shown, trained.card.input.bring(drawn[..., :3]))
        scale = drawn.shape[0] / canvas.size["height"]
        middle = drawn.shape[0] // 2
        for x, y in [(0, -120), (40, 0), (-40, 0), (0, 120)]:  # on the strokes
            assert drawn[middle + round(y * scale), middle + round(x * scale), 0] < 128
        assert 0.03 < (drawn[..., 0] < 128).mean() < 0.2
        first = expected.argmax()
        assert find("id", "class").text == find("css selector", "tr.first th").text == str(first)
        rows = [row.text.split() for row in browser.find_elements("css selector", "tbody tr")]
        assert [name for name, *_ in rows] == list("0123456789")
        assert [float(p) for _, p, _ in rows] == pytest.approx(100 * expected, abs=0.1)
        bars = browser.find_elements("css selector", ".bar div")
        assert max(bars, key=lambda bar: bar.size["width"]) == bars[first]
        assert pixels_of(find("id", "map").get_attribute("src")).any()

        find("tag name", "body").send_keys(Keys.TAB)
        assert browser.switch_to.active_element == find("id", "clear")
        find("id", "clear").send_keys(Keys.ENTER)
        settled(browser, sure="Nothing drawn yet", **{"class": ""})
        assert not pixels_of(find("id", "image").get_attribute("src")).any()

        asked = browser.execute_script("return performance.getEntries().map(entry => entry.name)")
        assert all(name.startswith((address, "data:")) for name in asked if ":" in name)
        assert browser.get_log("browser") == []


@any_backend
def test_the_page_fits_a_phone_and_says_that_the_program_has_ended(trained, browser):
    """On 360 pixels nothing scrolls sideways, ten classes not at all; lost strokes say why."""
    size = {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    with served(trained("basic_net")) as address:
        browser.get(address)
        settled(browser, sure="Nothing drawn yet")
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        bars = browser.find_element("class name", "bars")
        for side in ("Height", "Width"):
            assert bars.get_property(f"scroll{side}") == bars.get_property(f"client{side}")
    browser.find_element("tag name", "canvas").click()
    settled(browser, trouble="No answer from the program .*")
