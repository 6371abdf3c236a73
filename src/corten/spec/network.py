"""Engine API objects of networks: what clients send to create one, connect and disconnect. Frozen values; pure.

Source: Docker Engine API 1.51 (moby api/swagger.yaml, NetworkCreateRequest, IPAM, NetworkConnectRequest).
"""

from __future__ import annotations

import msgspec

from corten.spec.engine import EndpointSettings


class _Api(msgspec.Struct, frozen=True, rename="pascal"):
    """Base: Docker's PascalCase keys."""


class IpamPool(_Api, frozen=True, omit_defaults=True):
    """One subnet that was asked for; every value as the client wrote it."""

    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class Ipam(_Api, frozen=True):
    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IpamPool] | None = None


class ConfigReference(_Api, frozen=True):
    network: str = ""


class NetworkCreate(_Api, frozen=True):
    name: str = ""
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    ipam: Ipam | None = msgspec.field(default=None, name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class NetworkConnect(_Api, frozen=True):
    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnect(_Api, frozen=True):
    container: str = ""
    force: bool = False
