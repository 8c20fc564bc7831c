"""Validate a crate with roc-validator, offline: python validate_crate.py CRATE CONTEXT FOLDER.

It runs in the environment ``publishing``. The one page that the validator asks the network for, the
JSON-LD context of RO-Crate, is put into its cache from the file CONTEXT, ro-crate-py's copy.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import requests
import urllib3
from requests_cache import CachedSession
from rocrate_validator import services


class OneFile(requests.adapters.HTTPAdapter):
    """Answer each request with one file."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content

    def send(self, request, **_):
        """Return the answer."""
        return self.build_response(
            request,
            urllib3.HTTPResponse(
                io.BytesIO(self.content),
                {"Content-Type": "application/ld+json"},
                status=200,
                preload_content=False,
                request_url=request.url,
            ),
        )


def main(crate: str, context: str, folder: str) -> None:
    """Fill the cache, validate the crate, and print one line a fault."""
    content = Path(context).read_bytes()
    cache = f"{folder}/cache"
    session = CachedSession(cache, backend="sqlite")
    session.mount("https://", OneFile(content))
    session.get(json.loads(content)["@id"]).raise_for_status()
    session.close()
    settings = {"offline": True, "cache_path": Path(cache), "requirement_severity": "RECOMMENDED"}
    found = services.validate(
        {"rocrate_uri": crate, "profile_identifier": "ro-crate-1.3", **settings}
    )
    faults = [
        f"{one.severity.name} {one.check.identifier}: {one.message} {one.violatingEntity}"
        for one in found.get_issues()
    ]
    print("\n".join(faults))


if __name__ == "__main__":
    main(*sys.argv[1:])
