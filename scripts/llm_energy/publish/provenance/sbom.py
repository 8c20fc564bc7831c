"""List the packages of an environment as CycloneDX (https://cyclonedx.org), for audits."""

from __future__ import annotations

import re
import uuid
from datetime import datetime

from llm_energy.core.files import sha256_bytes

PIN = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>[^ ]+) \\\n"
    r"(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)",
    re.MULTILINE,
)
SHA256 = re.compile(r"[0-9a-f]{64}")
INDEX = "https://pypi.org/simple"


def bill_of_materials(name: str, lock: str, made: datetime) -> str:
    """Return the packages that a lock pins, each with the SHA-256 of every file that it allows.

    ``name`` is the environment's and ``made`` the bill's date; the same lock gives the same bytes.
    A lock knows nothing of licences.
    """
    from cyclonedx.model import (
        ExternalReference,
        ExternalReferenceType,
        HashAlgorithm,
        HashType,
        XsUri,
    )
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    def component(pin: re.Match[str]) -> Component:
        package, version = pin["name"], pin["version"]
        files = [
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION,
                url=XsUri(f"{INDEX}/{package}/#sha256={content}"),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=content)],
            )
            for content in SHA256.findall(pin["hashes"])
        ]
        address = PackageURL("pypi", None, package, version)
        return Component(
            name=package,
            version=version,
            purl=address,
            bom_ref=str(address),
            external_references=files,
        )

    environment = Component(
        name=f"llm-energy-{name}", type=ComponentType.APPLICATION, bom_ref=f"environment-{name}"
    )
    bill = Bom(
        components=map(component, PIN.finditer(lock)),
        metadata=BomMetaData(timestamp=made, component=environment),
        serial_number=uuid.UUID(sha256_bytes(lock.encode("utf-8"))[:32], version=4),
    )
    bill.register_dependency(environment, bill.components)
    return JsonV1Dot6(bill).output_as_string(indent=1) + "\n"
