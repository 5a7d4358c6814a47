"""A web server on this machine that serves one file, so that downloads need no network."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Server(ThreadingHTTPServer):
    """Serves `content` at `url`, saying a length that is `missing` bytes too long; `asked` counts the requests."""

    content, missing, asked = b"", 0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.jsonl"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.path != "/file.jsonl":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content) + self.server.missing))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    """The server, up until the end of the block."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.content = content
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
