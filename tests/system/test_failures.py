"""Bad input, failed starts, hostile archives: refused with Docker's words, and nothing left behind."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest

from corten.api.client import ApiError
from corten.spec.digest import digest_of
from tests.conftest import what_is_there
from tests.engines import eventually


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def refused(engine, method: str, path: str, body: object = None, **query: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        engine.client.call(method, path, query=query, body=body)
    return caught.value


@pytest.mark.parametrize("body", [{"Cmd": ["nosuch"]}, {"User": "nosuch"}, {"HostConfig": {"Sysctls": {"net.no.such": "1"}}},
                                  {"WorkingDir": "/etc/passwd/below"},
                                  {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/usr", "Target": "/etc/passwd"}]}},
                                  {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "0"}]}}, "Cmd": ["/nope"]}])  # fmt: skip
def test_a_failed_start_leaves_nothing(engine, body):
    engine.output("true")  # the parent group is made with the first container
    before = what_is_there()
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]} | body)["Id"]
    error = refused(engine, "POST", f"/containers/{container}/start")
    assert error.http_status in (400, 500)
    assert "internal error" not in error.message
    state = engine.client.get(f"/containers/{container}/json")["State"]
    assert (state["Status"], state["Running"], state["Pid"]) == ("created", False, 0)
    assert state["ExitCode"] in (126, 127, 128)
    assert state["Error"] == error.message
    eventually(lambda: what_is_there() <= before)  # the kernel takes a link away in its own time
    engine.remove(container)


def test_dockers_texts(engine):
    def check(method, path, status, text, body=None, **query):
        error = refused(engine, method, path, body, **query)
        assert (error.http_status, error.message) == (status, text)

    check("POST", "/containers/create", 404, "No such image: nosuch:latest", {"Image": "nosuch"})
    check("GET", "/containers/zz/json", 404, "No such container: zz")
    check("GET", "/exec/zz/json", 404, "No such exec instance: zz")
    check("GET", "/images/zz/json", 404, "No such image: zz:latest")
    check("GET", "/networks/zz", 404, "network zz not found")
    check("GET", "/nosuch", 404, "page not found")
    check("GET", "/v1.99/info", 400, "client version 1.99 is too new. Maximum supported API version is 1.51")
    container = engine.run("sleep", "60", name="busy")
    check("POST", "/containers/create", 409, f'Conflict. The container name "/busy" is already in use by container "{container}". '
          "You have to remove (or rename) that container to be able to reuse that name.", {"Image": "busybox"}, name="busy")  # fmt: skip
    check("POST", f"/containers/{container}/kill", 400, f"cannot kill container: {container}: invalid signal: FOO", signal="FOO")
    check("DELETE", "/containers/busy", 409, 'cannot remove container "busy": container is running: stop the container before removing or force remove')
    check("DELETE", "/images/busybox", 409, f'conflict: unable to remove repository reference "busybox" (must force) - container {container[:12]} is using its '
          f"referenced image {engine.client.get('/images/busybox/json')['Id'][7:19]}")  # fmt: skip


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as made:
        for info, data in entries:
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return output.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def image_of(layer: bytes, diff_id: str = "") -> bytes:
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]}, "rootfs": {"type": "layers", "diff_ids": [diff_id or digest_of(layer)]}}).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": ["l.tar"]}]).encode()
    return archive((entry("c.json"), config), (entry("l.tar"), layer), (entry("manifest.json"), manifest))


def load(engine, data: bytes) -> str:
    """The error text, or empty if it was loaded."""
    try:
        for _ in engine.client.messages("/images/load", body=data):
            continue
    except ApiError as error:
        return error.message
    return ""


def store_content(engine) -> set[str]:
    """Once what has been removed, and is deleted in the background, is gone."""
    eventually(lambda: not any(name.startswith("removed-") for name in os.listdir(f"{engine.data_root}/tmp")))
    return {os.path.join(folder, name) for part in ("blobs", "layers", "tmp") for folder, _, names in os.walk(f"{engine.data_root}/{part}") for name in names}


@pytest.mark.parametrize(
    "name", ["../escape", "a/../../escape", "../../../../../../tmp/corten-escape", "x/../../../etc/cron.d/x"],
)
def test_names_that_lead_out_are_refused(engine, name):
    before = store_content(engine)
    assert "leads out of the layer" in load(engine, image_of(archive((entry(name), b"bad"))))
    assert store_content(engine) == before
    assert not os.path.exists("/tmp/corten-escape")


def test_links_that_lead_out_stay_inside(engine, tmp_path):
    target = tmp_path / "outside"
    target.mkdir()
    layer = archive(
        (entry("link", tarfile.SYMTYPE, str(target)), b""), (entry("link/file"), b"bad"),
        (entry("up", tarfile.SYMTYPE, "../../../../../../../../" + str(target)), b""), (entry("up/file2"), b"bad"),
    )  # fmt: skip
    error = load(engine, image_of(layer))
    assert os.listdir(target) == []
    if not error:
        engine.client.delete("/images/hostile:1")


@pytest.mark.parametrize("link", ["/etc/shadow", "../../../../etc/shadow", "missing"])
def test_hard_links_to_outside_are_refused(engine, link):
    before = store_content(engine)
    assert load(engine, image_of(archive((entry("x", tarfile.LNKTYPE, link), b""))))
    assert store_content(engine) == before


def test_absolute_names_and_devices_land_in_the_layer(engine):
    layer = archive((entry("/abs/file"), b"in"), (entry("dev-null", tarfile.CHRTYPE, devmajor=1, devminor=3), b""), (entry("/etc/passwd"), b"root:x:0:0::/:/x\n"))
    with open("/etc/passwd", "rb") as file:
        host = file.read()
    assert load(engine, image_of(layer)) == ""
    with open("/etc/passwd", "rb") as file:
        assert file.read() == host
    assert engine.client.delete("/images/hostile:1")


def test_trusted_attributes_of_an_image_are_dropped(engine):
    info = entry("dir", tarfile.DIRTYPE)
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.kept": "yes"}
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as made:
        made.addfile(info)
    layers = set(os.listdir(f"{engine.data_root}/layers"))
    assert load(engine, image_of(output.getvalue())) == ""
    (new,) = set(os.listdir(f"{engine.data_root}/layers")) - layers
    assert "trusted.overlay.redirect" not in os.listxattr(f"{engine.data_root}/layers/{new}/dir")
    engine.client.delete("/images/hostile:1")


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: data[: len(data) // 2] + b"x" * 4096 + data[len(data) // 2 + 4096 :], lambda _data: b"", lambda _data: b"garbage" * 999])
def test_spoilt_archives_are_refused(engine, assets, spoil):
    before = store_content(engine)
    with open(f"{assets}/images/busybox.tar", "rb") as file:
        data = file.read()
    assert load(engine, spoil(data))
    assert store_content(engine) == before


def test_a_wrong_diff_id_is_refused(engine):
    before = store_content(engine)
    assert "its config says" in load(engine, image_of(archive((entry("x"), b"y")), "sha256:" + "0" * 64))
    assert store_content(engine) == before


def test_layer_content_survives_as_tar_knows_it(engine):
    """Owners, modes, sparse files, long names, whiteouts, hard links, extended attributes."""
    long_name = "d" * 120 + "/" + "f" * 150
    lower = archive((entry("gone"), b"1"), (entry("hidden", tarfile.DIRTYPE), b""), (entry("hidden/old"), b"2"), (entry(long_name), b"long"))
    owned = entry("owned", uid=1234, gid=4321, mode=0o6750, mtime=1_000_000_000)
    upper = archive((owned, b"3"), (entry("same", tarfile.LNKTYPE, "owned"), b""), (entry(".wh.gone"), b""), (entry("hidden", tarfile.DIRTYPE), b""),
                    (entry("hidden/.wh..wh..opq"), b""), (entry("hidden/new"), b"4"))  # fmt: skip
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]}, "rootfs": {"type": "layers", "diff_ids": [digest_of(lower), digest_of(upper)]}}).encode()
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["layered:1"], "Layers": ["a.tar", "b.tar"]}]).encode()
    assert load(engine, archive((entry("c.json"), config), (entry("a.tar"), lower), (entry("b.tar"), upper), (entry("manifest.json"), manifest))) == ""
    container = engine.client.post("/containers/create", {"Image": "layered:1"})["Id"]
    with engine.client.open("GET", f"/containers/{container}/archive", query={"path": "/."}) as response:
        data = response.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as packed:
        members = {member.name.removeprefix("./"): member for member in packed}
    assert "gone" not in members
    assert "hidden/old" not in members
    assert {"hidden/new", long_name} <= set(members)
    assert (members["owned"].uid, members["owned"].gid, members["owned"].mode, members["owned"].mtime) == (1234, 4321, 0o6750, 1_000_000_000)
    assert {members["owned"].type, members["same"].type} == {tarfile.REGTYPE, tarfile.LNKTYPE}
    engine.remove(container)
    engine.client.delete("/images/layered:1")


def test_cp_cannot_leave_the_container(engine, tmp_path):
    container = engine.run("sh", "-c", f"ln -s {tmp_path} /out; ln -s /proc/1/root /up; sleep 60")
    data = archive((entry("planted"), b"bad"))
    for path in ("/out", "/out/", "/up/../../.."):
        try:
            engine.client.call("PUT", f"/containers/{container}/archive", query={"path": path}, body=data)
        except ApiError as error:
            assert error.http_status in (400, 404)
    assert os.listdir(tmp_path) == []
    assert not os.path.exists("/planted")
