"""What is in a container's root and what becomes of it: changes, commit, export, import, as Docker 28.5.2 did with the same commands."""

from __future__ import annotations

import pytest

CHANGE_IT = (
    "mkdir -p /a/b; echo x >/a/b/c; rm /etc/passwd; chmod 700 /home; touch /etc/new; rm -rf /var; mkdir /var; echo 1 >/var/y;"
    "rm -rf /usr/sbin; ln -s bin /usr/sbin; chown 1:1 /bin/busybox; mv /root /root2; echo 1.2.3.4 x >>/etc/hosts; ln /a/b/c /a/hard"
)
# Recorded: what Docker's `GET /containers/{id}/changes` answers after CHANGE_IT in busybox.
DOCKERS_CHANGES = {
    "/bin": 0, "/bin/busybox": 0, "/home": 0, "/root2": 1, "/var": 0, "/var/y": 1, "/var/www": 2, "/a": 1, "/a/b": 1, "/a/b/c": 1,
    "/a/hard": 1, "/etc": 0, "/etc/new": 1, "/etc/passwd": 2, "/usr": 0, "/usr/sbin": 0, "/root": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def changes(engine, container):
    return {change["Path"]: change["Kind"] for change in engine.client.get(f"/containers/{container}/changes") or []}


def test_changes_are_dockers(engine):
    container = engine.run("sh", "-c", f"{CHANGE_IT}; echo done; sleep 600")
    follow = engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "follow": 1})
    with follow:
        follow.read(9)
    assert changes(engine, container) == DOCKERS_CHANGES
    engine.client.post(f"/containers/{container}/kill")
    engine.client.post(f"/containers/{container}/wait")
    assert changes(engine, container) == DOCKERS_CHANGES


def test_what_the_engine_mounts_over_is_nobodys_change(engine):
    fresh = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    assert engine.client.get(f"/containers/{fresh}/changes") is None
    code, shown = engine.output("sh", "-c", "ls -a / | grep dockerenv; readlink /etc/mtab; stat -c %a /.dockerenv")
    assert (code, shown) == (0, ".dockerenv\n/proc/mounts\n755\n")
    started = engine.run("true")
    engine.client.post(f"/containers/{started}/wait")
    assert engine.client.get(f"/containers/{started}/changes") is None


def test_a_process_that_swaps_folders_for_links_leads_nowhere(engine):
    swap = "mkdir -p /d/e /x; i=0; while [ $i -lt 2000 ]; do mv /d /x/d; ln -s / /d; rm /d; mv /x/d /d; i=$((i+1)); done"
    container = engine.run("sh", "-c", swap)
    while engine.client.get(f"/containers/{container}/json")["State"]["Running"]:
        assert all(path.split("/")[1] in ("d", "x") for path in changes(engine, container))
