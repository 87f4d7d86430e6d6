"""A service as a small team runs it: JSON, streams, server-sent events, WebSocket, uploads.

Environment: INSTANCE is the name of this process.
"""

import asyncio
import hashlib
import os
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request, Response, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel
from starlette.websockets import WebSocketDisconnect

INSTANCE = os.environ.get("INSTANCE", "fastapi")
BLOCK = 64 * 1024
ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

Milliseconds = Annotated[int, Query(ge=0, le=60_000)]
Count = Annotated[int, Query(ge=0, le=100_000)]
Size = Annotated[int, Query(ge=0)]

app = FastAPI(docs_url=None, redoc_url=None)


class Item(BaseModel):
    name: str
    price: float


items: dict[int, Item] = {}


@app.get("/healthz", response_class=PlainTextResponse)
async def healthz():
    return "ok\n"


@app.get("/whoami", response_class=PlainTextResponse)
async def whoami():
    return INSTANCE


@app.get("/api/items")
async def list_items():
    return [{"id": number, **item.model_dump()} for number, item in items.items()]


@app.post("/api/items", status_code=201)
async def create_item(item: Item):
    number = len(items) + 1
    items[number] = item
    return {"id": number, **item.model_dump()}


@app.get("/api/items/{number}")
async def read_item(number: int):
    if number not in items:
        raise HTTPException(404, "no such item")
    return {"id": number, **items[number].model_dump()}


@app.get("/sleep", response_class=PlainTextResponse)
async def sleep(ms: Milliseconds = 0):
    """Answers after `ms` milliseconds."""
    await asyncio.sleep(ms / 1000)
    return f"slept {ms} ms\n"


@app.api_route("/headers", methods=ANY_METHOD)
async def headers(request: Request):
    """The request as it arrived: fields in order, each as [name, value], repeated ones too."""
    return {
        "instance": INSTANCE,
        "method": request.method,
        "target": _target(request),
        "version": request.scope["http_version"],
        "remote": request.client.host if request.client else None,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")]
                    for name, value in request.headers.raw],
    }


@app.api_route("/status/{code}", methods=ANY_METHOD)
async def status(code: int):
    if not 200 <= code <= 599:
        raise HTTPException(400, "a final status is 200 to 599")
    if code in (204, 304):
        return Response(status_code=code)
    return PlainTextResponse(f"status {code}\n", code)


@app.get("/stream")
async def stream(chunks: Count = 5, ms: Milliseconds = 10):
    """`chunks` lines, each `ms` milliseconds after the one before."""
    async def lines():
        for number in range(chunks):
            yield f"chunk {number}\n"
            await asyncio.sleep(ms / 1000)
    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/events")
async def events(count: Count = 5, ms: Milliseconds = 10):
    """`count` server-sent events, each `ms` milliseconds after the one before."""
    async def lines():
        for number in range(count):
            yield f"id: {number}\ndata: event {number}\n\n"
            await asyncio.sleep(ms / 1000)
    return StreamingResponse(lines(), media_type="text/event-stream",
                             headers={"Cache-Control": "no-cache"})


@app.api_route("/upload", methods=["POST", "PUT"])
async def upload(request: Request):
    """The body's length and SHA-256, taken block by block; it is never held in memory."""
    total, digest = 0, hashlib.sha256()
    async for block in request.stream():
        total += len(block)
        digest.update(block)
    return {"bytes": total, "sha256": digest.hexdigest(), "instance": INSTANCE}


@app.get("/download")
async def download(bytes: Size, length: bool = True):
    """`bytes` bytes that count upwards from 0 to 255; with `length=0` without Content-Length."""
    fields = {"Content-Length": str(bytes)} if length else {}
    return StreamingResponse(_counting(bytes), media_type="application/octet-stream",
                             headers=fields)


@app.get("/abort")
async def abort(after: Size = 1000, announced: Size = 0):
    """Sends `after` bytes of a longer body and then dies: the socket closes in the body.

    With `announced` the response has that Content-Length; without it, it is chunked.
    """
    fields = {"Content-Length": str(announced)} if announced else {}
    return DyingResponse(_counting(after), media_type="application/octet-stream", headers=fields)


class DyingResponse(StreamingResponse):
    """Ends without the last message of the body, on which the server drops the connection."""

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for block in self.body_iterator:
            await send({"type": "http.response.body", "body": block, "more_body": True})


@app.websocket("/ws")
async def echo(socket: WebSocket):
    """Sends every message back, of the kind in which it came."""
    wanted = socket.scope.get("subprotocols") or [None]
    await socket.accept(subprotocol=wanted[0])
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        return


@app.exception_handler(404)
async def not_found(request: Request, error):
    return JSONResponse({"detail": error.detail, "instance": INSTANCE}, 404)


def _target(request):
    query = request.scope["query_string"]
    path = request.scope["raw_path"]
    return (path + b"?" + query if query else path).decode("latin-1")


_BLOCK = bytes(range(256)) * (BLOCK // 256)


async def _counting(size):
    while size > 0:
        yield _BLOCK[:size]
        size -= BLOCK
