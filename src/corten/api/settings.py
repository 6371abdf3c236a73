"""The engine's settings: dockerd's flags under dockerd's names, and daemon.json with Docker's keys.

A flag or key that Corten does not know is an error that names it; so is one given in both places.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address, ip_address
from typing import Any

import click
import msgspec

from corten.builder.limits import BuilderSettings, read_settings
from corten.engine.cdi import DEFAULT_FOLDERS
from corten.engine.networks import NetworkDefaults
from corten.engine.runtimes import RuntimeSetting, parse_flag
from corten.engine.system import Configured
from corten.engine.volume_plugins import FOLDER as PLUGINS
from corten.errors import Invalid
from corten.network import ipam
from corten.registry.trust import Trust
from corten.spec import log_options
from corten.spec.timestamps import parse_duration
from corten.store.collection import Watermarks, check_kinds, parse_mark

DEFAULT_ROOT, DEFAULT_EXEC_ROOT = "/var/lib/corten", "/run/corten"
DEFAULT_CONFIG = "/etc/corten/daemon.json"


@dataclass(frozen=True)
class Settings:
    data_root: str = DEFAULT_ROOT
    exec_root: str = DEFAULT_EXEC_ROOT
    hosts: tuple[str, ...] = ()
    pidfile: str = ""
    group: str = "docker"
    storage_driver: str = ""
    exec_opts: tuple[str, ...] = ()
    bridge: str = ""
    bip: str = ""
    ip: str = ""
    default_publish_address: str = ""
    allow_direct_routing: bool = False
    plugin_dir: str = PLUGINS
    default_address_pools: tuple[Any, ...] = ()
    cgroup_parent: str = "/corten"
    runtimes: Mapping[str, RuntimeSetting] = field(default_factory=dict)
    default_runtime: str = ""
    host_gateway_ips: tuple[str, ...] = ()
    cdi_spec_dirs: tuple[str, ...] = DEFAULT_FOLDERS
    debug: bool = False
    log_level: str = "info"
    log_driver: str = "json-file"
    log_opts: Mapping[str, str] = field(default_factory=dict)
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    corten_mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    corten_trust: str = ""
    watermarks: Watermarks | None = None
    keep_blobs: bool = False
    builder: BuilderSettings = field(default_factory=BuilderSettings)
    tls: bool | None = None
    tlsverify: bool | None = None
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""

    @property
    def bridge_name(self) -> str:
        """corten0 for the machine's engine; one of its own for an engine with another data root."""
        if self.bridge:
            return self.bridge
        if self.data_root == DEFAULT_ROOT:
            return "corten0"
        return "corten-" + hashlib.sha256(self.data_root.encode()).hexdigest()[:6]

    def shown(self) -> Configured:
        return Configured(self.debug, self.hosts, bool(self.tls or self.tlsverify), bool(self.tlsverify), self.log_driver, self.cdi_spec_dirs)

    @property
    def mirrors(self) -> dict[str, tuple[str, ...]]:
        """Domain -> its mirrors. Docker's key is about docker.io alone; Corten's own about any registry, `*` about all."""
        return {"docker.io": self.registry_mirrors, **self.corten_mirrors}

    @property
    def network_defaults(self) -> NetworkDefaults:
        return NetworkDefaults(self.bridge_name, self.bip, ipam.parse_pools(self.default_address_pools), self.ip, self.default_publish_address,
                               direct_routing=self.allow_direct_routing)  # fmt: skip

    def tls_context(self) -> ssl.SSLContext | None:
        """None without TLS. With `tlsverify`, clients must show a certificate of the given authority."""
        if not (self.tls or self.tlsverify):
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.tlscert, self.tlskey)
            if self.tlsverify:
                context.load_verify_locations(self.tlscacert)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise Invalid(f"--tlscert {self.tlscert!r}, --tlskey {self.tlskey!r}, --tlscacert {self.tlscacert!r}: {error}") from None
        return context


