"""Echoes messages over a WebSocket and checks what comes back; prints `ok` at the end.

Usage: ws_client.py URL [--messages N] [--hold SECONDS] [--ca CA.pem]
With --hold it prints `open` and sends one more message every 20 ms for that long, so that a test
can reload, upgrade or drain the gateway meanwhile.
"""

import argparse
import ssl
import sys
import time

from websockets.sync.client import connect

DEADLINE_S = 20


def exchange(socket, message):
    socket.send(message)
    answer = socket.recv(timeout=DEADLINE_S)
    if answer != message:
        sys.exit(f"sent {message!r:.60}, received {answer!r:.60}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--messages", type=int, default=20)
    parser.add_argument("--hold", type=float, default=0)
    parser.add_argument("--ca")
    options = parser.parse_args()
    tls = ssl.create_default_context(cafile=options.ca) if options.ca else None
    # No proxy from the environment: the test means this very address.
    with connect(options.url, ssl=tls, proxy=None, max_size=None,
                 subprotocols=["echo"], open_timeout=DEADLINE_S) as socket:
        if socket.subprotocol != "echo":
            sys.exit(f"the subprotocol is {socket.subprotocol!r}")
        for number in range(options.messages):
            exchange(socket, f"message {number}")
            exchange(socket, bytes([number % 256]) * (number * 997))
        exchange(socket, "x" * 1_000_000)
        socket.ping().wait(DEADLINE_S)
        print("open", flush=True)
        end = time.monotonic() + options.hold
        while time.monotonic() < end:
            exchange(socket, f"at {time.monotonic()}")
            time.sleep(0.02)
    print("ok", flush=True)


if __name__ == "__main__":
    main()
