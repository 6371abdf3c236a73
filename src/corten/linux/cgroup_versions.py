"""Which version serves this host, and what is done to a group whichever it is."""

from __future__ import annotations

import contextlib
import os

from corten.linux.cgroup import Cgroup, Layout, host_layout
from corten.linux.cgroup_v1 import CgroupV1
from corten.linux.cgroup_v2 import CgroupV2


def open_cgroup(path: str, layout: Layout | None = None) -> Cgroup:
    """The group at `path` (absolute below the root, such as /corten/ID) in the host's own version."""
    layout = layout or host_layout()
    return CgroupV2(layout, path) if layout.unified else CgroupV1(layout, path)


def remove_if_empty(path: str, layout: Layout) -> None:
    """Remove a parent group that holds nothing any more; somebody else's containers in it keep it."""
    for mount in {*layout.v1.values(), *layout.named, *([layout.v2] if layout.v2 else [])}:
        with contextlib.suppress(OSError):
            os.rmdir(mount + path)
