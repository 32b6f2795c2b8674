"""The page one draws on: what it is answered, whom it refuses, and that a browser shows it."""

import base64
import contextlib
import importlib
import io
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zlib

import matplotlib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mnist_keras.cli.train import train_model
from mnist_keras.datasets import sources
from mnist_keras.datasets.image_folder.decoding import BadImageError
from mnist_keras.datasets.splits import draw
from mnist_keras.explanations.maps import hires_cam, occlusion
from mnist_keras.inference import demo
from mnist_keras.inference.model_file import save_model
from mnist_keras.training.data import Data
from mnist_keras.training.settings import Settings

# The module; in its package the name is the command's.
command = importlib.import_module("mnist_keras.cli.demo")
PATIENCE = 60  # seconds


def trained_on_digits(**settings):
    digits = sources.load("digits", channels=3)
    return train_model(Settings(**settings), 0, Data(*draw(digits, 20, 0)))


@pytest.fixture(scope="module")
def networks():
    """A network with convolutions and one without, each after a few steps."""
    return {
        "cnn": trained_on_digits(model="cnn", epochs=1, batch_size=40),
        "basic_net": trained_on_digits(model="basic_net", epochs=3, batch_size=40),
    }


@contextlib.contextmanager
def served(trained):
    with demo.server(trained) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def port(networks):
    """Where the page of the small network is served."""
    with served(networks["basic_net"]) as server:
        yield server.server_port


def png(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


def drawing(*lines, size=112):
    """Return the PNG of a white paper with black lines from (x, y) to (x, y), in hundredths."""
    paper = np.full((size, size, 3), 255, np.uint8)
    for (x0, y0), (x1, y1) in lines:
        for t in np.linspace(0, 1, size):
            x, y = (round((a + t * (b - a)) * size / 100) for a, b in ((x0, x1), (y0, y1)))
            paper[y - 4 : y + 4, x - 4 : x + 4] = 0
    return png(paper)


SEVEN = drawing(((25, 20), (75, 20)), ((75, 20), (45, 85)))


def pixels_of(url):
    kind, content = url.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def request(port, *lines, body=b"", host=True):
    """Send a request as it stands; return status, headers and body of the answer."""
    if host:
        lines = [*lines, f"Host: 127.0.0.1:{port}"]
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        connection.shutdown(socket.SHUT_WR)
        return parts_of(received(connection))


def received(connection):
    content = b""
    while part := connection.recv(65536):
        content += part
    return content


def parts_of(content):
    head, _, body = content.partition(b"\r\n\r\n")
    status, *headers = head.decode("latin-1").split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in headers), body


def predict(port, content, *headers, **options):
    length = f"Content-Length: {len(content)}"
    return request(port, "POST /predict HTTP/1.1", length, *headers, body=content, **options)


@pytest.mark.parametrize("name", ["cnn", "basic_net"])
def test_answer_is_what_the_model_makes_of_the_drawing(networks, name):
    """Class, probabilities, image and map are those of the brought drawing; occlusion without
    convolutions."""
    trained = networks[name]
    found = demo.answer(trained, SEVEN)

    rgb = np.asarray(Image.open(io.BytesIO(SEVEN)))
    image = trained.card.input.bring(rgb)
    logits = trained.model.predict_on_batch(image[np.newaxis].astype("float32") / 255)[0]
    odds = np.exp(logits.astype(float) - logits.max())
    assert found["probabilities"] == pytest.approx(odds / odds.sum(), abs=1e-6)
    assert found["class"] == trained.card.class_names[logits.argmax()]
    assert np.array_equal(pixels_of(found["image"]), image)
    explain = hires_cam if name == "cnn" else occlusion
    evidence = explain(trained.model, image[np.newaxis], np.array([logits.argmax()]))[0]
    assert evidence.max() == 1
    expected = 0.75 * 255 * matplotlib.colormaps["magma"](evidence)[..., :3] + 0.25 * image
    assert np.abs(pixels_of(found["map"]) - expected).max() <= 2
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("paper", [drawing(), png(np.zeros((50, 70), np.uint8))])
def test_an_empty_paper_has_no_class(networks, paper):
    """Without anything drawn there is an image of the background, but no class."""
    found = demo.answer(networks["basic_net"], paper)
    assert found["class"] is found["probabilities"] is found["map"] is None
    assert not pixels_of(found["image"]).any()


