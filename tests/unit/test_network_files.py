"""Where a container's resolver file comes from, on every style of host."""

from __future__ import annotations

import pytest

from corten.engine.network_files import host_resolver

STUB = "# made by systemd-resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\n"


@pytest.mark.parametrize(
    ("usual", "mode", "wanted"),
    [
        (STUB, "bridge", "behind"),
        (STUB, "host", "usual"),  # in the host's namespace the stub answers
        ("nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "bridge", "usual"),
        ("nameserver 192.0.2.1\n", "bridge", "usual"),
        ("", "bridge", "usual"),
        (None, "bridge", "none"),
    ],
)
def test_host_resolver(tmp_path, usual, mode, wanted):
    if usual is not None:
        (tmp_path / "usual").write_text(usual)
    (tmp_path / "behind").write_text("nameserver 192.0.2.53\n")
    texts = {"usual": usual, "behind": "nameserver 192.0.2.53\n", "none": ""}
    assert host_resolver(mode, str(tmp_path / "usual"), str(tmp_path / "behind")) == texts[wanted]


def test_a_stub_with_nothing_behind_it_is_taken_as_it_is(tmp_path):
    (tmp_path / "usual").write_text(STUB)
    assert host_resolver("bridge", str(tmp_path / "usual"), str(tmp_path / "none")) == STUB
