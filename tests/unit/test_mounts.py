"""Which mounts a container gets: syntax, precedence, the OCI entries. No engine."""

from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.engine import idmap, mounts
from corten.engine.mounting import EscapesBase, NotAccessible, open_subpath
from corten.engine.records import ContainerRecord, MountRecord
from corten.errors import CortenError, Invalid, NoSuchContainer
from corten.linux.cgroup import Layout as CgroupLayout
from corten.runtime.plan import make_plan
from corten.spec.engine import (
    BindOptions,
    Config,
    HostConfig,
    MountPoint,
    TmpfsOptions,
    VolumeDriverConfig,
    VolumeOptions,
)
from corten.spec.runtime import OCI_VERSION, Linux, Mount, Namespace, RuntimeConfig
from corten.store import lookup


def nobody(name: str) -> ContainerRecord:
    raise NoSuchContainer(name=name)


def plan(host: HostConfig, *volumes: str, find=nobody) -> str:
    mounts.check(host)
    return mounts.render(mounts.plan(host, volumes, "/var/lib/corten", find))


def record(*made: MountRecord) -> ContainerRecord:
    return ContainerRecord("a" * 64, "other", "2026-01-01T00:00:00Z", "sha256:" + "b" * 64, [], Config(), HostConfig(), mounts=list(made))


def test_a_plan_is_printed():
    host = HostConfig(
        binds=["/usr:/host:ro,rslave", "data:/data:nocopy", "logs:/var/log"],
        mounts=[
            MountPoint(type="tmpfs", target="/scratch"), MountPoint(type="volume", target="/anon"),
            MountPoint(type="volume", source="sub", target="/sub/", read_only=True, volume_options=VolumeOptions(subpath="a/b")),
            MountPoint(type="image", source="busybox", target="/img"),
        ],
        tmpfs={"/tmp": ""},
    )  # fmt: skip
    assert plan(host, "/declared", "/data", "/tmp").splitlines() == [
        "bind /usr -> /host ro rslave",
        "volume data -> /data rw",
        "volume logs -> /var/log rw copy",
        "tmpfs new -> /scratch rw",
        "volume new -> /anon rw copy",
        "volume sub -> /sub ro subpath=a/b copy",
        "image busybox -> /img ro rprivate",
        "volume new -> /declared rw copy",
    ]


def test_own_mounts_win_over_those_of_other_containers():
    other = record(MountRecord("volume", "/data", name="theirs"), MountRecord("bind", "/b", source="/usr", propagation="rprivate"))
    host = HostConfig(volumes_from=["other:ro"], binds=["mine:/data"])
    assert plan(host, "/b", find=lambda _name: other).splitlines() == ["volume mine -> /data rw copy", "bind /usr -> /b ro rprivate"]


def test_the_last_of_several_containers_wins():
    found = {name: record(MountRecord("volume", "/data", name=name)) for name in ("one", "two")}
    assert plan(HostConfig(volumes_from=["one", "two"]), find=found.__getitem__) == "volume two -> /data rw"


def test_what_sees_the_engines_own_mounts_does_not_hold_them():
    assert plan(HostConfig(binds=["/:/host"])) == "bind / -> /host rw rslave"
    with pytest.raises(Invalid, match="must use either propagation mode"):
        plan(HostConfig(binds=["/:/host:private"]))


@pytest.mark.parametrize("mode", ["ro,rw", "z,Z", "private,shared", "nocopy,nocopy", "ro,x", ","])
def test_modes_are_of_one_kind_each(mode):
    assert mounts.parse_mode(mode) is None


@given(st.lists(st.sampled_from(sorted(mounts._MODES)), unique_by=mounts._MODES.get))
def test_every_combination_of_kinds_is_a_mode(words):
    assert mounts.parse_mode(",".join(words)) == words


@given(st.text(alphabet="ab/:.,ro \0é", max_size=20))
def test_a_bind_is_understood_or_refused_with_its_text(text):
    try:
        wanted = mounts.parse_bind(text, "")
    except Invalid as error:
        assert error.message
    else:
        assert wanted.mount.destination.startswith("/")
        assert wanted.mount.destination != "/"
        assert ".." not in wanted.mount.destination.split("/")


