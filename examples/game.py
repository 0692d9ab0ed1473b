#!/usr/bin/env python3
"""A game server whose sessions have state: who has left it cannot go on elsewhere. It knows nothing of
reuseportd; all that it does for its sake is to set SO_REUSEPORT.

usage: game.py PORT LABEL

Lines in, lines out. "MOVE ID" makes a move and is answered with "LABEL ID MOVES", where MOVES is how
many the session has made; "LAST ID" is answered in the same way, and ends the session. On SIGTERM it
lets nobody in any more, and ends when everybody who has come in has been answered once.
"""
import errno
import os
import selectors
import signal
import socket
import sys

port, label = int(sys.argv[1]), sys.argv[2]
selector = selectors.DefaultSelector()


class Session:
    def __init__(self, connection):
        self.connection, self.unread, self.moves = connection, b"", 0

    def readable(self):
        """Whether the session goes on."""
        try:
            received = self.connection.recv(4096)
        except OSError:
            return False
        self.unread += received
        *lines, self.unread = self.unread.split(b"\n")
        for line in lines:
            word, _, number = line.decode(errors="replace").partition(" ")
            self.moves += 1
            answer = f"{label} {number} {self.moves}\n"
            try:
                self.connection.sendall(answer.encode())
            except OSError:
                return False
            if word == "LAST":
                return False
        return bool(received) and len(self.unread) < 4096


def accept():
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except ConnectionAbortedError:
            continue
        except OSError as error:
            # Another process has shut it down, as `--retire shutdown` does. The sessions go on.
            if error.errno == errno.EINVAL:
                close_listener()
            return
        # Who does not read does not keep the others waiting for long.
        connection.settimeout(1)
        session = Session(connection)
        selector.register(connection, selectors.EVENT_READ, session)


def close_listener():
    if listener.fileno() >= 0:
        selector.unregister(listener)
        listener.close()


def tell_manager(state):
    """What systemd waits for with Type=notify."""
    if place := os.environ.get("NOTIFY_SOCKET"):
        place = "\0" + place[1:] if place[0] == "@" else place
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.sendto(state, place)


listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("0.0.0.0", port))
listener.listen(4096)
listener.setblocking(False)
selector.register(listener, selectors.EVENT_READ)
# What comes through this pair is that there is a signal.
stop, signalled = socket.socketpair()
signalled.setblocking(False)
signal.set_wakeup_fd(signalled.fileno())
signal.signal(signal.SIGTERM, lambda *_: None)
selector.register(stop, selectors.EVENT_READ)
tell_manager(b"READY=1")

ending = False


def newcomers():
    return any(key.data.moves == 0 for key in selector.get_map().values())


while not ending or newcomers():
    for key, _ in selector.select():
        if key.fileobj is listener:
            accept()
        elif key.fileobj is stop:
            selector.unregister(stop)
            close_listener()
            ending = True
        elif not key.data.readable():
            selector.unregister(key.fileobj)
            key.fileobj.close()