# daemon.json key -> field, where it is not the same with underscores
_KEYS = {"data-root": "data_root", "exec-root": "exec_root", "storage-driver": "storage_driver", "exec-opts": "exec_opts",
         "cgroup-parent": "cgroup_parent", "default-address-pools": "default_address_pools", "log-level": "log_level", "log-driver": "log_driver", "log-opts": "log_opts",
         "default-runtime": "default_runtime", "insecure-registries": "insecure_registries", "registry-mirrors": "registry_mirrors",
         "corten.mirrors": "corten_mirrors", "corten.trust": "corten_trust", "corten.gc": "watermarks", "corten.keep-blobs": "keep_blobs", "plugin-dir": "plugin_dir", "host-gateway-ips": "host_gateway_ips",
         "default-publish-address": "default_publish_address", "allow-direct-routing": "allow_direct_routing", "host-gateway-ip": "host_gateway_ips", "cdi-spec-dirs": "cdi_spec_dirs"}  # fmt: skip
# Keys of dockerd's that would change what a container is: refused by name, with the reason
_NOT_HERE = {
    "userns-remap": "containers share the host's user namespace; take capabilities away (--cap-drop), and run as a user (--user)",
    "selinux-enabled": "SELinux labels are not written",
    "rootless": "the engine needs root",
}
_STORAGE_DRIVERS = ("", "overlay2", "overlay")
_LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


def _runtimes(value: Any, path: str, key: str) -> Mapping[str, RuntimeSetting]:
    try:
        return msgspec.convert(value, dict[str, RuntimeSetting])
    except msgspec.ValidationError as error:
        raise Invalid(f"unable to configure the engine with file {path}: {key}: {error}") from None


def _mirrors(value: Any, path: str, key: str) -> Mapping[str, tuple[str, ...]]:
    try:
        return msgspec.convert(value, dict[str, tuple[str, ...]])
    except msgspec.ValidationError as error:
        raise Invalid(f"unable to configure the engine with file {path}: {key}: {error}; want a registry's domain (or *) -> a list of addresses") from None


class _Collector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    high: str = "90%"
    low: str = "80%"
    kinds: tuple[str, ...] = ("leftovers", "build-cache", "dangling")
    unused_for: dict[str, str] = msgspec.field(default_factory=dict, name="unused-for")


def _watermarks(value: Any, path: str, key: str) -> Watermarks:
    """`low` is below `high` and of the same sort; named images, containers, volumes and logs are collected only where `kinds` says so."""
    try:
        wanted = msgspec.convert(value, _Collector)
        check_kinds([*wanted.kinds, *wanted.unused_for])
        ages = Watermarks().unused_for | {kind: parse_duration(text) for kind, text in wanted.unused_for.items()}
        marks = Watermarks(parse_mark(wanted.high), parse_mark(wanted.low), wanted.kinds, ages)
        if marks.high.percent != marks.low.percent or marks.low.amount > marks.high.amount:
            raise Invalid(f"the low watermark {wanted.low!r} is not below the high one {wanted.high!r}")
    except (msgspec.ValidationError, Invalid) as error:
        raise Invalid(f"unable to configure the engine with file {path}: {key}: {error}") from None
    return marks


def _boolean(value: Any, path: str, key: str) -> bool:
    if not isinstance(value, bool):
        raise Invalid(f"unable to configure the engine with file {path}: {key}: want true or false")
    return value


def _addresses(value: Any, path: str, key: str) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(address, str) for address in found):
        raise Invalid(f"unable to configure the engine with file {path}: {key}: want an address or a list of them")
    return tuple(found)


def _builder(value: Any, path: str, _key: str) -> BuilderSettings:
    try:
        return read_settings(value)
    except Invalid as error:
        raise Invalid(f"unable to configure the engine with file {path}: {error.message}") from None


# field -> how its value in the file is read, where it is not text, number or list
_READ: dict[str, Callable[[Any, str, str], Any]] = {"builder": _builder, "runtimes": _runtimes, "corten_mirrors": _mirrors, "host_gateway_ips": _addresses,
                                                     "watermarks": _watermarks, "keep_blobs": _boolean, "allow_direct_routing": _boolean}  # fmt: skip


