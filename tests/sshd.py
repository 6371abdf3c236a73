"""A real OpenSSH server and a real agent for a test: on a loopback address of their own, with keys of their own, in a folder of the test's.

The server sees an /etc/passwd and a /run of its own (a mount namespace), so that nothing of the machine has to be changed for it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field

_PASSWD = "root:x:0:0:root:{home}:/bin/sh\ngit:x:0:0:git:{home}:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
_INSIDE = 'mount --make-rprivate / && mount --bind "$1/passwd" /etc/passwd && mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && shift && exec "$@"'


def sshd_path(assets: str) -> str:
    """The server's, empty if it is not here."""
    unpacked = f"{assets}/sshd/usr/sbin/sshd"
    return unpacked if os.path.exists(unpacked) else shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin") or ""


@dataclass
class Agent:
    """An ssh-agent with one key, `public`."""

    folder: str
    socket: str = ""
    public: str = ""
    _pid: int = 0

    def start(self) -> Agent:
        self.socket = f"{self.folder}/agent"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of-the-test", "-f", f"{self.folder}/key"], check=True)
        said = subprocess.run(["ssh-agent", "-s", "-a", self.socket], check=True, capture_output=True, text=True).stdout
        self._pid = int(re.search(r"SSH_AGENT_PID=(\d+)", said)[1])
        subprocess.run(["ssh-add", "-q", f"{self.folder}/key"], env={**os.environ, "SSH_AUTH_SOCK": self.socket}, check=True)
        with open(f"{self.folder}/key.pub", encoding="ascii") as file:
            self.public = file.read()
        os.unlink(f"{self.folder}/key")  # only the agent has it now
        return self

    def stop(self) -> None:
        os.kill(self._pid, 15)


@dataclass
class Sshd:
    """`address`:22 lets in who has the agent's key, as root. `known` is its line of known_hosts."""

    program: str
    folder: str
    allowed: str
    address: str = field(default_factory=lambda: f"127.{random.randint(64, 250)}.{random.randint(1, 250)}.{random.randint(1, 250)}")
    known: str = ""
    _process: subprocess.Popen | None = None

    def start(self) -> Sshd:
        os.chmod(self.folder, 0o755)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.folder}/host"], check=True)
        with open(f"{self.folder}/host.pub", encoding="ascii") as file:
            self.known = f"{self.address} {' '.join(file.read().split()[:2])}\n"
        for name, text in {"passwd": _PASSWD.format(home=self.folder), "allowed": self.allowed, "config": self._config()}.items():
            with open(f"{self.folder}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        libraries = ":".join(self._unpacked(path) for path in ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"))
        with open(f"{self.folder}/log", "wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _INSIDE, "sh", self.folder, self.program, "-D", "-e", "-f", f"{self.folder}/config"],
                env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": libraries}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + 30
        while not self._listens():
            assert self._process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def log(self) -> str:
        with open(f"{self.folder}/log", encoding="utf-8", errors="replace") as file:
            return file.read()

    def _config(self) -> str:
        lines = [
            f"ListenAddress {self.address}:22", f"HostKey {self.folder}/host", f"AuthorizedKeysFile {self.folder}/allowed", "PidFile none", "StrictModes no",
            "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password", "LogLevel VERBOSE",
        ]  # fmt: skip
        for option, name in (("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")):  # of OpenSSH 9.8 and 10
            if os.path.exists(self._unpacked(f"usr/lib/openssh/{name}")):
                lines.append(f"{option} {self._unpacked(f'usr/lib/openssh/{name}')}")
        return "\n".join([*lines, ""])

    def _unpacked(self, path: str) -> str:
        return os.path.join(self.program.removesuffix("usr/sbin/sshd"), path)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.address, 22)) == 0