def test_description_says_what_the_model_is(networks):
    """The page is told class names, training, accuracy with its interval, and method."""
    told = demo.description(networks["cnn"])
    score = networks["cnn"].card.metrics["heldout"]
    assert told["class_names"] == list("0123456789")
    assert told["title"].startswith("cnn relu focal adam 1 epochs batch_size 40 seed 0, trained on")
    assert "160 images of digits (scikit-learn); accuracy on 1,597 others " in told["title"]
    assert f"{100 * score['accuracy']:.1f} % [{100 * score['interval'][0]:.1f}," in told["title"]
    assert told["method"] == "HiResCAM"
    assert demo.description(networks["basic_net"])["method"] == "occlusion"


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def header(width, height):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


BAD_IMAGES = {
    "empty": (b"", "not a PNG image"),
    "text": (b"<html>", "not a PNG image"),
    "signature alone": (SEVEN[:8], "not a PNG image"),
    "header cut": (SEVEN[:18], "image"),
    "GIF": (b"GIF89a" + SEVEN[6:], "not a PNG image"),
    "cut": (SEVEN[: len(SEVEN) // 2], "truncated"),
    "wide": (png(np.zeros((10, 1025), np.uint8)), "1025×10 pixels; at most 1024 a side"),
    "high": (SEVEN[:8] + header(10, 2**31 - 1), "at most 1024 a side"),
    "two sizes": (SEVEN[:8] + header(28, 28) + png(np.zeros((3000, 3000), np.uint8))[8:], "two"),
    "small": (png(np.zeros((7, 7), np.uint8)), "at least 8 a side"),
    "transparent": (png(np.zeros((28, 28, 4), np.uint8)), "transparent"),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_refused_with_their_reason(networks, port, name):
    """What is no small whole PNG gets 422 and one line of JSON, and is refused by `answer`."""
    content, reason = BAD_IMAGES[name]
    with pytest.raises(BadImageError):
        demo.answer(networks["basic_net"], content)
    status, _, body = predict(port, content)
    assert status == 422
    assert body.endswith(b"\n")
    assert body.count(b"\n") == 1
    assert reason in json.loads(body)["reason"]


@pytest.mark.any_backend
def test_a_drawing_is_answered_at_both_names_of_this_machine(networks, port):
    """127.0.0.1 and localhost are served, and the answer is `answer`'s."""
    expected = demo.answer(networks["basic_net"], SEVEN)
    for name in ("127.0.0.1", "localhost", "LocalHost"):
        at = f"{name}:{port}"
        own = (f"Host: {at}", f"Origin: http://{at.lower()}")
        status, _, body = predict(port, SEVEN, *own, host=False)
        assert (status, json.loads(body)) == (200, expected)
    status, _, body = request(port, "GET /model HTTP/1.1")
    assert (status, json.loads(body)) == (200, demo.description(networks["basic_net"]))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["127.0.0.1"],
        ["evil.example:{port}"],
        ["127.0.0.1:{port}.evil.example"],
        ["127.0.0.1:1"],
        ["127.0.0.1:{port}", "evil.example"],
    ],
)
def test_other_hosts_are_refused(port, hosts):
    """A name of someone else's that leads to this machine gets nothing from any path."""
    lines = [f"Host: {host.format(port=port)}" for host in hosts]
    for path in ("/", "/model", "/other"):
        assert request(port, f"GET {path} HTTP/1.1", *lines, host=False)[0] == 403
    assert predict(port, SEVEN, *lines, host=False)[0] == 403


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:{port}", ""]
)
def test_other_origins_are_refused(port, origin):
    """A page of another origin cannot post here."""
    assert predict(port, SEVEN, f"Origin: {origin.format(port=port)}")[0] == 403


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("lengths", "status"),
    [
        ([], 411),
        (["abc"], 400),
        (["-1"], 400),
        (["+9"], 400),
        (["1_0"], 400),
        (["\xb2"], 400),
        ([""], 400),
        (["9", "9"], 400),
        (["1000001"], 413),
        (["9" * 5000], 413),
        (["500"], 400),  # of which 9 come
    ],
)
def test_length_is_required_and_bounded(port, lengths, status):
    """A body has one Content-Length, a number up to a million, and is as long as that."""
    lines = [f"Content-Length: {length}" for length in lengths]
    found, _, body = request(port, "POST /predict HTTP/1.1", *lines, body=b"too short")
    assert found == status
    assert json.loads(body)["reason"]


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("line", "status", "allow"),
    [
        ("GET /favicon.ico HTTP/1.1", 404, None),
        ("GET /../demo.py HTTP/1.1", 404, None),
        ("POST /other HTTP/1.1", 404, None),
        ("GET /predict HTTP/1.1", 405, "POST"),
        ("POST / HTTP/1.1", 405, "GET"),
        ("POST /model HTTP/1.1", 405, "GET"),
        ("PUT /predict HTTP/1.1", 501, None),
        ("OPTIONS /predict HTTP/1.1", 501, None),
        ("<script> HTTP/1.1", 400, None),
        (f"GET /{'a' * 70_000} HTTP/1.1", 414, None),
    ],
)
def test_other_paths_and_methods_are_refused(port, line, status, allow):
    """There are three paths, each with one method; everything else is refused in JSON."""
    found, headers, body = request(port, line)
    assert (found, headers.get("Allow")) == (status, allow)
    assert json.loads(body)["reason"]