def read_config_file(path: str, *, required: bool) -> dict[str, Any]:
    """Field -> value. Raises Invalid naming the key."""
    try:
        with open(path, "rb") as file:
            document = msgspec.json.decode(file.read(), type=dict[str, Any])
    except FileNotFoundError:
        if required:
            raise Invalid(f"unable to configure the engine with file {path}: no such file") from None
        return {}
    except msgspec.DecodeError as error:
        raise Invalid(f"unable to configure the engine with file {path}: {error}") from None
    known = {info.name for info in fields(Settings)}
    found: dict[str, Any] = {}
    for key, value in document.items():
        name = _KEYS.get(key, key)
        if key in _NOT_HERE:
            raise Invalid(f"unable to configure the engine with file {path}: {key} is not supported: {_NOT_HERE[key]}")
        if name not in known:
            raise Invalid(f"unable to configure the engine with file {path}: the following directives don't match any configuration option: {key}")
        found[name] = _READ[name](value, path, key) if name in _READ else tuple(value) if isinstance(value, list) else value
    return found


def combine(file: dict[str, Any], flags: dict[str, Any]) -> Settings:
    """Raises Invalid for a setting given in both places, or with a value that cannot be."""
    both = sorted(set(file) & set(flags))
    if both:
        raise Invalid(f"the following directives are specified both as a flag and in the configuration file: {', '.join(both)}")
    if "runtimes" in flags:
        flags = flags | {"runtimes": dict(parse_flag(text) for text in flags["runtimes"])}
    settings = replace(Settings(), **file, **flags)
    if not settings.hosts:
        settings = replace(settings, hosts=(f"unix://{settings.exec_root}/corten.sock",))
    check(settings)
    return settings


def check(settings: Settings) -> None:
    if settings.storage_driver not in _STORAGE_DRIVERS:
        raise Invalid(f"storage driver {settings.storage_driver!r} is not supported: Corten has overlay2")
    for option in settings.exec_opts:
        if option != "native.cgroupdriver=cgroupfs":
            raise Invalid(f"exec option {option!r} is not supported: Corten has native.cgroupdriver=cgroupfs")
    try:
        log_options.check(settings.log_driver, settings.log_opts)
    except Invalid as error:
        raise Invalid(f"failed to set log opts: {error.message}") from None
    for address in settings.host_gateway_ips:
        try:
            ip_address(address)
        except ValueError:
            raise Invalid(f"--host-gateway-ip {address!r}: want an IP address") from None
    if settings.log_level not in _LOG_LEVELS:
        raise Invalid(f"invalid logging level: {settings.log_level}")
    if not settings.cgroup_parent.startswith("/"):
        raise Invalid(f"--cgroup-parent {settings.cgroup_parent!r}: want an absolute path")
    tcp = [host for host in settings.hosts if host.startswith("tcp://")]
    if tcp and settings.tls is None and not settings.tlsverify:
        raise Invalid(
            f"{tcp[0]} without TLS gives root on this machine to whoever reaches it: use --tlsverify with certificates, "
            "or say --tls=false if that is meant"
        )
    Trust(settings.corten_trust).rules()
    ipam.parse_pools(settings.default_address_pools)
    for flag, address in (("ip", settings.ip), ("default-publish-address", settings.default_publish_address)):
        try:
            IPv4Address(address or "0.0.0.0")
        except ValueError:
            raise Invalid(f"--{flag} {address!r}: want an IPv4 address of this host") from None
    if len(settings.bridge_name) > 15:
        raise Invalid(f"--bridge {settings.bridge_name!r}: an interface name has at most 15 characters")