def test_volume_options_are_for_a_volume_that_is_not_there():
    spec = MountPoint(type="volume", source="v", target="/v", volume_options=VolumeOptions(
        no_copy=True, labels={"a": "b"}, driver_config=VolumeDriverConfig("local", {"type": "tmpfs", "device": "tmpfs"}),
    ))  # fmt: skip
    wanted = mounts.parse_mount(spec)
    assert (wanted.copy, wanted.driver, wanted.driver_options, wanted.labels) == (False, "local", {"type": "tmpfs", "device": "tmpfs"}, {"a": "b"})


@pytest.mark.parametrize(
    ("mount", "options"),
    [
        (MountRecord("bind", "/b", source="/s", propagation="rprivate"), ["rbind", "rprivate"]),
        (MountRecord("bind", "/b", source="/s", rw=False, propagation="rshared"), ["rbind", "rro", "rshared"]),
        (MountRecord("bind", "/b", source="/s", rw=False, propagation="slave", read_only_non_recursive=True), ["rbind", "ro", "slave"]),
        (MountRecord("bind", "/b", source="/s", propagation="rprivate", non_recursive=True), ["bind", "rprivate"]),
        (MountRecord("volume", "/b", name="v"), ["rbind"]),
    ],
)
def test_oci_entries(mount, options):
    assert mounts.oci_mount(mount, "/s") == Mount("/b", "bind", "/s", options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ["noexec", "nosuid", "nodev", "rprivate"]),
        ("exec,size=1m,size=2m", ["nosuid", "nodev", "rprivate", "exec", "size=2m"]),
        ("ro,rw,dev,mode=700,shared", ["noexec", "nosuid", "rw", "dev", "mode=700", "shared"]),
    ],
)
def test_of_contradicting_tmpfs_options_the_last_holds(options, expected):
    assert mounts.tmpfs("/t", options).options == expected


def test_tmpfs_of_a_mount():
    spec = MountPoint(type="tmpfs", target="/t", read_only=True, tmpfs_options=TmpfsOptions(1 << 20, 0o1770, [["exec"]]))
    mount = mounts.parse_mount(spec).mount
    assert mounts.oci_mount(mount, "").options == ["nosuid", "nodev", "rprivate", "ro", "mode=1770", "size=1048576", "exec"]


def test_bad_tmpfs_options_are_named():
    with pytest.raises(CortenError, match='invalid tmpfs option "nosuch"'):
        mounts.tmpfs("/t", "nosuch=1")


def test_read_only_modes_that_contradict_each_other():
    spec = MountPoint(type="bind", source="/", target="/x", bind_options=BindOptions(read_only_force_recursive=True))
    with pytest.raises(CortenError, match="ReadOnlyForceRecursive"):
        mounts.oci_mount(mounts.parse_mount(spec).mount, "/")


def test_a_mount_comes_before_those_inside_it():
    order = mounts.in_order([Mount("/a/b/c"), Mount("/a"), Mount("/a/b/"), Mount("/b")])
    assert [mount.destination for mount in order] == ["/a", "/b", "/a/b/", "/a/b/c"]


def test_shared_binds_are_taken_before_the_childs_mounts_are_its_own():
    config = RuntimeConfig(OCI_VERSION, linux=Linux(namespaces=[Namespace("mount")]), mounts=[
        Mount("/s", "bind", "/src", ["rbind", "rshared"]), Mount("/p", "bind", "/src", ["rbind", "rprivate"]),
    ])  # fmt: skip
    names = [type(step).__name__ for step in make_plan(config, "/root", (), CgroupLayout()).operations]
    assert names[:2] == ["TakeShared", "SetPropagation"]
    assert names.count("TakeShared") == 1