@pytest.mark.any_backend
def test_every_answer_is_fenced(port):
    """Page, answers and refusals forbid what they do not need, and to be stored."""
    answers = [
        request(port, "GET / HTTP/1.1"),
        predict(port, SEVEN),
        predict(port, b""),
        request(port, "GET /other HTTP/1.1"),
        request(port, "DELETE / HTTP/1.1"),
    ]
    for _, headers, body in answers:
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Content-Length"] == str(len(body))


@pytest.mark.any_backend
def test_the_page_allows_its_own_script_once(port):
    """Script and style run by a nonce that no other copy of the page has, and nothing else is
    asked for."""
    nonces = set()
    for _ in range(2):
        status, headers, body = request(port, "GET / HTTP/1.1")
        assert status == 200
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        (nonce,) = set(re.findall(r"'nonce-([^']+)'", headers["Content-Security-Policy"]))
        assert body.decode().count(f'nonce="{nonce}"') == 2
        assert b"//" not in re.sub(rb"\s// .*", b"", body)
        nonces.add(nonce)
    assert len(nonces) == 2


@pytest.mark.any_backend
def test_the_server_listens_to_this_machine_alone(networks):
    """It is bound to the loopback address, and asks nobody for a name."""
    with demo.server(networks["basic_net"]) as server:
        assert server.socket.getsockname() == ("127.0.0.1", server.server_port)


@pytest.mark.any_backend
@pytest.mark.parametrize("sent", [b"", b"POST /predict HTTP/1.1\r\nContent-Length: 9\r\n"])
def test_a_client_that_stalls_is_let_go(port, monkeypatch, sent):
    """A connection on which nothing comes is closed."""
    monkeypatch.setattr(demo._Handler, "timeout", 0.2)
    monkeypatch.setattr(demo, "_SECONDS", 10 * PATIENCE)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(sent)
        assert received(connection) == b""


@pytest.mark.any_backend
def test_a_client_that_drips_is_let_go(port, monkeypatch):
    """A byte now and then does not keep a connection open."""
    monkeypatch.setattr(demo, "_SECONDS", 0.5)
    monkeypatch.setattr(demo._Handler, "timeout", PATIENCE)
    own = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=0.05) as connection:
        connection.sendall(own.encode())
        found, end = b"", time.monotonic() + PATIENCE
        while not found and time.monotonic() < end:
            connection.sendall(b".")
            with contextlib.suppress(TimeoutError):
                found = connection.recv(65536)
    assert found.startswith(b"HTTP/1.0 400 ")


