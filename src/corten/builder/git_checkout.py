"""A commit's files in a folder, by the host's git. What comes out is content from outside: nothing of it is executed, no hook, no filter, no ext::.

Anonymous, over HTTP and git's own protocol: SSH needs an agent of the client's, which the classic front cannot forward.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from corten.builder.graph import Git
from corten.errors import Invalid, NotSupported, RegistryError

_SETTINGS = {
    "core.hooksPath": "/dev/null", "core.fsmonitor": "false", "http.lowSpeedLimit": "1000", "http.lowSpeedTime": "60", "advice.detachedHead": "false",
    "safe.directory": "*", "gc.auto": "0",
}  # fmt: skip
_SETTLED = {
    "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "GIT_ALLOW_PROTOCOL": "http:https:git",
    "GIT_LFS_SKIP_SMUDGE": "1",
}  # fmt: skip
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


class GitFailed(RegistryError):
    """git's own reason."""


@dataclass(frozen=True)
class _Host:
    """Where git runs: a home of its own, with what opens the remote (in its environment, which others cannot see)."""

    home: str
    url: str
    authorization: str

    def environment(self) -> dict[str, str]:
        found = {name: os.environ[name] for name in ("PATH", *_PROXIES) if name in os.environ}
        found |= {"HOME": self.home, **_SETTLED}
        if self.authorization:
            address = urlsplit(self.url)
            found |= {
                "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"http.{address.scheme}://{address.netloc}/.extraheader",
                "GIT_CONFIG_VALUE_0": f"Authorization: {self.authorization}",
            }  # fmt: skip
        return found


async def check_out(op: Git, folder: str, authorization: str = "") -> tuple[str, str]:
    """Into `folder`, which is empty: the path of the files asked for, and the commit's id. `authorization` is a header's value for HTTP. Raises GitFailed, Invalid, NotSupported."""
    if not re.match(r"(?:https?|git)://", op.url, re.IGNORECASE):
        raise NotSupported(f"{op.url}: git over SSH needs the client's agent, which is not forwarded yet; use https://")
    if shutil.which("git") is None:
        raise NotSupported(f"{op.url}: this needs git on the engine's host, and it is not installed (package git)")
    work, host = f"{folder}/files", _Host(folder, op.url, authorization)
    os.mkdir(work, 0o755)
    await _git(host, "init", "-q", work)
    await _git(host, "-C", work, "remote", "add", "origin", op.url)  # what submodules are relative to
    await _git(host, "-C", work, "checkout", "-q", "--detach", await _fetch(op, host, work))
    commit = await _git(host, "-C", work, "rev-parse", "HEAD")
    if op.checksum and not commit.startswith(op.checksum):
        raise Invalid(f"expected checksum to match {op.checksum}, got {commit}")
    if op.submodules and os.path.exists(f"{work}/.gitmodules"):
        await _git(host, "-C", work, "submodule", "update", "-q", "--init", "--recursive", "--depth=1")
    return _inside(work, op), commit


async def _fetch(op: Git, host: _Host, work: str) -> str:
    """What to check out. One commit is fetched only, or all of them where the remote does not give out a commit by its id."""
    ref = op.ref or "HEAD"
    if ref.startswith("-"):
        raise Invalid(f"{ref!r} is no git ref")
    try:
        await _git(host, "-C", work, "fetch", "-q", "--depth=1", "--no-tags", "--", op.url, ref)
        return "FETCH_HEAD"
    except GitFailed:
        if not re.fullmatch("[0-9a-f]{7,64}", ref):
            raise
        await _git(host, "-C", work, "fetch", "-q", "--tags", "--", op.url, "+refs/heads/*:refs/remotes/origin/*")
        return await _git(host, "-C", work, "rev-parse", "--verify", f"{ref}^{{commit}}")


def _inside(work: str, op: Git) -> str:
    path = os.path.realpath(f"{work}/{op.folder}")
    if path != work and not path.startswith(f"{work}/"):
        raise Invalid(f"the folder {op.folder} leads out of the repository {op.url}")
    if not os.path.isdir(path):
        raise Invalid(f"the repository {op.url} has no folder {op.folder}")
    if not op.keep_git_dir:
        shutil.rmtree(f"{work}/.git")
        _forget_submodules(work)
    return path


def _forget_submodules(work: str) -> None:
    """Each has a file that says where its own history was."""
    for folder, _below, names in os.walk(work) if os.path.lexists(f"{work}/.gitmodules") else ():
        if ".git" in names:
            os.unlink(f"{folder}/.git")


async def _git(host: _Host, *arguments: str) -> str:
    """What it writes. Ends with everything that it has started when the caller is cancelled."""
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    process = await asyncio.create_subprocess_exec(
        "git", *settings, *arguments, env=host.environment(), cwd=host.home, umask=0o022, start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await process.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if process.returncode:
        reason = errors.decode("utf-8", "replace").strip().split("\n")
        raise GitFailed(f"failed to fetch {_address(arguments)}: {' '.join(reason[-2:])}")
    return output.decode().strip()


def _address(arguments: tuple[str, ...]) -> str:
    return next((word for word in arguments if "://" in word), "the repository")
