"""Mounts as the container's kernel shows them: volumes, binds, tmpfs, images, volumes-from; what goes and what stays."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from tarfile import DIRTYPE, FIFOTYPE, LNKTYPE, SYMTYPE

import pytest

from corten.api.client import ApiError
from corten.errors import CortenError
from tests.conftest import what_is_there
from tests.images import derived, entry, layer


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    before = what_is_there()
    yield
    engine.remove_all()
    for volume in engine.client.get("/volumes")["Volumes"]:
        engine.client.delete(f"/volumes/{volume['Name']}")
    assert os.listdir(f"{engine.data_root}/volumes") == os.listdir(f"{engine.exec_root}/mounts") == []
    assert {line for line in what_is_there() - before if line.startswith("mount")} == set()


def mount_of(table: str, point: str) -> tuple[set[str], str]:
    """(options, type) of the last mount on `point` in a mountinfo."""
    rows = [line.split() for line in table.splitlines()]
    row = [row for row in rows if len(row) > 6 and row[4] == point][-1]
    return set(row[5].split(",")), row[row.index("-") + 1]


def run(engine, script: str, **host: object) -> str:
    code, shown = engine.output("sh", "-c", script, **host)
    assert code == 0, shown
    return shown


def names(engine) -> set[str]:
    return {volume["Name"] for volume in engine.client.get("/volumes")["Volumes"]}


# --- volumes
def test_a_named_volume_is_made_kept_and_shared(engine):
    before = names(engine)
    run(engine, "echo kept >/data/file", Binds=["shared:/data"])
    assert run(engine, "cat /data/file; ! touch /data/x 2>/dev/null; cat /proc/self/mountinfo", Binds=["shared:/data:ro"]).startswith("kept\n")
    assert names(engine) - before == {"shared"}


def test_an_empty_volume_takes_what_the_image_has(engine):
    table = run(engine, "stat -c '%a %u:%g %n' /etc /etc/passwd /tmp; cat /etc/group", Binds=["etc:/etc", "tmp:/tmp"])
    image = run(engine, "stat -c '%a %u:%g %n' /etc /etc/passwd /tmp; cat /etc/group")
    assert table == image
    run(engine, "rm /etc/group; echo mine >/etc/own", Binds=["etc:/etc"])
    assert run(engine, "ls /etc", Binds=["etc:/etc"]).split() == ["hostname", "hosts", "own", "passwd", "resolv.conf"]  # not filled again
    assert run(engine, "ls /etc", Binds=["bare:/etc:nocopy"]).split() == ["hostname", "hosts", "resolv.conf"]


LAYER = [
    entry("data", kind=DIRTYPE, mode=0o1777, uid=7), entry("data/sub", kind=DIRTYPE, mode=0o2751, uid=12, gid=34, mtime=10), entry("data/sub/deep", kind=DIRTYPE, mtime=20),
    entry("data/one", b"a", uid=12, gid=34, mode=0o4640, mtime=30), entry("data/two", kind=LNKTYPE, linkname="data/one"), entry("data/big", bytes(3 << 20)),
    entry("data/link", kind=SYMTYPE, linkname="../data/one", uid=5, gid=6), entry("data/fifo", kind=FIFOTYPE, mtime=40), entry("data/marked", b"x", pax_headers={"SCHILY.xattr.user.mark": "yes"}),
    entry("way", kind=SYMTYPE, linkname="/data/sub"),
]  # fmt: skip


@pytest.fixture(scope="module")
def copyup(engine, assets, tmp_path_factory):
    """An image that declares the volume /declared and has a folder /data of everything that there is."""
    path = str(tmp_path_factory.mktemp("image") / "copyup.tar")
    derived(f"{assets}/images/busybox.tar", path, "copyup:latest", layer(LAYER), Volumes={"/declared": {}})
    engine.load(path)
    yield "copyup"
    engine.client.delete("/images/copyup")


def test_copy_up_keeps_owners_modes_times_links_and_attributes(engine, copyup):
    look = "cd /data; stat -c '%n %F %a %u:%g %s %Y' one two link sub/deep sub fifo big marked; stat -c '%a %u' .; readlink link; test one -ef two && echo linked; sha1sum big"
    expected = run(engine, look, image=copyup)
    assert "linked" in expected
    assert run(engine, look, image=copyup, Binds=["filled:/data"]) == expected
    assert os.listdir(f"{engine.data_root}/volumes/filled") == ["_data"]
    assert os.getxattr(f"{engine.data_root}/volumes/filled/_data/marked", "user.mark") == b"yes"


def test_a_link_of_the_image_is_followed_inside_the_image(engine, copyup):
    assert run(engine, "ls /data/sub", image=copyup, Binds=["linked:/way"]) == "deep\n"
    assert os.listdir(f"{engine.data_root}/volumes/linked/_data") == ["deep"]


def test_a_volume_that_the_image_declares(engine, copyup):
    box = engine.run("sleep", "600", image=copyup)
    [mount] = engine.client.get(f"/containers/{box}/json")["Mounts"]
    assert (mount["Type"], mount["Destination"], mount["Driver"], mount["RW"], len(mount["Name"])) == ("volume", "/declared", "local", True, 64)
    engine.client.delete(f"/containers/{box}", force=1, v=1)
    assert names(engine) == set()


def test_a_volume_over_a_file_of_the_image_is_refused(engine):
    for body in ({"Volumes": {"/etc/passwd": {}}}, {"HostConfig": {"Binds": ["over:/etc/passwd"]}}):
        with pytest.raises(ApiError, match=r"cannot mount volume over existing file|is not directory"):
            engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]} | body)
    assert all(len(name) < 64 for name in names(engine)), "an anonymous volume of a refused creation stayed"


def test_anonymous_volumes_go_with_their_container_named_ones_stay(engine):
    def create(**body: object) -> str:
        return engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "Volumes": {"/anon": {}}} | body)["Id"]

    with_named = {"HostConfig": {"Binds": ["named:/data"], "Mounts": [{"Type": "volume", "Target": "/more"}]}}
    engine.client.delete(f"/containers/{create(**with_named)}", v=1)
    assert names(engine) == {"named"}
    engine.client.delete(f"/containers/{create()}")
    assert len(names(engine)) == 2
    dying = create(HostConfig={"AutoRemove": True})
    engine.client.post(f"/containers/{dying}/start")
    with pytest.raises(ApiError):
        while True:
            engine.client.post(f"/containers/{dying}/wait", condition="removed")
    assert len(names(engine)) == 2


def test_volumes_from(engine):
    first = engine.run("sleep", "600", Binds=["data:/data"], Mounts=[{"Type": "volume", "Target": "/anon"}])
    engine.client.post(f"/containers/{first}/rename", name="first-box")
    second = engine.run("sleep", "600", VolumesFrom=["first-box:ro"])
    shown = {mount["Destination"]: mount for mount in engine.client.get(f"/containers/{second}/json")["Mounts"]}
    assert {point: mount["RW"] for point, mount in shown.items()} == {"/data": False, "/anon": False}
    anonymous = shown["/anon"]["Name"]
    engine.client.delete(f"/containers/{first}", force=1, v=1)
    assert anonymous in names(engine), "a volume that another container mounts was removed"
    engine.client.delete(f"/containers/{second}", force=1, v=1)
    assert names(engine) == {"data"}


def test_a_volume_in_use_is_not_removed(engine):
    box = engine.run("sleep", "600", Binds=["busy:/data"])
    for query in ({}, {"force": 1}):
        with pytest.raises(ApiError) as caught:
            engine.client.delete("/volumes/busy", **query)
        assert (caught.value.http_status, caught.value.message) == (409, f"remove busy: volume is in use - [{box}]")
    assert [item["Id"] for item in engine.client.get("/containers/json", filters=json.dumps({"volume": ["busy"]}))] == [box]
    assert engine.client.post("/volumes/prune", filters='{"all":["1"]}')["VolumesDeleted"] == []


def test_driver_options_mount_when_used_and_unmount_after(engine):
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=5m,mode=750"}
    path = engine.client.post("/volumes/create", {"Name": "ram", "DriverOpts": options})["Mountpoint"]
    assert not os.path.ismount(path)
    first, second = (engine.run("sh", "-c", "cat /proc/self/mountinfo; sleep 600", Binds=["ram:/ram"]) for _ in range(2))
    assert os.path.ismount(path)
    assert os.stat(path).st_mode & 0o777 == 0o750
    engine.remove(first)
    assert os.path.ismount(path)
    engine.remove(second)
    assert not os.path.ismount(path)


def test_a_mount_that_fails_is_said_with_dockers_words(engine):
    box = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": [{
        "Type": "volume", "Source": "bad", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/no/such"}}},
    }]}})["Id"]  # fmt: skip
    with pytest.raises(ApiError) as caught:
        engine.client.post(f"/containers/{box}/start")
    path = f"{engine.data_root}/volumes/bad/_data"
    assert caught.value.message == (
        f"error while mounting volume '{path}': failed to mount local volume: mount /no/such:{path}, flags: 0x1000: no such file or directory"
    )


def test_events_of_mounts(engine):
    since = engine.client.get("/info")["SystemTime"]
    run(engine, "true", Binds=["seen:/data:ro"])
    until = engine.client.get("/info")["SystemTime"]
    with engine.client.open("GET", "/events", query={"since": since, "until": until, "filters": '{"type":["volume"]}'}) as response:
        found = [json.loads(line) for line in response.read().splitlines()]
    assert [event["Action"] for event in found] == ["create", "mount", "unmount"]
    attributes = found[1]["Actor"]["Attributes"]
    assert {key: attributes[key] for key in ("driver", "destination", "read/write", "propagation")} == {
        "driver": "local", "destination": "/data", "read/write": "false", "propagation": "",
    }  # fmt: skip
    assert attributes["container"] == found[2]["Actor"]["Attributes"]["container"]


# --- subpaths
def test_a_subpath_of_a_volume(engine):
    run(engine, "mkdir -p /v/a/b; echo inside >/v/a/b/file; ln -s a/b /v/good; ln -s /etc /v/bad", Binds=["deep:/v"])

    def mount(subpath: str) -> list[dict]:
        return [{"Type": "volume", "Source": "deep", "Target": "/x", "VolumeOptions": {"Subpath": subpath}}]

    assert run(engine, "cat /x/file", Mounts=mount("a/b")) == "inside\n"
    assert run(engine, "cat /x/file", Mounts=mount("good")) == "inside\n"
    assert run(engine, "cat /x", Mounts=mount("a/b/file")) == "inside\n"
    for bad, status, text in (("bad", 400, "escapes the base directory"), ("nosuch", 404, "no such file or directory")):
        with pytest.raises(ApiError, match=text) as caught:
            engine.output("true", Mounts=mount(bad))
        assert caught.value.http_status == status
        engine.remove_all()


def test_a_subpath_that_is_swapped_for_a_link_never_leads_out(engine, tmp_path):
    base = engine.client.post("/volumes/create", {"Name": "swapped"})["Mountpoint"]
    os.mkdir(f"{base}/sub")
    open(f"{base}/sub/inside", "w").close()
    os.symlink(str(tmp_path), f"{base}/link")
    (tmp_path / "secret").write_text("outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(f"{base}/sub", f"{base}/away")
            os.rename(f"{base}/link", f"{base}/sub")
            os.rename(f"{base}/sub", f"{base}/link")
            os.rename(f"{base}/away", f"{base}/sub")

    thread = threading.Thread(target=swap)
    thread.start()
    seen: list[str] = []
    try:
        for _ in range(25):
            try:
                seen.append(run(engine, "ls /x", Mounts=[{"Type": "volume", "Source": "swapped", "Target": "/x", "VolumeOptions": {"Subpath": "sub"}}]))
            except ApiError as error:
                assert "escapes the base directory" in error.message or "no such file" in error.message
                engine.remove_all()
    finally:
        stop.set()
        thread.join()
    assert set(seen) <= {"inside\n"}


# --- binds
def test_binds_and_their_options_in_the_kernel(engine, tmp_path):
    (tmp_path / "file").write_text("content")
    shown = run(
        engine, "cat /f /proc/self/mountinfo; ls -ld /made", Binds=[f"{tmp_path}/file:/f:ro", f"{tmp_path}/new/deep:/made", "/proc/version:/v"],
        Mounts=[{"Type": "bind", "Source": str(tmp_path), "Target": "/m", "ReadOnly": True}],
    )  # fmt: skip
    assert shown.startswith("content")
    assert "ro" in mount_of(shown, "/f")[0]
    assert "ro" in mount_of(shown, "/m")[0]
    assert "rw" in mount_of(shown, "/made")[0]
    assert os.path.isdir(tmp_path / "new/deep")


@pytest.fixture
def shared(tmp_path):
    """A tmpfs with another one in it, whose mounts travel."""
    top = tmp_path / "shared"
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top], check=True)
    try:
        subprocess.run(["mount", "--make-shared", top], check=True)
        (top / "sub").mkdir()
        (top / "late").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top / "sub"], check=True)
        yield top
    finally:
        subprocess.run(["umount", "-R", top], check=True)


def test_recursive_and_flat_binds_read_only_too(engine, shared):
    def table(**options: object) -> str:
        mount = {"Type": "bind", "Source": str(shared), "Target": "/x", "ReadOnly": True, "BindOptions": options}
        return run(engine, "cat /proc/self/mountinfo", Mounts=[mount])

    assert "ro" in mount_of(table(), "/x/sub")[0]
    flat = table(ReadOnlyNonRecursive=True)
    assert ("ro" in mount_of(flat, "/x")[0], "ro" in mount_of(flat, "/x/sub")[0]) == (True, False)
    assert " /x/sub " not in table(NonRecursive=True)


def test_propagation(engine, docker_cli, shared):
    script = "until [ -e /x/late/there ]; do sleep 0.05; done; mkdir -p /x/inner; mount -t tmpfs tmpfs /x/inner; touch /x/inner/mark; echo done; sleep 600"
    for mode, in_container, on_host in (("rshared", True, True), ("rslave", True, False), ("rprivate", False, False)):
        box = engine.run("sh", "-c", script, Binds=[f"{shared}:/x:{mode}"], Privileged=True)
        try:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", shared / "late"], check=True)
            (shared / "late/there").touch()
            if in_container:
                with engine.client.open("GET", f"/containers/{box}/logs", query={"stdout": 1, "follow": 1}) as response:
                    assert b"done" in response.read(13)
                assert os.path.exists(shared / "inner/mark") is on_host
            else:
                assert engine.docker(docker_cli, "exec", box, "ls", "/x/late").stdout == ""
        finally:
            engine.remove(box)
            if os.path.ismount(shared / "inner"):
                subprocess.run(["umount", shared / "inner"], check=True)
            subprocess.run(["umount", shared / "late"], check=True)


def test_a_propagation_that_the_source_cannot_give_is_refused(engine, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "--make-private", "tmpfs", tmp_path], check=True)  # whatever the machine's own mounts are
    try:
        with pytest.raises(ApiError) as caught:
            engine.output("true", Binds=[f"{tmp_path}:/x:rshared"])
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert caught.value.message.startswith(f"path {tmp_path} is mounted on {tmp_path}")
    assert caught.value.message.endswith("but it is not a shared mount")


@pytest.mark.parametrize(("target", "text"), [("/proc/1", "inside /proc"), ("/proc", "not of type proc"), ("/etc/passwd", "Are you trying to mount a directory onto a file")])
def test_forbidden_targets(engine, tmp_path, target, text):
    with pytest.raises(ApiError, match=rf'OCI runtime create failed: .*error mounting "{tmp_path}" to rootfs at "{target}": .*{text}'):
        engine.output("true", Binds=[f"{tmp_path}:{target}"])


def test_user_mounts_take_the_place_of_defaults(engine, tmp_path):
    (tmp_path / "hosts").write_text("own hosts\n")
    shown = run(engine, "cat /etc/hosts /proc/self/mountinfo", Binds=[f"{tmp_path}/hosts:/etc/hosts"], Tmpfs={"/dev/shm": "size=3m"})
    assert shown.startswith("own hosts\n")
    assert shown.count(" /dev/shm ") == shown.count(" /etc/hosts ") == 1
    assert "size=3072k" in shown


# --- whose files they are
@pytest.mark.parametrize("user", ["", "33:44", "nobody"])
def test_what_is_made_in_an_idmapped_bind_is_the_owners(engine, docker_cli, tmp_path, user):
    os.chown(tmp_path, 1234, 2345)
    named = ["-v", f"{tmp_path}:/src:idmap"]
    if user == "nobody":  # a name, looked up in the container's own passwd
        named = ["--mount", f"type=bind,src={tmp_path},dst=/src,consistency=idmap"]
    arguments = ["-u", user] if user else []
    shown = engine.docker(docker_cli, "run", "--rm", *arguments, *named, "busybox", "sh", "-c", "mkdir /src/made && touch /src/made/file && stat -c %u:%g /src /src/made/file; id -u; cat /proc/self/mountinfo").stdout
    inside = shown.splitlines()
    assert inside[0] == inside[1]
    assert inside[0].partition(":")[0] == inside[2]
    assert "idmapped" in mount_of(shown, "/src")[0]
    for path in (tmp_path, tmp_path / "made", tmp_path / "made/file"):
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (1234, 2345)


def test_a_volume_is_writable_for_any_user_by_idmap(engine, docker_cli):
    as_user = ["run", "--rm", "-u", "7:8", "busybox", "sh", "-c", "echo x >/data/file"]
    refused = engine.docker(docker_cli, *as_user[:4], "-v", "mapped:/data", *as_user[4:], check=False)
    assert "Permission denied" in refused.stderr
    engine.docker(docker_cli, *as_user[:4], "-v", "mapped:/data:idmap", *as_user[4:])
    assert os.stat(f"{engine.data_root}/volumes/mapped/_data/file").st_uid == 0


def test_a_file_system_without_idmaps_is_named(engine):
    with pytest.raises(ApiError, match=r"idmap of /proc: its file system \(proc\) has no idmapped mounts"):
        engine.output("true", Binds=["/proc:/x:idmap"])


# --- tmpfs and images
def test_tmpfs_of_both_kinds(engine):
    shown = run(
        engine, "cat /proc/self/mountinfo; stat -c %a /b", Tmpfs={"/a": "size=1m,exec"},
        Mounts=[{"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": 2 << 20, "Mode": 0o700}}, {"Type": "tmpfs", "Target": "/c", "ReadOnly": True}],
    )  # fmt: skip
    options, kind = mount_of(shown, "/a")
    assert (kind, options >= {"nosuid", "nodev"}, "noexec" in options) == ("tmpfs", True, False)
    assert mount_of(shown, "/b")[0] >= {"rw", "nosuid", "nodev", "noexec"}
    assert "ro" in mount_of(shown, "/c")[0]
    assert "size=1024k" in shown
    assert "size=2048k" in shown
    assert shown.endswith("700\n")


def test_an_image_is_mounted_read_only_and_kept(engine):
    mount = {"Type": "image", "Source": "busybox", "Target": "/img"}
    assert run(engine, "cat /img/etc/group; ! touch /img/x 2>/dev/null", Mounts=[mount]).startswith("root")
    assert "passwd" in run(engine, "ls /img", Mounts=[mount | {"ImageOptions": {"Subpath": "etc"}}])
    with pytest.raises(ApiError, match="no such file or directory"):
        engine.output("true", Mounts=[mount | {"ImageOptions": {"Subpath": "nosuch"}}])


def test_an_image_of_several_layers_is_mounted_merged(engine, copyup):
    shown = run(engine, "cat /img/data/one /img/etc/group; readlink /img/way; ! touch /img/x 2>/dev/null; cat /proc/self/mountinfo", Mounts=[{"Type": "image", "Source": copyup, "Target": "/img"}])
    assert shown.startswith("aroot")
    options, kind = mount_of(shown, "/img")
    assert ("ro" in options, kind) == (True, "overlay")


# --- crashes
def test_a_crash_leaves_no_mount_and_no_half_made_volume(own_engine):
    options = {"type": "tmpfs", "device": "tmpfs", "o": ""}
    path = own_engine.client.post("/volumes/create", {"Name": "ram", "DriverOpts": options})["Mountpoint"]
    running = own_engine.run("sleep", "600", Binds=["ram:/ram"])
    made = own_engine.client.post("/volumes/create", {"Name": "half"})["Mountpoint"]
    own_engine.kill()
    os.makedirs(f"{os.path.dirname(made)}/.corten-copying/junk")
    own_engine.start()
    assert os.path.ismount(path), "a running container's volume was unmounted"
    assert os.listdir(os.path.dirname(made)) == ["_data"]
    own_engine.kill()
    os.makedirs(f"{os.path.dirname(made)}/.corten-copied/content")
    stage = f"{own_engine.exec_root}/mounts/{'a' * 64}"
    os.makedirs(f"{stage}/0")
    subprocess.run(["mount", "--bind", made, f"{stage}/0"], check=True)
    own_engine.start()
    assert os.listdir(made) == ["content"]
    assert not os.path.exists(stage)
    own_engine.remove(running)
    assert not os.path.ismount(path)


def test_a_crash_in_the_middle_of_a_copy_leaves_the_volume_empty(own_engine, assets, tmp_path):
    files = [entry(f"files/{number}", b"x" * 100) for number in range(4000)]
    derived(f"{assets}/images/busybox.tar", str(tmp_path / "image.tar"), "files:latest", layer(files))
    own_engine.load(str(tmp_path / "image.tar"))
    data = own_engine.client.post("/volumes/create", {"Name": "filled"})["Mountpoint"]
    partial = f"{os.path.dirname(data)}/.corten-copying"
    body = {"Image": "files", "Cmd": ["true"], "HostConfig": {"Binds": ["filled:/files"], "Mounts": [{"Type": "volume", "Target": "/anon"}]}}

    def create() -> None:
        with contextlib.suppress(CortenError):
            own_engine.client.post("/containers/create", body)

    thread = threading.Thread(target=create)
    thread.start()
    while not (os.path.isdir(partial) and os.listdir(partial)):
        assert thread.is_alive(), "the copy was over before it was seen"
    own_engine.kill()
    thread.join()
    own_engine.start()
    assert (os.listdir(data), os.listdir(os.path.dirname(data))) == ([], ["_data"])
    assert own_engine.client.get("/containers/json", all=1) == []
    assert names(own_engine) == {"filled"}, "an anonymous volume of a creation that a crash cut short stayed"
    box = own_engine.client.post("/containers/create", body)["Id"]
    assert len(os.listdir(data)) == 4000
    own_engine.client.delete(f"/containers/{box}", v=1)


def test_a_container_that_ends_while_no_engine_runs_lets_its_volume_go(own_engine):
    path = own_engine.client.post("/volumes/create", {"Name": "ram", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}})["Mountpoint"]
    box = own_engine.run("sleep", "600", Binds=["ram:/ram"])
    pid = own_engine.client.get(f"/containers/{box}/json")["State"]["Pid"]
    pidfd = os.pidfd_open(pid)
    own_engine.kill()
    os.kill(pid, 9)
    import select

    select.select([pidfd], [], [], 10)
    os.close(pidfd)
    own_engine.start()
    assert not os.path.ismount(path)
    own_engine.client.delete(f"/containers/{box}")
    own_engine.client.delete("/volumes/ram")