@pytest.mark.any_backend
def test_the_model_is_called_by_one_thread_at_a_time(port, monkeypatch):
    """Drawings that come together are answered one after the other."""
    inside, most = [], []

    def slow(trained, content):
        inside.append(content)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return {}

    monkeypatch.setattr(demo, "answer", slow)
    threads = [threading.Thread(target=predict, args=(port, SEVEN)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


@pytest.mark.any_backend
def test_serving_says_nothing(port, capfd):
    """Neither requests nor refusals nor a page that was closed are printed."""
    predict(port, SEVEN)
    request(port, "GET /other HTTP/1.1")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        # An end without a goodbye: the answer finds nobody.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode())
    predict(port, SEVEN)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def model_file(networks, tmp_path):
    """The file of the small network."""
    path = tmp_path / "small.keras"
    save_model(path, networks["basic_net"])
    return path


@pytest.fixture
def opened(monkeypatch):
    """The addresses that the browser was asked for, one line each; nothing is served."""
    addresses = []
    monkeypatch.setattr(command.webbrowser, "open", addresses.append)
    monkeypatch.setattr(demo.ThreadingHTTPServer, "serve_forever", lambda self: time.sleep(0.2))
    return addresses


@pytest.mark.any_backend
def test_stdout_is_the_address_that_the_browser_opens(opened, model_file):
    """The address alone goes to stdout; the browser is opened there unless it is not wanted."""
    found = CliRunner().invoke(command.demo, [str(model_file)])
    assert found.exit_code == 0, found.output
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", found.stdout)
    assert opened == [found.stdout.strip()]

    assert CliRunner().invoke(command.demo, [str(model_file), "--no-browser"]).exit_code == 0
    assert len(opened) == 1


@pytest.mark.any_backend
def test_without_a_file_the_report_s_network_is_trained(opened, networks, monkeypatch):
    """The default model has the original's settings and seed 0 on the data that `train` draws."""
    asked = []
    monkeypatch.setattr(
        command, "train_model", lambda *given: asked.append(given) or networks["cnn"]
    )
    monkeypatch.setattr(
        sources, "default", lambda *_, channels: (sources.load("digits", None, channels), "offline")
    )
    found = CliRunner().invoke(command.demo, ["--no-browser"])
    assert found.exit_code == 0, found.output
    ((settings, seed, data),) = asked
    assert (settings, seed, len(data.images)) == (Settings(), 0, 500)
    assert "MNIST cannot be had (offline)" in found.stderr
    assert len(found.stdout.splitlines()) == 1


@pytest.mark.any_backend
def test_a_port_in_use_is_a_usage_error(opened, model_file, port):
    """The port that cannot be had is named, with the reason."""
    found = CliRunner().invoke(command.demo, [str(model_file), "--port", str(port)])
    assert found.exit_code == 2
    assert f"--port {port}: Address already in use" in found.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_the_program_serves_until_it_is_stopped(model_file, number, code):
    """Once the address is printed, it answers; Ctrl-C and SIGTERM end it with their codes."""
    arguments = [sys.executable, "-m", "mnist_keras", "demo", str(model_file), "--no-browser"]
    with subprocess.Popen(arguments, stdout=-1, stderr=-1, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            with urllib.request.urlopen(f"{address}model", timeout=PATIENCE) as told:
                assert json.load(told)["method"] == "occlusion"
            process.send_signal(number)
            rest, said = process.communicate(timeout=PATIENCE)
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
    for flag in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        *(f"user-data-dir={tmp_path / 'profile'}", "window-size=640,900"),
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield started
    started.quit()


def settled(browser, **texts):
    """Wait until the page has had its last answer and says so."""
    from selenium.webdriver.support.ui import WebDriverWait

    def says(_):
        busy = browser.find_element("id", "answer").get_attribute("aria-busy")
        return busy == "false" and all(
            re.fullmatch(pattern, browser.find_element("id", name).text)
            for name, pattern in texts.items()
        )

    WebDriverWait(browser, PATIENCE, 0.1).until(says)


@pytest.mark.any_backend
@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_a_browser_shows_what_the_model_makes_of_strokes(networks, browser, kind):
    """Strokes of mouse or finger show the class that the model gives to the image that is shown;
    the button, reached by keyboard, clears them."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput
    from selenium.webdriver.common.keys import Keys

    trained = networks["cnn"]
    with served(trained) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        browser.get(address)
        settled(browser, sure="Nothing drawn yet")
        canvas = browser.find_element("tag name", "canvas")
        for stroke in ([(-80, -120), (80, -120), (0, 120)], [(-50, 0), (60, 0)]):
            actions = ActionBuilder(browser, mouse=PointerInput(kind, "pen"), duration=50)
            pen = actions.pointer_action
            pen.move_to(canvas, *stroke[0]).pointer_down()
            for point in stroke[1:]:
                pen.move_to(canvas, *point)
            pen.pointer_up()
            actions.perform()
        settled(browser, sure="with probability .*")

        shown = pixels_of(browser.find_element("id", "image").get_attribute("src"))
        logits = trained.model.predict_on_batch(shown[np.newaxis].astype("float32") / 255)[0]
        odds = np.exp(logits.astype(float) - logits.max())
        drawn = pixels_of(browser.execute_script("return arguments[0].toDataURL()", canvas))
        assert np.array_equal(shown, trained.card.input.bring(drawn[..., :3]))
        scale = drawn.shape[0] / canvas.size["height"]
        middle = drawn.shape[0] // 2
        for x, y in [(0, -120), (40, 0), (-40, 0), (0, 120)]:  # on the strokes
            assert drawn[middle + round(y * scale), middle + round(x * scale), 0] < 128
        assert 0.03 < (drawn[..., 0] < 128).mean() < 0.2
        assert browser.find_element("id", "class").text == str(logits.argmax())
        rows = [row.text.split() for row in browser.find_elements("css selector", "tbody tr")]
        assert [name for name, *_ in rows] == list("0123456789")
        percents = [float(percent) for _, percent, _ in rows]
        assert percents == pytest.approx(100 * odds / odds.sum(), abs=0.1)
        (first,) = browser.find_elements("css selector", "tr.first th")
        assert first.text == str(logits.argmax())
        bars = browser.find_elements("css selector", ".bar div")
        assert max(bars, key=lambda bar: bar.size["width"]) == bars[logits.argmax()]
        assert pixels_of(browser.find_element("id", "map").get_attribute("src")).any()

        clear = browser.find_element("id", "clear")
        body = browser.find_element("tag name", "body")
        body.send_keys(Keys.TAB)
        assert browser.switch_to.active_element == clear
        clear.send_keys(Keys.ENTER)
        settled(browser, sure="Nothing drawn yet", **{"class": ""})
        assert not pixels_of(browser.find_element("id", "image").get_attribute("src")).any()

        asked = browser.execute_script("return performance.getEntries().map(entry => entry.name)")
        assert all(name.startswith((address, "data:")) for name in asked if ":" in name)
        assert browser.get_log("browser") == []


@pytest.mark.any_backend
def test_the_page_says_that_the_program_has_ended(networks, browser):
    """A stroke that is not answered says why."""
    with served(networks["basic_net"]) as server:
        browser.get(f"http://127.0.0.1:{server.server_port}/")
        settled(browser, sure="Nothing drawn yet")
    browser.find_element("tag name", "canvas").click()
    settled(browser, trouble="No answer from the program .*")


@pytest.mark.any_backend
def test_the_page_fits_a_phone(networks, browser):
    """On 360 pixels nothing has to be scrolled sideways, and ten classes not at all."""
    size = {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    with served(networks["basic_net"]) as server:
        browser.get(f"http://127.0.0.1:{server.server_port}/")
        settled(browser, sure="Nothing drawn yet")
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        bars = browser.find_element("class name", "bars")
        for side in ("Height", "Width"):
            assert bars.get_property(f"scroll{side}") == bars.get_property(f"client{side}")
