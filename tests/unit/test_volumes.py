"""Volumes without an engine: the local driver's options, filters, folders."""

from __future__ import annotations

import os
import shutil

import pytest

from corten.engine import volume_local, volume_pruning
from corten.errors import Invalid
from corten.linux import mounts
from corten.linux import syscalls as sys
from corten.spec.filters import matches_pattern, one_flag, parse_filters
from corten.store.layout import Layout
from corten.store.volumes import VolumeFolders


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"type": "tmpfs", "device": "tmpfs", "o": "size=10m,uid=1000"}, "mount tmpfs:/v, data: size=10m,uid=1000"),
        ({"type": "none", "device": "/srv", "o": "bind"}, "mount /srv:/v, flags: 0x1000"),
        ({"type": "none", "device": "/srv", "o": "rbind,ro,noexec"}, "mount /srv:/v, flags: 0x5009"),
        ({"type": "nfs", "device": ":/share", "o": "addr=127.0.0.1,rw,nfsvers=4"}, "mount :/share:/v, data: addr=127.0.0.1,nfsvers=4"),
        # The calls that Docker Engine 28.5.2 makes of the same options, as its own error names them where a kernel has no nfs and no cifs.
        ({"type": "nfs", "device": "127.0.0.1:/share", "o": "addr=127.0.0.1,soft"}, "mount 127.0.0.1:/share:/v, data: addr=127.0.0.1,soft"),
        ({"type": "nfs4", "device": ":/x", "o": "addr=127.0.0.1,ro,noatime"}, "mount :/x:/v, flags: 0x401, data: addr=127.0.0.1"),
        ({"type": "nfs", "device": ":/share"}, "mount :/share:/v"),
        ({"type": "cifs", "device": "//127.0.0.1/share", "o": "username=u,password=p,vers=3.0"}, "mount //127.0.0.1/share:/v, data: username=u,password=********,vers=3.0"),
        ({"type": "btrfs", "device": "/dev/x", "o": "subvol=x,ro"}, "mount /dev/x:/v, flags: 0x1, data: subvol=x"),
        ({"type": "cifs", "device": "//127.0.0.1/share", "o": "username=u,password=p"}, "mount //127.0.0.1/share:/v, data: username=u,password=********"),
    ],
)
def test_options_become_a_mount_call(options, shown):
    assert volume_local.mount_call(options).describe("/v") == shown


def test_names_are_looked_up_for_the_kernel():
    call = volume_local.mount_call({"type": "nfs", "device": ":/x", "o": "addr=localhost"})
    assert call.data in ("addr=127.0.0.1", "addr=::1")
    assert volume_local.mount_call({"type": "cifs", "device": "//localhost/x"}).device in ("//127.0.0.1/x", "//::1/x")


def test_propagation_is_calls_of_its_own():
    call = volume_local.mount_call({"type": "none", "device": "/srv", "o": "bind,rslave"})
    assert (call.flags, call.propagation) == (sys.MS_BIND, (sys.MS_SLAVE | sys.MS_REC,))


@pytest.mark.parametrize(("name", "options", "text"), [("a", {}, "too short"), ("ok", {"x": "y"}, 'invalid option: "x"'), ("ok", {"o": "ro"}, "missing required option"),
                                                        ("ok", {"size": "x"}, "invalid size: 'x'")])  # fmt: skip
def test_bad_volumes_are_refused(name, options, text):
    with pytest.raises(Invalid, match=text):
        volume_local.check(name, options)


def test_filter_shapes_are_not_mixed():
    assert parse_filters('{"a":["1"]}', frozenset("a")) == parse_filters('{"a":{"1":true,"2":false}}', frozenset("a")) == {"a": ["1"]}
    with pytest.raises(Invalid):
        parse_filters('{"a":["1"],"b":{"1":true}}', frozenset("ab"))


def test_filter_values():
    assert one_flag({}, "dangling") is None
    assert one_flag({"dangling": ["True"]}, "dangling") is True
    assert matches_pattern([], "x")
    assert matches_pattern(["[", "^x"], "xy")
    assert not matches_pattern(["["], "x")
    assert volume_pruning.prune_all({"all": ["T"]})
    assert not volume_pruning.prune_all({"all": ["0"]})
    with pytest.raises(Invalid, match="only one value is expected"):
        volume_pruning.prune_all({"all": ["1", "0"]})


def test_folders(tmp_path):
    layout = Layout(str(tmp_path / "root"), str(tmp_path / "run"))
    layout.create()
    folders = VolumeFolders(layout)
    mask = os.umask(0o077)
    try:
        folders.create("v")
    finally:
        os.umask(mask)
    assert os.stat(layout.volume_data("v")).st_mode & 0o777 == 0o755
    with open(f"{layout.volume_data('v')}/f", "wb") as file:
        file.write(bytes(10))
    folders.create("v")
    assert folders.size("v") == 10
    folders.create("empty")
    assert folders.sweep({"w"}) == ["v"]
    assert os.listdir(layout.volumes) == ["v"]
    aside = folders.set_aside("v")
    assert os.listdir(aside) == ["_data"]
    shutil.rmtree(aside)
    folders.create("bare")
    assert folders.set_aside("bare") == folders.set_aside("v") == ""
    assert os.listdir(layout.volumes) == os.listdir(layout.temporary) == []


def test_mount_table_is_unescaped(tmp_path):
    text = r"36 35 98:0 /a\040b /mnt\040x rw,noatime master:1 shared:2 - ext3 /dev/root rw" + "\n"
    (tmp_path / "mountinfo").write_text(text)
    assert mounts.mount_table(str(tmp_path / "mountinfo")) == [mounts.MountInfo("/mnt x", "rw,noatime", ("master:1", "shared:2"), "ext3")]
    assert mounts.is_mount_point("/proc")
    assert not mounts.is_mount_point("/proc/self")
    assert mounts.is_mount_root("/proc")
    assert not mounts.is_mount_root("/proc/self")
    assert not mounts.is_mount_root("/nosuch")
