"""Draw a digit and see what a model makes of it: the answers, and the server of the page.

The page is `demo.html` beside this file. It is served to this machine alone.
"""

import base64
import contextlib
import json
import re
import secrets
import socket
import socketserver
import struct
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

import matplotlib
import numpy as np

from mnist_keras._foundations.files import escaped
from mnist_keras.datasets.image_folder.decoding import BadImageError, decode
from mnist_keras.datasets.image_folder.findings import KINDS
from mnist_keras.datasets.images import png
from mnist_keras.explanations.maps import convolutions, hires_cam, occlusion
from mnist_keras.inference.figures import MAP_COLORS, MAP_SHARE
from mnist_keras.inference.model_file import TrainedModel
from mnist_keras.models.prediction import predict, softmax
from mnist_keras.training.run import Run

_ADDRESS = "127.0.0.1"
_MOST_BYTES = 1_000_000
_MOST_SIDE = 1024
# A client's time for one request: what is slower holds a thread for nothing.
_SECONDS = 10.0
_PATHS = {"/": "GET", "/model": "GET", "/predict": "POST"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_PAGE_POLICY = (
    f"{_POLICY}; script-src 'nonce-NONCE'; style-src 'nonce-NONCE'; "
    "img-src data:; connect-src 'self'"
)


def answer(trained: TrainedModel, content: bytes) -> dict[str, Any]:
    """Return what a model makes of a drawing, ready for JSON.

    Args:
        trained: The model.
        content: A PNG of up to 1,024 pixels a side.

    Returns:
        `"class"`, the name of the most probable class; `"probabilities"`, one a class; and as
        URLs of PNGs the `"image"` as the model takes it and the `"map"` that explains the class,
        laid over it. Without anything drawn, the class is `None` and so are the others but the
        image.

    Raises:
        BadImageError: If it is no such PNG, or damaged.
    """
    model_input = trained.card.input
    image = model_input.bring(_decoded(content, model_input.form.color_mode))
    shown = np.broadcast_to(image[..., :3], (*image.shape[:2], 3))
    if np.ptp(shown) < 1:
        return {"class": None, "probabilities": None, "image": _url(shown), "map": None}
    images = image[np.newaxis]
    probabilities = softmax(predict(trained.model, images))[0]
    first = probabilities.argmax(keepdims=True)
    if convolutions(trained.model):
        evidence = hires_cam(trained.model, images, first)[0]
    else:
        evidence = occlusion(trained.model, images, first, background=model_input.background_level)[
            0
        ]
    colored = 255 * matplotlib.colormaps[MAP_COLORS](evidence)[..., :3]
    return {
        "class": escaped(trained.card.class_names[first[0]]),
        "probabilities": probabilities.tolist(),
        "image": _url(shown),
        "map": _url(MAP_SHARE * colored + (1 - MAP_SHARE) * shown),
    }


def _decoded(content: bytes, color_mode: Any) -> np.ndarray:
    """Return the pixels of a small PNG; its header says whether it is one."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or content[12:16] != b"IHDR":
        raise BadImageError("unsupported_type", "not a PNG image")
    width, height = struct.unpack(">II", content[16:24].ljust(8, b"\0"))
    if max(width, height) > _MOST_SIDE:
        raise BadImageError("too_large", f"{width}×{height} pixels; at most {_MOST_SIDE} a side")
    image = decode(content, color_mode)
    if image.shape[:2] != (height, width):  # a second header was believed
        raise BadImageError("damaged", "damaged image: it has two sizes")
    return image


def _url(image: np.ndarray) -> str:
    content = png(np.rint(image).astype(np.uint8))
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def description(trained: TrainedModel) -> dict[str, Any]:
    """Return what the page says of a model once: class names, origin and accuracy, and method."""
    card = trained.card
    run = Run(settings=card.settings, seed=card.seed, scored_at=(card.settings.all_epochs,))
    title = f"{run.title}, trained on {len(card.trained_on):,} images of {card.data_name}"
    if score := card.metrics.get("heldout", card.metrics.get("test")):
        low, high = (100 * bound for bound in score["interval"])
        title += f"; accuracy on {score['n']:,} others {100 * score['accuracy']:.1f} %"
        title += f" [{low:.1f}, {high:.1f}]"
    return {
        "class_names": [escaped(name) for name in card.class_names],
        "title": title,
        "method": "HiResCAM" if convolutions(trained.model) else "occlusion",
    }


def server(trained: TrainedModel, port: int = 0) -> ThreadingHTTPServer:
    """Return the server of the page, listening on 127.0.0.1; its `serve_forever` is to be called.

    The model has answered once by then: what a backend compiles is compiled.

    Args:
        trained: The model.
        port: 0 takes any that is free; `server_port` says which.

    Raises:
        OSError: If the port cannot be had.
    """
    answer(trained, png(255 * np.eye(100, dtype=np.uint8)[..., np.newaxis]))
    return _Server(port, trained)


class _Server(ThreadingHTTPServer):
    """The model, and the lock that lets one thread at a time call it."""

    def __init__(self, port: int, trained: TrainedModel):
        super().__init__((_ADDRESS, port), _Handler)
        self.trained, self.lock = trained, threading.Lock()
        end = f":{self.server_port}" if self.server_port != 80 else ""
        self.hosts = (f"{_ADDRESS}{end}", f"localhost{end}")

    def server_bind(self) -> None:
        # HTTPServer's own asks the network what this machine is called.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a page that was closed
            super().handle_error(request, client_address)


class _Refusal(Exception):  # noqa: N818 (an answer, not an error)
    """A request that is answered by a status and a reason."""


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer; the connection then closes."""

    server: _Server
    server_version, sys_version = "mnist-keras", ""
    # Not 0.9, whose refusals have no status.
    default_request_version = "HTTP/1.0"
    timeout = _SECONDS

    def handle(self) -> None:
        # `timeout` bounds each wait, this all of them: some clients send a byte at a time.
        end = threading.Timer(_SECONDS, self._stop_reading)
        end.daemon = True
        end.start()
        try:
            super().handle()
        finally:
            end.cancel()

    def _stop_reading(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RD)

    def do_GET(self) -> None:
        try:
            self._check()
            if self.path == "/":
                self._send_page()
            elif self.path == "/model":
                self._send_json(200, description(self.server.trained))
            else:
                content = self._body()
                with self.server.lock:
                    found = answer(self.server.trained, content)
                self._send_json(200, found)
        except BadImageError as error:
            self.send_error(422, str(error) or KINDS[error.kind].title)
        except _Refusal as refusal:
            self.send_error(*refusal.args)

    do_POST = do_GET  # noqa: N815 (named by http.server)

    def _check(self) -> None:
        """Refuse what the page does not send, other pages' requests above all."""
        hosts, ours = self.headers.get_all("Host", []), self.server.hosts
        # A name of someone else's that leads here (DNS rebinding) would be a way in.
        if len(hosts) != 1 or hosts[0].lower() not in ours:
            raise _Refusal(403, "this host is not served")
        if any(
            o not in {f"http://{our}" for our in ours} for o in self.headers.get_all("Origin", [])
        ):
            raise _Refusal(403, "this origin is not served")
        if self.path not in _PATHS:
            raise _Refusal(404, "no such page")
        if self.command != _PATHS[self.path]:
            raise _Refusal(405, f"{self.path} takes {_PATHS[self.path]} alone")

    def _body(self) -> bytes:
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths:
            raise _Refusal(411, "Content-Length is required")
        if len(lengths) > 1 or not re.fullmatch("[0-9]+", lengths[0]):
            raise _Refusal(400, "Content-Length is not a number")
        if len(lengths[0]) > 20 or int(lengths[0]) > _MOST_BYTES:
            raise _Refusal(413, f"at most {_MOST_BYTES:,} bytes")
        content = self.rfile.read(int(lengths[0]))
        if len(content) < int(lengths[0]):
            raise _Refusal(400, "the body is shorter than its Content-Length")
        return content

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with one line of JSON, also where http.server itself refuses."""
        self._send_json(code, {"reason": message or HTTPStatus(code).phrase})

    def _send_json(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(document) + "\n")

    def _send_page(self) -> None:
        page = resources.files("mnist_keras.inference").joinpath("demo.html").read_text("utf-8")
        nonce = secrets.token_urlsafe(16)
        policy = _PAGE_POLICY.replace("NONCE", nonce)
        self._send(200, "text/html", page.replace("NONCE", nonce), policy)

    def _send(self, status: int, kind: str, text: str, policy: str = _POLICY) -> None:
        body = text.encode()
        headers = _HEADERS | {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
        }
        if status == 405:
            headers["Allow"] = _PATHS[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a drawing asks ten times a second."""
