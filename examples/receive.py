#!/usr/bin/env python3
"""A server that takes over what its predecessor has not accepted: it listens, registers itself, and
receives connections when a service moves to it with `migrate --drain handoff`. It answers each with
its label.

usage: receive.py SERVICE PORT LABEL
"""
import json
import os
import socket
import sys
import threading
import time

service, port, label = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def send(method, parameters, descriptors=(), more=False):
    """Calls the daemon, over a connection of its own."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.connect(os.environ.get("REUSEPORTD_SOCKET", "/run/reuseportd/control"))
    call = {"method": f"io.reuseportd.{method}", "parameters": parameters, "more": more}
    # Descriptors belong to the call whose first byte they come with.
    socket.send_fds(control, [json.dumps(call).encode() + b"\0"], descriptors)
    return control


def ask(method, parameters, descriptors=()):
    with send(method, parameters, descriptors) as control:
        return json.loads(control.makefile("rb").read1().split(b"\0")[0])


def is_ours(connection_id):
    """A daemon that has gone has given the connection to nobody else."""
    while True:
        try:
            answer = ask("Acknowledge", {"service": service, "id": connection_id})
        except (OSError, ValueError):
            return True
        # It lives, and holds the connection until it is told.
        if answer["parameters"].get("reason") in ("short", "too-many-connections"):
            time.sleep(0.1)
            continue
        return "error" in answer or answer["parameters"]["yours"]


def received():
    """Every connection that the daemon hands over, once it is this process's alone."""
    with send("Receive", {"service": service}, more=True) as control:
        begun, descriptors = b"", []
        while True:
            # At most one descriptor: a read ends with the bytes that one came with.
            more, new, _, _ = socket.recv_fds(control, 4096, 1, socket.MSG_CMSG_CLOEXEC)
            if not more:
                return
            begun += more
            descriptors += new
            while b"\0" in begun:
                reply, begun = begun.split(b"\0", 1)
                reply = json.loads(reply)
                if "error" in reply:
                    return
                connection = socket.socket(fileno=descriptors.pop(0))
                if is_ours(reply["parameters"]["id"]):
                    yield connection
                else:
                    connection.close()


def answer(connection):
    with connection:
        connection.sendall(f"{label}\n".encode())


def receive():
    while True:
        try:
            for connection in received():
                answer(connection)
        except OSError:
            pass
        # The daemon has ended, and will be back.
        time.sleep(0.1)


listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("0.0.0.0", port))
listener.listen(4096)

registered = ask("Register", {"service": service, "label": label}, [listener.fileno()])
print(json.dumps(registered), flush=True)
if "error" in registered:
    sys.exit(1)
threading.Thread(target=receive, daemon=True).start()
while True:
    answer(listener.accept()[0])
