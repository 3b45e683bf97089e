"""The warm process: imports what most processes of the tests need, and forks for each that warm.py asks for.

    python tests/warm_process.py DESCRIPTOR

It imports when it is first asked, has one thread, computes nothing, and ends when its standard input does.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass

import warm

#: Nothing of ours, whose imports are tested, and nothing that pytest has to import itself.
MODULES = (
    "torch._dynamo", "torch.export", "torch.onnx", "onnxscript", "pytest", "nbformat", "nbclient", "pandas",
    "cv2", "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg",
    "skimage.io", "matplotlib_inline.backend_inline", "skimage.transform", "sklearn.datasets",
    "PIL.Image", "scipy.ndimage", "rich.console", "typer", "tqdm", "pooch", "safetensors.torch",
    "scipy.special", "ipykernel.kernelapp", "IPython.core.interactiveshell",
)  # fmt: skip


@dataclass
class Request:
    """What is to run, where, and with which standard streams."""

    folder: str
    arguments: list[str]
    environment: dict[str, str]
    streams: list[int]


def start() -> Callable[[], None]:
    """Start the warm process for this process and its children; returns what stops it."""
    if not hasattr(os, "pidfd_open"):
        return lambda: None  # warm.py is a cold Python, then
    folder = tempfile.TemporaryDirectory(prefix="icstn-")
    os.environ[warm.PLACE] = os.path.join(folder.name, "warm")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.environ[warm.PLACE])
        listener.listen()
        command = [sys.executable, __file__, str(listener.fileno())]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])

    def stop() -> None:
        process.communicate()
        folder.cleanup()

    return stop


class Server:
    """Forks, and tells each client how its child ended."""

    def __init__(self, listener: socket.socket) -> None:
        self.events, self.listener = selectors.DefaultSelector(), listener
        self.clients: dict[int, socket.socket] = {}  # by the process of their child
        self.events.register(0, selectors.EVENT_READ, self.end)
        self.events.register(self.listener, selectors.EVENT_READ, self.fork)
        self.request: Request | None = None
        self.done = False

    def serve(self) -> Request | None:
        """Returns in each child, with its request, and here with none, in the end."""
        while not self.done:
            for key, _ in self.events.select():
                key.data()
                if self.done:
                    break
        return self.request

    def end(self) -> None:
        """Whoever started this process has gone."""
        for process in self.clients:
            os.kill(process, signal.SIGKILL)
        self.done = True

    def fork(self) -> None:
        """A child for who has connected."""
        client, _ = self.listener.accept()
        request = received(client)
        for name in MODULES:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        gc.freeze()  # a collection in a child would write to, and so copy, all of this
        if process := os.fork():
            self.watch(process, client)
        else:
            self.request, self.done = request, True
            for one in (self.events, self.listener, client, *self.clients.values()):
                one.close()
        for stream in request.streams if process else ():
            os.close(stream)

    def watch(self, process: int, client: socket.socket) -> None:
        """A child that ends is reported; a child whose client ends is killed."""
        self.clients[process] = client
        descriptor = os.pidfd_open(process)

        def ended() -> None:
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            for file in (descriptor, client):
                with contextlib.suppress(KeyError):
                    self.events.unregister(file)
            with contextlib.suppress(OSError):
                client.send(str(code).encode())
            os.close(descriptor)
            self.clients.pop(process).close()

        def left() -> None:
            self.events.unregister(client)
            os.kill(process, signal.SIGKILL)

        self.events.register(descriptor, selectors.EVENT_READ, ended)
        self.events.register(client, selectors.EVENT_READ, left)
        client.send(str(process).encode())


def received(client: socket.socket) -> Request:
    """What :func:`warm.send` sends."""
    size, streams, _, _ = socket.recv_fds(client, 4, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += client.recv(1 << 16)
    folder, count, *rest = text.decode(errors="surrogateescape").split("\0")
    arguments, variables = rest[: int(count)], rest[int(count) :]
    return Request(folder, arguments, dict(v.split("=", 1) for v in variables), streams)


def become(request: Request) -> None:
    """Be the process that was asked for, as far as it can tell."""
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request.folder)
    ours = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    theirs = [p for p in request.environment.get("PYTHONPATH", "").split(os.pathsep) if p]
    sys.path[:] = theirs + [p for p in sys.path[1:] if p not in ours]
    os.environ.clear()
    os.environ.update(request.environment)
    if backend := os.environ.get("MPLBACKEND"):
        importlib.import_module("matplotlib").rcParams["backend"] = backend
    importlib.import_module("numpy").random.seed()  # as after an import of its own
    importlib.import_module("torch").set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def run(first: str, *rest: str) -> None:
    """What ``python`` does with these arguments."""
    if first == "-m":
        name, *sys.argv[1:] = rest
        sys.argv[0], sys.path[:0] = name, [os.getcwd()]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif first == "-c":
        code, *sys.argv[1:] = rest
        sys.argv[0], sys.path[:0] = "-c", [""]
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), vars(module))
    else:
        sys.argv[:], sys.path[:0] = [first, *rest], [os.path.dirname(os.path.abspath(first))]
        runpy.run_path(first, run_name="__main__")


def status(request: Request) -> int:
    """Run it: what it ends with, said as Python says it."""
    try:
        run(*request.arguments)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    else:
        return 0
    return 1


def leave() -> None:
    """The very last: end without taking all modules apart, which takes longer than most that is asked for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(ended[0])


if __name__ == "__main__":
    ended = [0]
    atexit.register(leave)  # before all others, and so called after them
    if asked := Server(socket.socket(fileno=int(sys.argv[1]))).serve():
        become(asked)
        ended[0] = status(asked)
