"""A gRPC service over cleartext HTTP/2. Its messages are plain bytes, so that no compiler of
protocol files is needed.

Usage: grpc_service.py ADDRESS:PORT
"""

import os
import signal
import sys
from concurrent import futures

import grpc

INSTANCE = os.environ.get("INSTANCE", "grpc")


def echo(request, context):
    """Returns the message; names the instance in the trailers."""
    context.set_trailing_metadata((("x-instance", INSTANCE),))
    return request


def repeat(request, context):
    """A decimal number asks for as many messages, numbered from 0."""
    for number in range(int(request)):
        yield str(number).encode()


def collect(requests, context):
    """The number of messages and of their bytes."""
    sizes = [len(message) for message in requests]
    return f"{len(sizes)} {sum(sizes)}".encode()


def converse(requests, context):
    """Answers each message when it comes, before the next one."""
    for message in requests:
        yield b"re: " + message


def fail(request, context):
    """Ends with the status of this number; the message is `asked for N`."""
    code = next(code for code in grpc.StatusCode if code.value[0] == int(request))
    context.abort(code, f"asked for {int(request)}")


METHODS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Repeat": grpc.unary_stream_rpc_method_handler(repeat),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Converse": grpc.stream_stream_rpc_method_handler(converse),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
}


def main():
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("tollgate.test.Bytes", METHODS),
    ))
    # Raises when the port is taken.
    server.add_insecure_port(sys.argv[1])
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=1))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
