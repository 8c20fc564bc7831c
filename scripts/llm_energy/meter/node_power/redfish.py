"""Read a node's power by Redfish (DMTF DSP0266): EnvironmentMetrics of a chassis, or else Power."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from llm_energy.core.errors import LlmEnergyError
from llm_energy.meter.node_power.recorder import PASSWORD, password

CHASSIS = "/redfish/v1/Chassis"
TIMEOUT_S = 10.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _Stay(HTTPRedirectHandler):
    """Follow nothing, since the password would go along."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request."""


def _of_environment(found: Mapping[str, Any]) -> Any:
    return (found.get("PowerWatts") or {}).get("Reading")


def _of_power(found: Mapping[str, Any]) -> Any:
    controls = found.get("PowerControl") or [{}]
    return controls[0].get("PowerConsumedWatts")  # the first is that of the whole chassis


# What a chassis links to, the newer one first, and how it tells the power.
PLACES: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "EnvironmentMetrics": _of_environment,
    "Power": _of_power,
}


class Redfish:
    """Ask one controller at ``url``; ``ca`` is a file with the certificate that signed its own."""

    def __init__(
        self, url: str, user: str, chassis: str | None = None, ca: Path | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise LlmEnergyError(f"{url}: needs https://, or the password would go in the clear")
        self._url = f"{parts.scheme}://{parts.netloc}"
        pair = base64.b64encode(f"{user}:{password()}".encode()).decode()
        self._headers = {"Authorization": f"Basic {pair}", "Accept": "application/json"}
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as error:
            raise LlmEnergyError(f"{ca}: no file of certificates: {error}") from None
        self._opener = build_opener(_Stay, HTTPSHandler(context=context))
        self._chassis = chassis
        self._source: tuple[str, str] | None = None  # a path, and which of PLACES it is

    def power_w(self) -> float:
        """Return what the controller shows; raise LlmEnergyError that says why it shows none."""
        if self._source is None:
            self._source = self._find()
        path, place = self._source
        return self._watts(path, place, required=True)

    def _find(self) -> tuple[str, str]:
        """Find the one chassis that tells a power, and where."""
        found = {path.rstrip("/").rpartition("/")[2]: path for path in self._members()}
        asked = {self._chassis} & found.keys() if self._chassis else found.keys()
        sources = {
            name: source
            for name in sorted(asked)
            if (source := next(self._sources(found[name]), None))
        }
        if len(sources) == 1:
            [source] = sources.values()
            return source
        has = f"of its chassis {', '.join(found) or 'none'}"
        if sources:
            raise LlmEnergyError(
                f"{self._url}: {has}, {', '.join(sources)} tell a power: choose the whole node's"
            )
        asked_for = f"'{self._chassis}' tells no power" if self._chassis else "none tells a power"
        raise LlmEnergyError(f"{self._url}: {has}, {asked_for}")

    def _members(self) -> Iterator[str]:
        for member in self._get(CHASSIS).get("Members") or ():
            yield from self._link(member)

    def _sources(self, path: str) -> Iterator[tuple[str, str]]:
        chassis = self._get(path)
        for place in PLACES:
            for link in self._link(chassis.get(place)):
                if self._watts(link, place) is not None:
                    yield link, place

    def _link(self, found: Any) -> Iterator[str]:
        """Yield the path that a link names, on this controller alone."""
        path = found.get("@odata.id") if isinstance(found, dict) else None
        if isinstance(path, str) and path.startswith("/") and not path.startswith("//"):
            yield path

    def _watts(self, path: str, place: str, required: bool = False) -> Any:
        found = self._get(path)
        try:
            value = PLACES[place](found)
        except (AttributeError, LookupError, TypeError):
            value = None
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return float(value)
        if required:
            raise LlmEnergyError(f"{self._url}{path}: tells no power: found {value!r}")
        return None

    def _get(self, path: str) -> dict[str, Any]:
        try:
            request = Request(self._url + path, headers=self._headers)
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                found = json.load(answer)
        except HTTPError as error:
            why = f"answered {error.code} {error.reason}"
            if error.code in (401, 403):
                why += f": a wrong user or password, see {PASSWORD}"
            raise LlmEnergyError(f"{self._url}{path}: {why}") from None
        except (URLError, TimeoutError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ssl.SSLCertVerificationError):
                reason = f"{reason}: give the certificate that signed its own"
            raise LlmEnergyError(f"{self._url}: cannot be asked: {reason}") from None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise LlmEnergyError(f"{self._url}{path}: gave no JSON object: no Redfish service")
        return found
