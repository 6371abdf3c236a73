"""A commit's files in a folder, by the host's git. What comes out is content from outside: nothing of it is executed, no hook, no filter, no ext::.

Over HTTP and git's own protocol, and over SSH with the client's agent and nothing else: no key, no configuration and no known host of the engine's own user.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from corten.builder.graph import Git
from corten.builder.hosting import Private
from corten.builder.remote_auth import git_authorization
from corten.errors import Invalid, NotSupported, RegistryError
from corten.spec.git_address import is_over_ssh

_SETTINGS = {
    "core.hooksPath": "/dev/null", "core.fsmonitor": "false", "http.lowSpeedLimit": "1000", "http.lowSpeedTime": "60", "advice.detachedHead": "false",
    "safe.directory": "*", "gc.auto": "0",
}  # fmt: skip
_SETTLED = {
    "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "GIT_ALLOW_PROTOCOL": "http:https:git",
    "GIT_SSH_VARIANT": "ssh", "GIT_LFS_SKIP_SMUDGE": "1",
}  # fmt: skip
_SSH = {
    "BatchMode": "yes", "IdentityFile": "none", "GlobalKnownHostsFile": "/dev/null", "ControlPath": "none", "ForwardAgent": "no", "ConnectTimeout": "60",
    "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "LogLevel": "ERROR",
    "StrictHostKeyChecking": "accept-new",  # as BuildKit; but a host that the client knows has to have the key that it knows
}  # fmt: skip
_AGENT = "default"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


class GitFailed(RegistryError):
    """git's own reason."""


@dataclass(frozen=True)
class _Host:
    """Where git runs: a home of its own, with what opens the remote (in its environment, which others cannot see). `agent`: of SSH, its socket."""

    home: str
    url: str
    authorization: str = ""
    agent: str = ""

    def environment(self) -> dict[str, str]:
        found = {name: os.environ[name] for name in ("PATH", *_PROXIES) if name in os.environ}
        found |= {"HOME": self.home, **_SETTLED}
        if self.agent:
            options = " ".join(f"-o {name}={value}" for name, value in {**_SSH, "UserKnownHostsFile": shlex.quote(self.known_hosts)}.items())
            found |= {"GIT_SSH_COMMAND": f"ssh -F /dev/null {options}", "SSH_AUTH_SOCK": self.agent, "GIT_ALLOW_PROTOCOL": f"{_SETTLED['GIT_ALLOW_PROTOCOL']}:ssh"}
        if self.authorization:
            address = urlsplit(self.url)
            found |= {
                "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"http.{address.scheme}://{address.netloc}/.extraheader",
                "GIT_CONFIG_VALUE_0": f"Authorization: {self.authorization}",
            }  # fmt: skip
        return found

    @property
    def known_hosts(self) -> str:
        return f"{self.home}/known_hosts"


async def check_out(op: Git, folder: str, private: Private) -> tuple[str, str]:
    """Into `folder`, which is empty: the path of the files asked for, and the commit's id. Raises GitFailed, Invalid, NoSuchAgent, NotSupported."""
    over_ssh = is_over_ssh(op.url)
    for program, package in (("git", "git"), *([("ssh", "openssh-client")] if over_ssh else [])):
        if shutil.which(program) is None:
            raise NotSupported(f"{op.url}: this needs {program} on the engine's host, and it is not installed (package {package})")
    host = _Host(folder, op.url, agent=private.agent(_AGENT)) if over_ssh else _Host(folder, op.url, git_authorization(op.url, private.secrets))
    if over_ssh:
        with open(host.known_hosts, "w", encoding="utf-8") as file:
            file.write(private.known_hosts)
    work = f"{folder}/files"
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
        raise GitFailed(f"failed to fetch {_address(arguments)}: {_reason(errors.decode('utf-8', 'replace'))}")
    return output.decode().strip()


def _address(arguments: tuple[str, ...]) -> str:
    return next((word for word in arguments if "://" in word or (":" in word and "@" in word)), "the repository")


def _reason(said: str) -> str:
    """The last two lines, without git's general advice about SSH behind them."""
    lines = [line.strip() for line in said.partition("Please make sure you have the correct access rights")[0].splitlines()]
    return " ".join([line for line in lines if line][-2:])
