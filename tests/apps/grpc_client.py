"""Calls every method of grpc_service.py and checks the answers; prints `ok` at the end.

Usage: grpc_client.py ADDRESS:PORT [CA.pem NAME]
With a CA file the connection is TLS, and the server must prove to be NAME.
"""

import queue
import sys

import grpc

SERVICE = "/tollgate.test.Bytes/"
DEADLINE_S = 20
LARGE = bytes(range(256)) * 4096 * 3


def channel(address, ca=None, name=None):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if ca is None:
        return grpc.insecure_channel(address, options)
    with open(ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    options.append(("grpc.ssl_target_name_override", name))
    return grpc.secure_channel(address, credentials, options)


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: expected {wanted!r:.80}, found {found!r:.80}")


def check(calls):
    unary = calls.unary_unary(SERVICE + "Echo")
    answer, call = unary.with_call(b"hello", timeout=DEADLINE_S)
    expect("a unary call", answer, b"hello")
    trailers = dict(call.trailing_metadata())
    expect("a trailer naming the instance", "x-instance" in trailers, True)
    expect("an empty message", unary(b"", timeout=DEADLINE_S), b"")
    expect("3 MiB", unary(LARGE, timeout=DEADLINE_S), LARGE)

    repeat = calls.unary_stream(SERVICE + "Repeat")
    numbers = [str(number).encode() for number in range(200)]
    expect("a server stream", list(repeat(b"200", timeout=DEADLINE_S)), numbers)

    collect = calls.stream_unary(SERVICE + "Collect")
    expect("a client stream", collect(iter([b"ab"] * 100), timeout=DEADLINE_S), b"100 200")

    check_conversation(calls.stream_stream(SERVICE + "Converse"))
    try:
        calls.unary_unary(SERVICE + "Fail")(b"5", timeout=DEADLINE_S)
        sys.exit("a failing call: succeeded")
    except grpc.RpcError as error:
        expect("a failing call", error.code(), grpc.StatusCode.NOT_FOUND)
        expect("its message", error.details(), "asked for 5")


def check_conversation(converse):
    """Each question is asked only when the answer before is there: nobody may buffer."""
    questions = queue.SimpleQueue()
    answers = converse(iter(questions.get, None), timeout=DEADLINE_S)
    for number in range(20):
        questions.put(str(number).encode())
        expect("an answer", next(answers), f"re: {number}".encode())
    questions.put(None)
    expect("the end of a conversation", list(answers), [])


if __name__ == "__main__":
    with channel(*sys.argv[1:]) as calls:
        check(calls)
    print("ok")
