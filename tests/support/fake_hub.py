"""A model hub on the loopback interface: it serves local folders, as far as a download needs."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit


@contextlib.contextmanager
def hub(
    repositories: dict[str, tuple[str, Path]], authorizations: set[str | None] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Serve ``repositories`` (name -> commit, folder); yield the address and what is asked.

    What requests say of who asks is put into ``authorizations``.
    """
    asked: list[str] = []
    said = set() if authorizations is None else authorizations

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            said.add(self.headers["Authorization"])
            for name, (commit, folder) in repositories.items():
                files = sorted(p for p in folder.rglob("*") if p.is_file())
                names = {p.relative_to(folder).as_posix(): p for p in files}
                for revision in ("main", commit):
                    if path == f"/api/models/{name}/revision/{revision}":
                        siblings = [{"rfilename": n} for n in names]
                        return self.answer_json({"id": name, "sha": commit, "siblings": siblings})
                    if path == f"/api/models/{name}/tree/{revision}":
                        entries = [
                            {"type": "file", "path": n, "size": p.stat().st_size, "oid": _oid(p)}
                            for n, p in names.items()
                        ]
                        return self.answer_json(entries)
                    wanted = path.removeprefix(f"/{name}/resolve/{revision}/")
                    if wanted in names:
                        return self.answer_file(names[wanted], commit)
                if path.startswith(f"/api/models/{name}/"):
                    return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        do_HEAD = do_GET

        def answer_json(self, value: object) -> None:
            self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def answer_file(self, path: Path, commit: str) -> None:
            headers = {"ETag": f'"{_oid(path)}"', "X-Repo-Commit": commit}
            self.answer(200, path.read_bytes(), headers)

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
