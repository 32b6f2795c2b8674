"""Draw a digit and see what a model makes of it: the answers, and the server of the page.

The page is `demo.html` beside this file. It is served to this machine alone.
"""

import asyncio
import base64
import json
import secrets
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from typing import Any

import matplotlib
import numpy as np

from mnist_keras._foundations.backends import BackendError
from mnist_keras._foundations.files import shown_names
from mnist_keras._foundations.texts import percent
from mnist_keras.datasets.choices import ColorMode
from mnist_keras.datasets.image_folder.decoding import BadImageError, decode
from mnist_keras.datasets.image_folder.findings import KINDS
from mnist_keras.datasets.images import png, scaled
from mnist_keras.explanations.maps import convolutions, hires_cam, occlusion
from mnist_keras.inference.figures import MAP_COLORS, MAP_SHARE
from mnist_keras.inference.trained_model import TrainedModel
from mnist_keras.models.prediction import predict, softmax
from mnist_keras.training.run import Run

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.datastructures import Headers
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as error:
    raise BackendError('the page needs more packages: pip install "mnist-keras[demo]"') from error

_ADDRESS = "127.0.0.1"
_MOST_BYTES = 1_000_000
_MOST_SIDE = 1024
_SECONDS = 10.0  # for the body of a request
_HEADERS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_PAGE_POLICY = (
    f"{_POLICY}; script-src 'nonce-NONCE'; style-src 'nonce-NONCE'; "
    "img-src data:; connect-src 'self'"
)


def answer(trained: TrainedModel, content: bytes) -> dict[str, Any]:
    """Return what a model makes of a drawing, a PNG of up to 1,024 pixels a side, ready for JSON.

    As URLs of PNGs, it has the `"image"` as the model takes it and the `"map"` that explains the
    class, laid over the image. If nothing is drawn, all but the image are `None`.
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
        (evidence,) = hires_cam(trained.model, scaled(images), first)
    else:
        background = model_input.background_level / 255
        (evidence,) = occlusion(trained.model, scaled(images), first, background=background)
    colored = 255 * matplotlib.colormaps[MAP_COLORS](evidence)[..., :3]
    return {
        "class": shown_names(trained.card.class_names)[first[0]],
        "probabilities": probabilities.tolist(),
        "image": _url(shown),
        "map": _url(MAP_SHARE * colored + (1 - MAP_SHARE) * shown),
    }


def _decoded(content: bytes, color_mode: ColorMode) -> np.ndarray:
    """Return the pixels of a small PNG; its header says whether it is one."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n") or content[12:16] != b"IHDR":
        raise BadImageError("unsupported_type", "not a PNG image")
    width, height = struct.unpack(">II", content[16:24].ljust(8, b"\0"))
    if max(width, height) > _MOST_SIDE:
        raise BadImageError("too_large", f"{width}×{height} pixels; at most {_MOST_SIDE} per side")
    return decode(content, color_mode)


def _url(image: np.ndarray) -> str:
    content = png(np.rint(image).astype(np.uint8))
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def description(trained: TrainedModel) -> dict[str, Any]:
    """Return what the page says of a model: its classes, origin, accuracy and kind of map."""
    card = trained.card
    run = Run.whole(card.settings, card.seed)
    title = f"{run.title}, trained on {len(card.trained_on):,} images of {card.data_name}"
    if score := card.metrics.heldout or card.metrics.test:
        accuracy = percent(score.accuracy, score.interval, digits=1, unit=" %")
        title += f"; accuracy on {score.n:,} other images {accuracy}"
    return {
        "class_names": shown_names(card.class_names),
        "title": title,
        "method": "HiResCAM" if convolutions(trained.model) else "occlusion",
    }


def listen(port: int = 0) -> socket.socket:
    """Return a socket that listens to this machine alone; port 0 takes any free port."""
    return socket.create_server((_ADDRESS, port))


@contextmanager
def serving(trained: TrainedModel, listener: socket.socket) -> Iterator[str]:
    """Serve the page of a model while the context lasts, and yield its address.

    The model has answered once by then, so that a backend has nothing left to compile.
    """
    answer(trained, png(255 * np.eye(100, dtype=np.uint8)[..., np.newaxis]))
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        _application(trained, port),
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        date_header=False,
        headers=list(_HEADERS.items()),
        # A drawing asks ten times a second, and anybody may send nonsense: only faults are said.
        log_config=None,
        log_level="error",
        access_log=False,
    )
    server = uvicorn.Server(config)
    # Outside the main thread, uvicorn leaves Ctrl-C and SIGTERM to the program.
    thread = threading.Thread(target=server.run, args=[[listener]], daemon=True)
    thread.start()
    try:
        yield f"http://{_ADDRESS}:{port}/"
    finally:
        server.should_exit = True
        thread.join(1)  # A client that stalls does not delay the end.


def _application(trained: TrainedModel, port: int) -> ASGIApp:
    """Return the page, the model's description and its answers, for requests of the page alone."""

    async def page(request: Request) -> Response:
        text = resources.files("mnist_keras.inference").joinpath("demo.html").read_text("utf-8")
        nonce = secrets.token_urlsafe(16)
        policy = {"Content-Security-Policy": _PAGE_POLICY.replace("NONCE", nonce)}
        return HTMLResponse(text.replace("NONCE", nonce), headers=policy)

    async def model(request: Request) -> Response:
        return _json(200, description(trained))

    async def classify(request: Request) -> Response:
        content = await _body(request)
        try:  # Without a wait, so that the model makes one answer at a time.
            return _json(200, answer(trained, content))
        except BadImageError as error:
            return _json(422, {"reason": str(error) or KINDS[error.kind].title})

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _json(error.status_code, {"reason": error.detail}, error.headers)

    served = Starlette(
        routes=[
            Route("/", page),
            Route("/model", model),
            Route("/predict", classify, methods=["POST"]),
        ],
        exception_handlers={HTTPException: refuse},
    )
    served.router.redirect_slashes = False
    end = f":{port}" if port != 80 else ""
    ours = {f"{_ADDRESS}{end}", f"localhost{end}"}

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        app: ASGIApp = served
        # Another site may send a browser here under a name of its own (DNS rebinding) ...
        if {host.lower() for host in headers.getlist("host")} - ours or "host" not in headers:
            app = _json(403, {"reason": "this host is not served"})
        # ... or post to us from its own page.
        elif set(headers.getlist("origin")) - {f"http://{our}" for our in ours}:
            app = _json(403, {"reason": "this origin is not served"})
        await app(scope, receive, send)

    return guarded


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length")
    if length is None or "transfer-encoding" in request.headers:
        raise HTTPException(411, "Content-Length is required")
    if int(length) > _MOST_BYTES:  # h11 has checked that it is a number
        raise HTTPException(413, f"at most {_MOST_BYTES:,} bytes")
    try:
        async with asyncio.timeout(_SECONDS):
            return await request.body()
    except TimeoutError as error:
        raise HTTPException(408, f"the body took more than {_SECONDS:.0f} s") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the body is shorter than its Content-Length") from error


def _json(
    status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    headers = {"Content-Security-Policy": _POLICY, **(headers or {})}
    return Response(json.dumps(document) + "\n", status, headers, "application/json")
