"""Project quotas as a file system with them answers: numbers, limits, and what is taken back. The kernel's part is recorded here;
tests/system/test_project_quotas.py asks a real one, where there is one.
"""

from __future__ import annotations

import os

import pytest

from corten.linux import project_quota
from corten.linux.project_quota import Quota
from corten.store import size_limit
from corten.store.disk_image import DiskUsage


class FakeFileSystem:
    """What quotactl and the two ioctls keep: a project a folder, a limit and a use a project."""

    def __init__(self) -> None:
        self.projects: dict[int, int] = {}
        self.quotas: dict[int, Quota] = {}

    def _inode(self, fd: int) -> int:
        return os.fstat(fd).st_ino

    def project(self, fd: int) -> int:
        return self.projects.get(self._inode(fd), 0)

    def set_project(self, fd: int, number: int) -> None:
        self.projects[self._inode(fd)] = number

    def quota(self, _fd: int, number: int) -> Quota:
        return self.quotas.get(number, Quota(0, 0))

    def set_limit(self, _fd: int, number: int, size: int) -> None:
        self.quotas[number] = Quota(size, self.quotas.get(number, Quota(0, 0)).used)


@pytest.fixture
def file_system(monkeypatch):
    made = FakeFileSystem()
    monkeypatch.setattr(project_quota, "enforced", lambda _fd: True)
    for name in ("project", "set_project", "quota", "set_limit"):
        monkeypatch.setattr(project_quota, name, getattr(made, name))
    return made


def test_a_limit_is_a_project_where_the_file_system_has_them(tmp_path, file_system):
    folder, disk = str(tmp_path / "data"), str(tmp_path / "disk")
    os.mkdir(folder)
    size_limit.create(folder, disk, 5 << 20)
    size_limit.create(folder, disk, 5 << 20)
    assert not os.path.exists(disk)
    assert list(file_system.quotas.values()) == [Quota(5 << 20, 0)]
    number = next(iter(file_system.quotas))
    file_system.quotas[number] = Quota(5 << 20, 100)
    assert size_limit.usage(folder, disk) == DiskUsage(5 << 20, 100)
    size_limit.attach(folder, disk)
    size_limit.detach(folder, disk)
    assert file_system.quotas[number].limit == 5 << 20
    size_limit.detach(folder, disk, for_good=True)
    size_limit.detach(folder, disk, for_good=True)
    assert file_system.quotas[number].limit == 0


def test_numbers_that_others_use_are_passed_over(tmp_path, file_system, monkeypatch):
    drawn = iter([7, 8, 9])
    monkeypatch.setattr(size_limit.secrets, "randbelow", lambda _n: next(drawn))
    lowest = size_limit._LOWEST
    file_system.quotas = {lowest + 7: Quota(0, 4096), lowest + 8: Quota(1 << 20, 0)}
    size_limit.create(str(tmp_path), str(tmp_path / "disk"), 1 << 20)
    assert file_system.quotas[lowest + 9] == Quota(1 << 20, 0)


def test_a_limit_that_was_lost_is_said_to_be(tmp_path, file_system, monkeypatch):
    size_limit.create(str(tmp_path), str(tmp_path / "disk"), 1 << 20)
    monkeypatch.setattr(project_quota, "enforced", lambda _fd: False)
    with pytest.raises(OSError, match="does not have"):
        size_limit.attach(str(tmp_path), str(tmp_path / "disk"))


def test_what_the_kernel_is_asked(monkeypatch, tmp_path):
    asked = []

    def quotactl_fd(_fd: int, command: int, number: int, data: bytes) -> bytes:
        asked.append((hex(command), number, data))
        return {0x80000702: project_quota._DQBLK.pack(10, 10, 300, 0, 0, 0, 0, 0, 63), 0x580802: b"\1\0\x30\0" + bytes(252)}.get(command, data)

    monkeypatch.setattr(project_quota.syscalls, "quotactl_fd", quotactl_fd)
    assert project_quota.quota(3, 77) == Quota(10240, 300)
    assert project_quota.enforced(3)
    project_quota.set_limit(3, 77, 1025)
    assert asked[-1] == ("0x80000802", 77, project_quota._DQBLK.pack(2, 2, 0, 0, 0, 0, 0, 0, 1))
    assert len(asked[-1][2]) == 72