def _pools(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[dict[str, str], ...]:
    return tuple(dict(word.partition("=")[::2] for word in value.split(",")) for value in values)


_FLAGS = [
    click.option("--data-root", help="Root folder of persistent state"),
    click.option("--exec-root", help="Root folder of sockets and run state"),
    click.option("-H", "--host", "hosts", multiple=True, help="Address to listen on: unix://PATH, tcp://ADDRESS:PORT (repeatable)"),
    click.option("-p", "--pidfile", help="File for the engine's process id"),
    click.option("-G", "--group", help="Group of the UNIX socket"),
    click.option("-s", "--storage-driver", help="Storage driver (overlay2)"),
    click.option("--exec-opt", "exec_opts", multiple=True, help="Runtime option (native.cgroupdriver=cgroupfs)"),
    click.option("-b", "--bridge", help="Name of the default bridge (made if it is not there)"),
    click.option("--plugin-dir", help="Folder of the volume plugins' sockets"),
    click.option("--bip", help="Address of the default bridge with its prefix, such as 172.20.0.1/16"),
    click.option("--ip", help="Address at which ports of the default bridge are published that name none"),
    click.option("--default-publish-address", help="Address at which ports are published that name none, on every network"),
    click.option("--allow-direct-routing", is_flag=True, default=None, help="Let published ports be reached at the containers' own addresses, too"),
    click.option("--default-address-pool", "default_address_pools", multiple=True, callback=_pools,
                 help="Pool for networks' subnets: base=10.10.0.0/16,size=24 (repeatable)"),
    click.option("--cgroup-parent", help="Parent cgroup of all containers"),
    click.option("--add-runtime", "runtimes", multiple=True, help="Another OCI runtime: name=path (repeatable)"),
    click.option("--default-runtime", help="Runtime of containers that ask for none (corten)"),
    click.option("--cdi-spec-dir", "cdi_spec_dirs", multiple=True, help="Folder of CDI specs, instead of /etc/cdi and /var/run/cdi (repeatable)"),
    click.option("--host-gateway-ip", "host_gateway_ips", multiple=True, help="Address that host-gateway in --add-host stands for (repeatable)"),
    click.option("-D", "--debug", is_flag=True, default=None, help="Debug logging"),
    click.option("-l", "--log-level", help="debug, info, warn, error, fatal"),
    click.option("--log-driver", help="Log driver of containers that name none (json-file)"),
    click.option("--log-opt", "log_opts", multiple=True, help="Option of that log driver, KEY=VALUE (repeatable)"),
    click.option("--insecure-registry", "insecure_registries", multiple=True, help="HOST[:PORT] or network that may do without TLS (repeatable)"),
    click.option("--registry-mirror", "registry_mirrors", multiple=True, help="Mirror of docker.io, http(s)://HOST[:PORT] (repeatable)"),
    click.option("--tls", type=bool, is_flag=False, flag_value="true", default=None, help="Use TLS on TCP addresses"),
    click.option("--tlsverify", type=bool, is_flag=False, flag_value="true", default=None, help="Use TLS and ask clients for a certificate"),
    click.option("--tlscacert", help="Certificate authority that clients' certificates must come from"),
    click.option("--tlscert", help="The engine's certificate"),
    click.option("--tlskey", help="The engine's key"),
]


def _options(function: Any) -> Any:
    for option in reversed(_FLAGS):
        function = option(function)
    return function


def parse_arguments(arguments: list[str], program: str = "cortend") -> Settings:
    """Raises Invalid; `--help`, `--version` and unknown flags end the process with click's text and code."""
    from corten import __version__

    @click.command(context_settings={"help_option_names": ["-h", "--help"]}, help="The Corten engine: serves the Docker Engine API.")
    @click.version_option(__version__, "-v", "--version", message="%(prog)s %(version)s")
    @click.option("--config-file", default=DEFAULT_CONFIG, help="daemon.json to read", show_default=True)
    @_options
    def command(config_file: str, **flags: Any) -> Settings:
        given = {key: value for key, value in flags.items() if value not in (None, ())}
        if "log_opts" in given:
            given["log_opts"] = dict(entry.partition("=")[::2] for entry in given["log_opts"])
        file = read_config_file(config_file, required=config_file != DEFAULT_CONFIG)
        return combine(file, given)

    result = command.main(arguments, prog_name=program, standalone_mode=False)
    if not isinstance(result, Settings):
        raise SystemExit(0)
    return _absolute(result)


def _absolute(settings: Settings) -> Settings:
    return replace(settings, data_root=os.path.abspath(settings.data_root), exec_root=os.path.abspath(settings.exec_root))
