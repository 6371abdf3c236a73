"""Hosts of the tests' own, made of network namespaces: one that an engine runs on, one outside beside it, one outside behind that.

    host (out, NEAR) --- (eth0, FAR) other (eth1, MIDDLE) --- (eth0, BEYOND) third

All traffic of these tests stays in these namespaces.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from pyroute2 import NetNS, netns

from corten.linux.namespaces import network_namespace
from tests.engines import RunningEngine

NEAR, FAR, MIDDLE, BEYOND = "10.231.79.1", "10.231.79.2", "10.231.80.1", "10.231.80.2"
_FARTHEST = "10.231.80.0/24"


class Place:
    """The three hosts: `fd`, `outside` and `beyond` are descriptors of their namespaces."""

    def __init__(self) -> None:
        self.name, self.other, self.third = (f"cortest-{os.getpid()}-{letter}" for letter in "hob")
        self.fd = self.outside = self.beyond = -1

    def __enter__(self) -> Place:
        names = (self.name, self.other, self.third)
        for name in names:
            netns.create(name)
        self.fd, self.outside, self.beyond = (os.open(f"/var/run/netns/{name}", os.O_RDONLY) for name in names)
        for name, link, peer in ((self.name, "out", self.other), (self.third, "eth0", self.other)):
            with NetNS(name) as here:
                here.link("add", ifname=link, kind="veth", peer={"ifname": "eth0" if link == "out" else "eth1", "net_ns_fd": peer})
        for name, link, address in ((self.name, "out", NEAR), (self.other, "eth0", FAR), (self.other, "eth1", MIDDLE), (self.third, "eth0", BEYOND)):
            with NetNS(name) as there:
                there.addr("add", index=there.link_lookup(ifname=link)[0], address=address, prefixlen=24)
                for up in (link, "lo"):
                    there.link("set", index=there.link_lookup(ifname=up)[0], state="up")
        for name, target, gateway in ((self.name, _FARTHEST, FAR), (self.third, "default", MIDDLE)):
            with NetNS(name) as there:
                there.route("add", dst=target, gateway=gateway)
        with network_namespace(self.outside), open("/proc/sys/net/ipv4/ip_forward", "w", encoding="utf-8") as file:
            file.write("1")
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.fd, self.outside, self.beyond):
            os.close(fd)
        for name in (self.name, self.other, self.third):
            netns.remove(name)

    def nft(self, *arguments: str, text: str | None = None) -> str:
        """What the program nft says on the host of the engine. Fails the test if it fails."""
        with network_namespace(self.fd):
            done = subprocess.run(["nft", *arguments], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def engine(self, name: str, assets: str, *arguments: str) -> Iterator[RunningEngine]:
        """An engine on that host, with the image busybox."""
        running = RunningEngine(name, *arguments, prefix=("nsenter", f"--net=/var/run/netns/{self.name}"))
        try:
            running.load(f"{assets}/images/busybox.tar")
            yield running
        finally:
            running.stop()

    def outcome(self, port: int, source: str = FAR) -> str:
        """What an outside host sees of a TCP port: open, refused, unreachable or silence. `source` is one of its addresses."""
        caller = socket_in(self.beyond if source == BEYOND else self.outside, socket.SOCK_STREAM)
        caller.settimeout(0.5)
        caller.bind((source, 0))
        try:
            caller.connect((NEAR, port))
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
        except OSError:
            return "unreachable"
        finally:
            caller.close()
        return "open"

    def is_reached(self, port: int) -> bool:
        """Whether the outside host can connect, with more patience."""
        caller = socket_in(self.outside, socket.SOCK_STREAM)
        caller.settimeout(1.5)
        try:
            caller.connect((NEAR, port))
        except OSError:
            return False
        finally:
            caller.close()
        return True


def socket_in(fd: int, kind: int, protocol: int = 0) -> socket.socket:
    """An IPv4 socket in a network namespace."""
    with network_namespace(fd):
        made = socket.socket(socket.AF_INET, kind, protocol)
    made.settimeout(5)
    return made
