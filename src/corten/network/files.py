"""The three files that tell a container where it is: hosts, hostname, resolv.conf. Pure text.

Source: Docker Engine 28.5 (libnetwork etchosts, resolvconf): on the default bridge the host's nameservers are copied,
loopback ones left out, because they cannot be reached from inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

_HOSTS = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")


def hosts(rows: Sequence[tuple[str, str]]) -> str:
    """`rows` are (names, address) pairs beyond localhost's."""
    return _HOSTS + host_lines(rows)


def host_lines(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(f"{address}\t{names}\n" for names, address in rows)


def resolv_conf(host: str, servers: Sequence[str], search: Sequence[str], options: Sequence[str], *, keep_loopback: bool) -> str:
    """`host` is the host's own file; what the container asks for replaces the host's lines of that kind."""
    rows = [line.split() for line in host.splitlines() if line.strip() and line.lstrip()[0] not in "#;"]
    found = {key: [word for row in rows if row[0] == key for word in row[1:]] for key in ("nameserver", "search", "options")}
    nameservers = list(servers) or [
        server for server in found["nameserver"] if keep_loopback or not _is_loopback(server)
    ]
    if not nameservers:
        nameservers = list(FALLBACK_NAMESERVERS)
    wanted_search = [domain for domain in (search or found["search"]) if domain != "."]
    lines = [f"nameserver {server}" for server in nameservers]
    if wanted_search:
        lines.append("search " + " ".join(wanted_search))
    if options or found["options"]:
        lines.append("options " + " ".join(options or found["options"]))
    return "\n".join(lines) + "\n"


def is_stub(host: str) -> bool:
    """Whether the only nameserver is the one that systemd-resolved(8) puts on loopback."""
    rows = (line.split() for line in host.splitlines())
    return [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"] == ["127.0.0.53"]


def nameservers(host: str) -> list[str]:
    """The host's own, loopback ones too: for whoever asks from the host."""
    rows = [line.split() for line in host.splitlines()]
    return [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]


def own_resolv_conf(host: str, search: Sequence[str], options: Sequence[str], resolver: str) -> str:
    """For a container with a name service of its own: every name is asked there first, single labels too (ndots:0)."""
    text = resolv_conf(host, [resolver], search, options, keep_loopback=True)
    lines = text.splitlines()
    if not any(line.startswith("options ") for line in lines):
        return "\n".join([*lines, "options ndots:0"]) + "\n"
    return "\n".join(f"{line} ndots:0" if line.startswith("options ") and "ndots:" not in line else line for line in lines) + "\n"


def _is_loopback(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True
