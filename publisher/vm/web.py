"""WSGI applications served on sockets that are listening already."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from publisher.closing import CLOSING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_log = logging.getLogger(__name__)


class _Handler(WSGIRequestHandler):
    timeout = 600

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base's name
        _log.debug(format, *args)

    def handle(self) -> None:
        # a guest that powers off leaves requests behind
        with contextlib.suppress(OSError):
            super().handle()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        _log.debug("a request failed", exc_info=True)


class WebServer:
    """Serves one application from threads until `close`; owns the socket."""

    def __init__(self, listening: socket.socket, application: WSGIApplication) -> None:
        address, port = listening.getsockname()[:2]
        self._server = _Server((address, port), _Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listening
        self._server.server_name = address
        self._server.server_port = port
        self._server.setup_environ()
        self._server.set_app(application)
        self._closing = threading.Event()
        self._server.base_environ[CLOSING] = self._closing
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="web", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