# --- idmap
@given(st.integers(0, 0xFFFFFFFD), st.integers(0, 0xFFFFFFFD))
def test_a_map_swaps_two_ids_and_leaves_the_others(owner, user):
    rows = [tuple(map(int, line.split())) for line in idmap.swap(owner, user).splitlines()]

    def shown(disk: int) -> int:
        return next(seen + disk - first for first, seen, count in rows if first <= disk < first + count)

    assert (shown(owner), shown(user)) == (user, owner)
    assert sum(count for _, _, count in rows) == 0xFFFFFFFF
    for other in {0, 1, owner + 1, user + 1, 0xFFFFFFFE} - {owner, user}:
        assert shown(other) == other
    assert len(rows) <= 5


@pytest.mark.parametrize(("word", "user"), [("idmap=7", (7, 7)), ("idmap=7.8", (7, 8)), ("idmap", (33, 34))])
def test_who_an_idmap_is_for(word, user):
    box = record()
    box = msgspec.structs.replace(box, config=Config(user="www"))
    assert idmap.wanted_user(word, box, "www:x:33:34::/:", "") == user


def test_an_idmap_for_nobody_is_refused():
    with pytest.raises(Invalid, match="name the user by number"):
        idmap.wanted_user("idmap", msgspec.structs.replace(record(), config=Config(user="nosuch")), "", "")


@pytest.mark.parametrize("mode", ["idmap=", "idmap=x", "idmap=1.2.3", "idmap,idmap", "idmap=-1"])
def test_bad_idmaps_are_no_modes(mode):
    assert mounts.parse_mode(mode) is None


def test_an_idmap_is_for_binds_and_volumes():
    assert plan(HostConfig(binds=["/usr:/x:ro,idmap=5"], mounts=[MountPoint(type="volume", source="v", target="/v", consistency="idmap")])).splitlines() == [
        "bind /usr -> /x ro rprivate idmap=5", "volume v -> /v rw idmap copy",
    ]  # fmt: skip
    for kind in ("tmpfs", "image"):
        with pytest.raises(Invalid, match="idmap is for binds and volumes"):
            mounts.parse_mount(MountPoint(type=kind, source="x" if kind == "image" else "", target="/x", consistency="idmap"))


# --- what an image has at a path
@pytest.fixture
def layers(tmp_path):
    for path in ("top/etc", "top/opaque", "low/etc/inner", "low/opaque/hidden", "low/gone", "low/empty", "low/real"):
        os.makedirs(tmp_path / path)
    (tmp_path / "low/file").write_text("x")
    os.symlink("real", tmp_path / "low/link")
    if os.geteuid() == 0:
        os.mknod(tmp_path / "top/gone", 0o20000, 0)
        os.setxattr(tmp_path / "top/opaque", "trusted.overlay.opaque", b"y")
    return [str(tmp_path / "top"), str(tmp_path / "low")]


@pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts are made by root")
def test_layers_are_looked_up_as_overlayfs_merges_them(layers):
    top, low = layers
    assert lookup.look_up(layers, "/etc") == lookup.Found("folder", (f"{top}/etc", f"{low}/etc"))
    assert lookup.look_up(layers, "/opaque") == lookup.Found("folder", (f"{top}/opaque",))
    assert lookup.look_up(layers, "/gone").kind == lookup.look_up(layers, "/none/x").kind == lookup.look_up(layers, "/file/x").kind.replace("file", "missing") == "missing"
    assert lookup.look_up(layers, "/file").kind == "file"
    assert lookup.look_up(layers, "/link/x").kind == "link"
    assert lookup.is_empty(lookup.look_up(layers, "/opaque").folders)
    assert lookup.is_empty(lookup.look_up(layers, "/empty").folders)
    assert not lookup.is_empty(lookup.look_up(layers, "/etc").folders)


# --- subpaths
def test_a_subpath_stays_below_its_base(tmp_path):
    base = tmp_path / "base"
    (base / "in").mkdir(parents=True)
    os.symlink("in", base / "good")
    os.symlink("/etc", base / "bad")
    os.symlink("../..", base / "up")
    for good in ("in", "good", ""):
        os.close(open_subpath(str(base), good))
    for bad in ("bad", "up", "bad/passwd", "../base"):
        with pytest.raises(EscapesBase):
            open_subpath(str(base), bad)
    with pytest.raises(NotAccessible, match="no such file or directory"):
        open_subpath(str(base), "nosuch")
