"""An image out of a request: the body itself, or the file of a form."""

from __future__ import annotations

import asyncio

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message

from .limits import MIB, Limits
from .refusal import Refusal


async def read_body(request: Request, limits: Limits) -> bytes:
    """The image file that a request brings.

    Raises:
        Refusal: 413, it is too large; 408, it takes too long; 400, a form without a file.
        HTTPException: a form that is none.
        ClientDisconnect: the caller has gone.
    """
    too_large = Refusal(413, f"The body is larger than {limits.max_body / MIB:g} MiB: send a smaller file.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_body:
        raise too_large
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limits.max_body:
            raise too_large
        return message

    try:
        return await asyncio.wait_for(_image(Request(request.scope, receive)), limits.upload_time)
    except asyncio.TimeoutError as error:
        raise Refusal(408, f"The body did not arrive within {limits.upload_time:g} s.") from error


async def _image(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":  # whatever else: curl calls it a form when it sends a plain file
        return await request.body()
    async with request.form(max_files=1, max_fields=16) as form:
        for value in form.values():
            if isinstance(value, UploadFile):
                return await value.read()
    raise Refusal(400, "The form has no file: send the image as one, as curl -F image=@photo.jpg does.")
