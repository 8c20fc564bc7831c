"""A stand-in for the Redfish service of a management controller, on a port of its own."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = "/redfish/v1/Chassis"


def chassis(**links: Any) -> dict[str, Any]:
    """Return the resources of one service, by path; each chassis has some of its two links."""
    found: dict[str, Any] = {ROOT: {"Members": [{"@odata.id": f"{ROOT}/{name}"} for name in links]}}
    for name, resources in links.items():
        here = f"{ROOT}/{name}"
        found[here] = {"Id": name} | {link: {"@odata.id": f"{here}/{link}"} for link in resources}
        found |= {f"{here}/{link}": resource for link, resource in resources.items()}
    return found


def environment(watts: float | None) -> dict[str, Any]:
    """Return the newer resource, as DMTF's EnvironmentMetrics v1.3 has it."""
    return {"EnvironmentMetrics": {"PowerWatts": {"Reading": watts}}}


def power(watts: float | None) -> dict[str, Any]:
    """Return the older one, as DMTF's Power v1.7 has it."""
    return {"Power": {"PowerControl": [{"PowerConsumedWatts": watts}]}}


def certificate(folder: Path) -> Path:
    """Make a key and the certificate that it signed itself, in one file, as controllers do."""
    path = folder / "bmc.pem"
    words = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=bmc"
    )
    own = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", "-"]
    made = subprocess.run(["openssl", *words.split(), *own], capture_output=True, check=True)
    path.write_bytes(path.read_bytes() + made.stdout)
    return path


@contextmanager
def serving(
    resources: Mapping[str, Any], user: str, password: str, certificate: Path | None = None
) -> Iterator[str]:
    """Serve resources to one user, and give the service's URL; a text is sent as it is.

    A number is the status of a failure, a ``Location`` where a redirection leads. With a file of a
    key and its certificate it is served over https.
    """
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = resources.get(self.path, 404)
            if self.headers["Authorization"] != f"Basic {pair}":
                found = 401
            if isinstance(found, dict) and "Location" in found:
                self.send_response(302)
                self.send_header("Location", found["Location"])
                self.end_headers()
                return
            if isinstance(found, int):
                self.send_error(found)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write((found if isinstance(found, str) else json.dumps(found)).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
