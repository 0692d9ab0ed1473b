#!/usr/bin/env python3
"""Registers a listener of its own with reuseportd, and serves it.

usage: register.py SERVICE PORT [LABEL]
"""
import json
import os
import socket
import sys

service, port, label = sys.argv[1], int(sys.argv[2]), (sys.argv[3:] or [None])[0]

listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("0.0.0.0", port))
listener.listen(4096)

call = {
    "method": "io.reuseportd.Register",
    "parameters": {"service": service, "label": label},
}
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
    control.connect(os.environ.get("REUSEPORTD_SOCKET", "/run/reuseportd/control"))
    # The descriptor belongs to the call whose first byte it comes with.
    socket.send_fds(control, [json.dumps(call).encode() + b"\0"], [listener.fileno()])
    reply = json.loads(control.makefile("rb").read1().split(b"\0")[0])

print(json.dumps(reply), flush=True)
if "error" in reply:
    sys.exit(1)

while True:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(f"{label or os.getpid()}\n".encode())
