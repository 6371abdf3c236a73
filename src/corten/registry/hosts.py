"""Where a registry's content is to be had and how to speak to it: mirrors first, plain HTTP and own certificates where allowed.

Owns the meaning of daemon.json's `insecure-registries`, `registry-mirrors` and `corten.mirrors`, and of the certs.d folders.
Must not speak to anybody. Source: Docker Engine 28.5 (moby registry/config.go, registry.go: certificate names, loopback is insecure).
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yarl import URL

from corten.errors import Invalid, RegistryError
from corten.spec.reference import DEFAULT_DOMAIN

HUB = "registry-1.docker.io"
LOOPBACK = ("::1/128", "127.0.0.0/8")
CERTIFICATE_FOLDERS = ("/etc/corten/certs.d", "/etc/docker/certs.d")
_ANY = "*"


@dataclass(frozen=True)
class Endpoint:
    """One place to ask. `bases` are tried in this order; `namespace` tells a mirror whose content is meant (containerd's `ns`).

    After `silence` seconds without a byte a connection counts as broken.
    """

    host: str
    bases: tuple[URL, ...]
    tls: ssl.SSLContext | bool
    namespace: str = ""
    silence: float = 60.0

    @property
    def is_mirror(self) -> bool:
        return bool(self.namespace)


class RegistryHosts:
    """`mirrors` maps a registry's domain, or `*`, to addresses; each with a scheme and nothing after the host but an optional path."""

    def __init__(self, insecure: Sequence[str] = (), mirrors: Mapping[str, Sequence[str]] | None = None,
                 folders: Sequence[str] = CERTIFICATE_FOLDERS) -> None:  # fmt: skip
        self._folders = folders
        self.insecure = tuple(insecure)
        self._networks = [network for text in (*LOOPBACK, *insecure) if (network := _network(text))]
        self._mirrors = {domain: [_address(text) for text in texts] for domain, texts in (mirrors or {}).items()}

    @property
    def networks(self) -> list[str]:
        return [str(network) for network in self._networks]

    def mirrors_of(self, domain: str) -> list[str]:
        return [str(url) for url in self._mirrors.get(domain, [])]

    def is_insecure(self, host: str) -> bool:
        """Whether plain HTTP, or a certificate that nobody vouches for, will do. `host` may have a port."""
        if host in self.insecure:
            return True
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def origin(self, domain: str) -> Endpoint:
        """The registry itself. Raises RegistryError for certificates that cannot be used."""
        host = HUB if domain == DEFAULT_DOMAIN else domain
        insecure = self.is_insecure(host)
        schemes = ("https", "http") if insecure else ("https",)
        return Endpoint(host, tuple(URL(f"{scheme}://{host}") for scheme in schemes), self._tls(host, insecure=insecure))

    def endpoints(self, domain: str) -> list[Endpoint]:
        """Every place that may have a registry's content: its mirrors as configured, then itself."""
        mirrors = [*self._mirrors.get(domain, []), *self._mirrors.get(_ANY, [])]
        return [*(self._mirror(url, domain) for url in mirrors), self.origin(domain)]

    def _mirror(self, url: URL, domain: str) -> Endpoint:
        host = url.authority
        return Endpoint(host, (url,), self._tls(host, insecure=self.is_insecure(host)), domain)

    def _tls(self, host: str, *, insecure: bool) -> ssl.SSLContext | bool:
        """False is no verification at all. `*.crt` are authorities, NAME.cert with NAME.key show who we are."""
        found = [f"{folder}/{host}" for folder in self._folders if os.path.isdir(f"{folder}/{host}")]
        if not found:
            return not insecure
        context = ssl.create_default_context()
        if insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for name in sorted(os.listdir(found[0])):
            path = f"{found[0]}/{name}"
            try:
                if name.endswith(".crt"):
                    context.load_verify_locations(path)
                elif name.endswith(".cert"):
                    context.load_cert_chain(path, path.removesuffix("cert") + "key")
            except (OSError, ssl.SSLError) as error:
                raise RegistryError(f"certificate {path} of the registry {host}: {error}") from None
        return context


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A network of registries; None for a name. Raises Invalid for neither."""
    if "/" not in text:
        if "://" in text or not text:
            raise Invalid(f"insecure registry {text!r} is not valid: want HOST[:PORT] or a network")
        return None
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise Invalid(f"insecure registry {text!r} is not valid: want HOST[:PORT] or a network such as 10.0.0.0/8") from None


def _address(text: str) -> URL:
    url = URL(text)
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.user:
        raise Invalid(f'invalid mirror: "{text}" is not a valid URI: want http(s)://HOST[:PORT]')
    return url.with_path(url.path.rstrip("/")) if url.path != "/" else url
