"""Kernel encodings that can be checked without the kernel's help, and layouts read from text."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.linux import bpf_devices, cgroup, cgroup_settings, descriptors, mounts, netlink, nft_guests
from corten.linux import syscalls as sys
from corten.linux.cgroup import Setting
from corten.linux.machine import ASSEMBLERS
from corten.runtime.reaper import reaper_program
from corten.spec.runtime import BlockIO, Cpu, DeviceRule, Memory, Pids, Resources, ThrottleDevice

HYBRID = """
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_layouts():
    hybrid = cgroup.parse_layout(HYBRID.strip())
    assert hybrid.v1 == {"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory"}
    assert not hybrid.unified
    assert cgroup.parse_layout(UNIFIED).unified


RESOURCES = Resources(
    memory=Memory(limit=100, swap=150, reservation=50), cpu=Cpu(shares=1024, quota=50000, period=100000, cpus="0-1"), pids=Pids(7),
    block_io=BlockIO(weight=500, throttle_read_bps_device=[ThrottleDevice(8, 0, 1000)]),
)  # fmt: skip


def test_settings_version_1():
    assert cgroup_settings.settings_for(RESOURCES, unified=False) == [
        Setting("memory", "memory.limit_in_bytes", "100"),
        Setting("memory", "memory.memsw.limit_in_bytes", "150"),
        Setting("memory", "memory.soft_limit_in_bytes", "50"),
        Setting("cpu", "cpu.shares", "1024"),
        Setting("cpu", "cpu.cfs_period_us", "100000"),
        Setting("cpu", "cpu.cfs_quota_us", "50000"),
        Setting("cpuset", "cpuset.cpus", "0-1"),
        Setting("blkio", "blkio.weight", "500", optional=True),
        Setting("blkio", "blkio.bfq.weight", "500", optional=True),
        Setting("blkio", "blkio.throttle.read_bps_device", "8:0 1000"),
        Setting("pids", "pids.max", "7"),
    ]


def test_settings_version_2():
    assert cgroup_settings.settings_for(RESOURCES, unified=True) == [
        Setting("memory", "memory.swap.max", "50", optional=True),
        Setting("memory", "memory.max", "100"),
        Setting("memory", "memory.low", "50"),
        Setting("cpu", "cpu.weight", "39"),
        Setting("cpu", "cpu.max", "50000 100000"),
        Setting("cpuset", "cpuset.cpus", "0-1"),
        Setting("pids", "pids.max", "7"),
        Setting("io", "io.bfq.weight", "500", optional=True),
        Setting("io", "io.weight", "default 4950", optional=True),
        Setting("io", "io.max", "8:0 rbps=1000"),
    ]


@given(st.integers(0, 1 << 20))
def test_cpu_weight_stays_in_range(shares):
    assert 1 <= cgroup_settings.cpu_weight(shares) <= 10000


def test_mount_options():
    parsed = mounts.parse_options(["rbind", "ro", "nosuid", "rslave", "size=5m", "mode=700", "suid", "rro"])
    assert parsed.flags == sys.MS_BIND | sys.MS_REC | sys.MS_RDONLY
    assert parsed.propagation == (sys.MS_SLAVE | sys.MS_REC,)
    assert (parsed.data, parsed.recursive) == ("size=5m,mode=700", sys.MOUNT_ATTR_RDONLY)


@given(st.lists(st.tuples(st.integers(1, 200), st.binary(max_size=40)), max_size=8, unique_by=lambda pair: pair[0]))
def test_netlink_attributes_come_back(pairs):
    data = b"".join(netlink.attribute(kind, value) for kind, value in pairs)
    assert len(data) % 4 == 0
    assert netlink.parse_attributes(data) == dict(pairs)


@given(st.binary(max_size=64))
def test_netlink_parser_takes_anything(data):
    netlink.parse_attributes(data)


def _run_bpf(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """A tiny interpreter of the instructions that bpf_devices emits: what the kernel would answer."""
    registers = [0] * 11
    context = {0: access << 16 | kind, 4: major, 8: minor}
    at = 0
    while True:
        code, pair, offset, immediate = struct.unpack_from("<BBhi", program, at * 8)
        dst, src = pair & 15, pair >> 4
        at += 1
        if code == 0x61:
            registers[dst] = context[offset]
        elif code == 0xBC:
            registers[dst] = registers[src]
        elif code == 0x54:
            registers[dst] &= immediate
        elif code == 0x74:
            registers[dst] >>= immediate
        elif code == 0x56:
            at += offset if registers[dst] != immediate else 0
        elif code == 0x5E:
            at += offset if registers[dst] != registers[src] else 0
        elif code == 0xB7:
            registers[dst] = immediate
        elif code == 0x95:
            return registers[0]
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


_rules = st.lists(
    st.builds(DeviceRule, allow=st.booleans(), access=st.sampled_from(["r", "w", "m", "rw", "rwm"]), type=st.sampled_from(["a", "b", "c"]),
              major=st.none() | st.integers(0, 3), minor=st.none() | st.integers(0, 3)), max_size=6)  # fmt: skip


def _expected(rules: list[DeviceRule], kind: str, access: str, major: int, minor: int) -> bool:
    verdict = False
    for rule in rules:
        if rule.type == "a" or (rule.type == kind and set(access) <= set(rule.access) and rule.major in (None, major) and rule.minor in (None, minor)):
            verdict = rule.allow
    return verdict


@given(_rules, st.sampled_from("bc"), st.sampled_from(["r", "w", "m", "rw"]), st.integers(0, 3), st.integers(0, 3))
def test_device_program_decides_as_the_rules_say(rules, kind, access, major, minor):
    bits = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access)
    answer = _run_bpf(bpf_devices.compile_rules(rules), {"b": 1, "c": 2}[kind], bits, major, minor)
    assert bool(answer) == _expected(rules, kind, access, major, minor)


@pytest.mark.parametrize("architecture", sorted(ASSEMBLERS))
def test_programs_are_valid_elf(architecture):
    program = reaper_program(architecture)
    magic, machine, entry = program[:4], struct.unpack_from("<H", program, 18)[0], struct.unpack_from("<Q", program, 24)[0]
    assert magic == b"\x7fELF"
    assert machine == {"amd64": 62, "arm64": 183}[architecture]
    headers = [struct.unpack_from("<IIQQQQQQ", program, 64 + 56 * number) for number in range(3)]
    text = headers[0]
    assert text[3] <= entry < text[3] + text[5]
    assert text[5] == len(program)
    assert all(header[1] & 3 != 3 for header in headers)  # nothing is both writable and executable



def test_guest_rules_are_read_back():
    for guest in (nft_guests.Guest("iifname", "br-1"), nft_guests.Guest("oifname", "fifteen-letters")):
        assert nft_guests._decode(nft_guests._encode(guest)) == guest
    assert nft_guests._decode(b"") is None


def test_a_peer_that_goes_with_packets_unread_has_gone():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.send(b"never read")
    theirs.close()
    assert descriptors.receive_packet(ours) == (b"", [])
    ours.close()
