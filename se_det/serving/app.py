"""The HTTP interface: `POST /predict`, the page, and what orchestration and monitoring ask for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from ..errors import ConfigError
from .answers import ENDINGS, Wish, wanted_classes
from .bodies import read_body
from .limits import MEGAPIXEL, MIB
from .metrics import CONTENT_TYPE, Metrics
from .refusal import Refusal
from .service import DetectionService

T = TypeVar("T")

PATH = "/predict"
PAGE = Path(__file__).with_name("page.html")
CLIENT_GONE = 499  # nginx's number for an answer that nobody waits for
JSON = "application/json"
FORMATS = {"json": JSON, "jpeg": "image/jpeg", "png": "image/png"}
# What an Accept header may say, and what that is answered with.
ACCEPTED = {JSON: JSON, "application/*": JSON, "*/*": JSON, "image/*": "image/jpeg", **dict(zip(ENDINGS, ENDINGS))}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
            },
        },
    }
}

logger = logging.getLogger(__name__)


def create_app(service: DetectionService, model: str) -> FastAPI:
    """The application.

    Args:
        model: what the model is called in `/metadata`.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    # FastAPI's own pages of documentation load their scripts from elsewhere; /openapi.json stays.
    app = FastAPI(title="se_det", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(MeasureAnswers, metrics=service.metrics)
    _add_error_handlers(app)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE, media_type="text/html; charset=utf-8")

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """The model works and another request would be admitted; 503 otherwise."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/metadata")
    async def metadata() -> dict[str, Any]:
        """The model's classes and what the server takes."""
        return describe(service, model)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        """Counts and times in Prometheus' text format."""
        return PlainTextResponse(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.post(PATH, openapi_extra=BODY)
    async def predict(
        request: Request,
        threshold: Annotated[float | None, Query(ge=0, le=1, description="only detections of this score")] = None,
        classes: Annotated[list[str] | None, Query(description="only these, by name or category id")] = None,
        format: Annotated[Literal["json", "jpeg", "png"] | None, Query(description="over the Accept header")] = None,
        image_id: Annotated[int, Query(description="of the COCO results")] = 0,
    ) -> Response:
        """Detections in an image: COCO results as JSON, or drawn on it."""
        media_type = FORMATS[format] if format else negotiated(request.headers.get("accept", "*/*"))
        try:
            indices = wanted_classes(classes, service.predictor) if classes else None
        except ConfigError as error:
            raise Refusal(422, str(error)) from error
        wish = Wish(media_type=media_type, threshold=threshold, classes=indices, image_id=image_id)
        with service.admitted():
            try:
                body = await read_body(request, service.limits)
                content = await unless_gone(request, service.answer(body, wish))
            except ClientDisconnect:
                return Response(status_code=CLIENT_GONE)
            except (Refusal, HTTPException):
                raise
            except Exception as error:
                logger.exception("An image was not answered.")
                raise Refusal(500, "The detector failed on this image; the server's log says why.") from error
        return Response(content, media_type=media_type)

    return app


def describe(service: DetectionService, model: str) -> dict[str, Any]:
    """What `/metadata` tells."""
    predictor, limits = service.predictor, service.limits
    classes = zip(predictor.category_ids, predictor.class_names, predictor.thresholds)
    return {
        "model": model,
        "version": __version__,
        "classes": [{"id": i, "name": name, "threshold": threshold} for i, name, threshold in classes],
        "limits": {
            "queue": limits.queue,
            "batch": service.batch,
            "max_body_mib": limits.max_body / MIB,
            "max_megapixels": limits.max_pixels / MEGAPIXEL,
        },
    }


def negotiated(accept: str) -> str:
    """The media type of an answer by an Accept header: the caller's favourite of those there are.

    Raises:
        Refusal: 406, there is none.
    """
    wanted = []
    for part in accept.split(","):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if name in ACCEPTED and quality > 0:
            wanted.append((quality, ACCEPTED[name]))
    if not wanted:
        raise Refusal(406, f"'{accept}' cannot be given: Accept one of {', '.join((JSON, *ENDINGS))}.")
    return max(wanted, key=lambda pair: pair[0])[1]  # of equals the first


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; it is cancelled when the caller hangs up.

    Args:
        request: whose body has been read.

    Raises:
        ClientDisconnect: the caller has gone.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())  # the next message after the body is that the caller has gone
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


class MeasureAnswers:
    """Counts the answers to images by status, and how long those with detections took."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await self.app(scope, receive, send)
            return
        began = time.monotonic()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.responses[message["status"]] += 1
                if message["status"] == 200:
                    self.metrics.request_seconds.add(time.monotonic() - began)
            await send(message)

        await self.app(scope, receive, measured)


def _add_error_handlers(app: FastAPI) -> None:
    """Every refusal is `{"error": a sentence}`."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return JSONResponse({"error": error.sentence}, error.status, headers)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> JSONResponse:
        what = {
            404: f"There is no {request.url.path} here: POST an image to {PATH}, or GET /, /metadata, /health, /ready "
            "or /metrics.",
            405: f"{request.url.path} does not take {request.method}: POST an image to {PATH}, GET all else.",
        }
        sentence = what.get(error.status_code, str(error.detail))
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        said = "; ".join(f"{each['loc'][-1]}={each.get('input')}: {each['msg'].lower()}" for each in error.errors())
        return JSONResponse({"error": f"The request's parameters cannot be used: {said}."}, 422)
