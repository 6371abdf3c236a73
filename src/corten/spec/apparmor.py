"""The AppArmor profile of containers as text, under Docker's name for it. Pure.

Everything is allowed that capabilities, namespaces and file modes allow, but: mounting, what /proc and /sys say to the whole
machine, and signals and ptrace beyond containers. Self-contained: nothing is included that a distribution may lack.
Sources: apparmor.d(5); what Docker Engine 28.5's docker-default permits and denies (docs.docker.com "AppArmor").
"""

from __future__ import annotations

DEFAULT_PROFILE, UNCONFINED = "docker-default", "unconfined"

# Below /proc a container may write to processes, and of /proc/sys only to kernel.shm*, which is its IPC namespace's.
_NOT_A_PROCESS = "{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}"
_DENIED = (
    ("/proc/*", "w"),
    (f"/proc/{_NOT_A_PROCESS}/**", "w"),
    ("/proc/sys/[^k]**", "w"),
    ("/proc/sys/kernel/{?,??,[^s][^h][^m]**}", "w"),
    ("/proc/sysrq-trigger", "rwklx"),
    ("/proc/kcore", "rwklx"),
    ("/sys/[^f]*/**", "wklx"),
    ("/sys/f[^s]*/**", "wklx"),
    ("/sys/fs/[^c]*/**", "wklx"),
    ("/sys/fs/c[^g]*/**", "wklx"),
    ("/sys/fs/cg[^r]*/**", "wklx"),
    ("/sys/firmware/**", "rwklx"),
    ("/sys/devices/virtual/powercap/**", "rwklx"),
    ("/sys/kernel/security/**", "rwklx"),
)


def default_profile(name: str = DEFAULT_PROFILE) -> str:
    """For apparmor_parser."""
    denied = "\n".join(f"  deny {path} {access}," for path, access in _DENIED)
    return f"""profile {name} flags=(attach_disconnected,mediate_deleted) {{
  network,
  capability,
  file,
  umount,
  unix,
  signal (receive) peer=unconfined,
  signal (send,receive) peer={name},
  ptrace (trace,read,tracedby,readby) peer={name},
  deny mount,
{denied}
}}
"""
