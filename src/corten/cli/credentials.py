"""What the user has logged in with, from Docker's `config.json`, as the header that the engine takes. Credential helpers are not asked."""

from __future__ import annotations

import base64
import json
import os

from corten.errors import Invalid
from corten.spec.reference import parse_reference

_HUB = "https://index.docker.io/v1/"  # how config.json calls docker.io


def registry_auth(reference: str) -> dict[str, str]:
    """The X-Registry-Auth header for a reference's registry; none for one that nobody has logged in to. Raises Invalid."""
    path = os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")
    domain = parse_reference(reference).domain
    try:
        with open(path, encoding="utf-8") as file:
            entry = json.load(file).get("auths", {}).get(_HUB if domain == "docker.io" else domain)
        if not entry or not entry.get("auth"):
            return {}
        username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise Invalid(f"{path} is not what `docker login` writes: {error}") from None
    sent = {"username": username, "password": password, "identitytoken": entry.get("identitytoken", ""), "serveraddress": domain}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(sent).encode()).decode()}
