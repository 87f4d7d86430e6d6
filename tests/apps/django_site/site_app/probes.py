"""What a test asks of an application: its delays, its sizes, what it has received."""

import time

from django.conf import settings
from django.http import HttpResponse, HttpResponseBadRequest, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

BLOCK = 64 * 1024
LONGEST_SLEEP_MS = 60_000


def healthz(request):
    return HttpResponse("ok\n", content_type="text/plain")


def whoami(request):
    time.sleep(settings.LATENCY_MS / 1000)
    return HttpResponse(settings.INSTANCE, content_type="text/plain")


def sleep(request):
    """Answers after `ms` milliseconds."""
    ms = _number(request, "ms")
    if ms is None or ms > LONGEST_SLEEP_MS:
        return HttpResponseBadRequest("ms must be a number of milliseconds up to 60000\n")
    time.sleep(ms / 1000)
    return HttpResponse(f"slept {ms} ms\n", content_type="text/plain")


@csrf_exempt
def headers(request):
    """The request's line and fields as they arrived; names as WSGI knows them."""
    return JsonResponse({
        "instance": settings.INSTANCE,
        "method": request.method,
        "path": request.get_full_path(),
        "scheme": request.scheme,
        "remote": request.META["REMOTE_ADDR"],
        "headers": {name.lower(): value for name, value in request.headers.items()},
    })


@csrf_exempt
def upload(request):
    """Counts the body's bytes, block by block; it is never held in memory."""
    # Not request.read: Django takes a chunked body, which has no Content-Length, for empty.
    source = request.environ["wsgi.input"]
    total = 0
    while block := source.read(BLOCK):
        total += len(block)
    return JsonResponse({"bytes": total, "instance": settings.INSTANCE})


def download(request):
    """Streams `bytes` bytes; with `length=0` without a Content-Length."""
    size = _number(request, "bytes")
    if size is None:
        return HttpResponseBadRequest("bytes must be a number\n")
    response = StreamingHttpResponse(_zeros(size), content_type="application/octet-stream")
    if request.GET.get("length") != "0":
        response["Content-Length"] = str(size)
    return response


@csrf_exempt
def status(request, code):
    if not 200 <= code <= 599:
        return HttpResponseBadRequest("a final status is 200 to 599\n")
    return HttpResponse(f"status {code}\n", status=code, content_type="text/plain")


def _zeros(size):
    block = bytes(BLOCK)
    while size > 0:
        yield block[:size]
        size -= BLOCK


def _number(request, name):
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
