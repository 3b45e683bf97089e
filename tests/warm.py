"""Python that is warm already: for notebooks' kernels and other processes that tests start.

    python -S tests/warm.py -m MODULE … | -c CODE … | FILE …

does what ``python`` does with these, in a fork of the process (warm_process.py) whose socket ICSTN_WARM
names: with the caller's arguments, environment, folder and standard streams, with its end, and for no longer
than it. Where there is none it is ``python``. What is about cold processes or limits of a process uses that.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

#: The environment variable with the place of the socket.
PLACE = "ICSTN_WARM"
#: In place of ``sys.executable``.
PYTHON = (sys.executable, "-S", __file__)


def main(arguments: list[str]) -> None:
    """Ask the warm process for a child, and end as it does."""
    try:
        asked = socket.socket(socket.AF_UNIX)
        asked.connect(os.environ[PLACE])
    except (KeyError, OSError, AttributeError):  # none was started, it has ended, there are no such sockets
        os.execv(sys.executable, [sys.executable, *arguments])
    send(asked, arguments)
    child = int(asked.recv(32))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _: os.kill(child, n))
    end = int(asked.recv(32) or b"1")
    if end < 0:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), -end)
    sys.exit(end)


def send(asked: socket.socket, arguments: list[str]) -> None:
    """All that makes the child as if it were here."""
    variables = [f"{name}={value}" for name, value in os.environ.items()]
    text = "\0".join([os.getcwd(), str(len(arguments)), *arguments, *variables]).encode(
        errors="surrogateescape"
    )
    socket.send_fds(asked, [len(text).to_bytes(4, "big")], [0, 1, 2])
    asked.sendall(text)


if __name__ == "__main__":
    main(sys.argv[1:])
