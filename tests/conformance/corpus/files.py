"""Cases of files: what COPY, ADD, WORKDIR, heredocs, mounts and RUN leave in an image, and what cannot be put anywhere."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile

from tests.builds import FOLDER, Link
from tests.conformance.corpus.case import Case, Entries, file, folder


def _archive(*names: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.uid = entry.gid = 55
            entry.mtime, entry.size = 1_600_000_000, len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    return packed.getvalue()


def _archive_of_kinds(*entries: tuple[str, bytes, str], owner: int = 0, mode: int = 0o755) -> bytes:
    """(name, type, what a file has in it or a link names) in that order; a name may come again as something else. `mode` is the folders'."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, kind, text in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mtime, entry.mode = kind, 1_600_000_000, mode if kind == tarfile.DIRTYPE else 0o644
            entry.uid = entry.gid = owner
            entry.size, entry.linkname = (len(text), "") if kind == tarfile.REGTYPE else (0, text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


_FILE, _FOLDER, _LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE
_KINDS = _archive_of_kinds(
    ("./", _FOLDER, ""), ("./file", _FOLDER, ""), ("./file/in", _FILE, "in"), ("./folder", _FILE, "now a file"), ("./link", _FOLDER, ""), ("./link/in", _FILE, "in"),
    ("./tolink", _LINK, "file"),
)  # fmt: skip
_AGAIN = _archive_of_kinds(
    ("x", _FOLDER, ""), ("x/y", _FILE, "y"), ("x", _FILE, "file"), ("z", _FILE, "file"), ("z", _FOLDER, ""), ("z/y", _FILE, "y"), ("z/y", _LINK, "../x"),
)  # fmt: skip

FILES: Entries = {
    "a.txt": "a\n", "b.txt": "b\n", "script": file("script", 0o755), "private": file("private", 0o600), "setuid": file("setuid", 0o4755),
    "d": folder("d", 0o700), "d/c.txt": "c\n", "d/sub": folder("d/sub", 0o711), "d/sub/e.py": "e\n", "d/empty": FOLDER, "d/link": Link("c.txt"),
    "d/out": Link("/etc/passwd"), "tod": Link("d"), "toa": Link("a.txt"), "x.tar": _archive("in/one", "two"), "x.tgz": gzip.compress(_archive("gz/one"), mtime=0),
    "x.tbz": bz2.compress(_archive("bz/one")), "x.txz": lzma.compress(_archive("xz/one")), "fake.tar": "no archive\n", "big": bytes(300_000),
    "sp ace": "s\n", "ignored.log": "i\n", "etc/new": "n\n",
}  # fmt: skip
# What the cases of archives have besides.
_ARCHIVES: Entries = {
    "kinds.tar": _KINDS, "again.tar": _AGAIN, "root.tar": _archive_of_kinds(("./", _FOLDER, ""), ("./one", _FILE, "1"), owner=55, mode=0o711),
    "rootless.tar": _archive_of_kinds(("./", _FILE, "x"), ("one", _FILE, "1")), "rootlink.tar": _archive_of_kinds((".", _LINK, "real"), ("one", _FILE, "1")),
    "hard.tar": _archive_of_kinds(("a", _FILE, "a"), ("file", tarfile.LNKTYPE, "a"), ("folder", tarfile.LNKTYPE, "a"), ("link", tarfile.LNKTYPE, "a")),
    "devices.tar": _archive_of_kinds(("file", tarfile.FIFOTYPE, ""), ("folder", tarfile.FIFOTYPE, ""), ("tolink", _LINK, "./"), ("link", _LINK, "./")),
    "below.tar": _archive_of_kinds(("file/in", _FILE, "in")),
}
_PREPARED = """FROM busybox
RUN mkdir -p /real /etc && ln -s /real /link && echo old > /real/file && ln -s /real/file /flink && ln -s /nowhere/yet /dangling && chmod 750 /real
RUN echo 'root:x:0:0::/:/bin/sh' > /etc/passwd && echo 'bob:x:12:34::/:/bin/sh' >> /etc/passwd && echo 'team:x:77:' > /etc/group
"""

_INSTRUCTIONS: dict[str, str] = {
    "copy file to folder": "COPY a.txt /t/",
    "copy file to name": "COPY a.txt /t/name",
    "copy file over folder": "COPY a.txt /real",
    "copy files": "COPY a.txt b.txt /t/",
    "copy pattern": "COPY *.txt /t/",
    "copy pattern deep": "COPY d/*/e.* /t/",
    "copy pattern of folders": "COPY d* /t/",
    "copy pattern of nothing": "COPY none* /t/\nRUN echo x > /there",
    "copy folder": "COPY d /t",
    "copy folder to slash": "COPY d /t/",
    "copy folder onto folder": "COPY d /real",
    "copy folder and file": "COPY d a.txt /t/",
    "copy everything": "COPY . /t",
    "copy to root": "COPY etc /etc\nCOPY d /",
    "copy modes": "COPY script private setuid /t/",
    "copy through link": "COPY a.txt /link/",
    "copy to link of folder": "COPY a.txt /link",
    "copy folder to link": "COPY d /link",
    "copy to link of file": "COPY a.txt /flink",
    "copy to dangling link": "COPY a.txt /dangling",
    "copy link of file": "COPY toa /t",
    "copy link of folder": "COPY tod /t",
    "copy through context link": "COPY tod/sub/e.py /t",
    "copy link inside": "COPY d/link d/out /t/",
    "copy chown name": "COPY --chown=bob d /t/u",
    "copy chown name and group": "COPY --chown=bob:team a.txt /n/e/w/f",
    "copy chown number": "COPY --chown=5 a.txt /t/",
    "copy chown numbers": "COPY --chown=5:6 d /t",
    "copy chmod": "COPY --chmod=640 d /t\nCOPY --chmod=0111 a.txt /f",
    "copy chmod symbolic": "COPY --chmod=go=u,u+x a.txt private d /t/",
    "copy exclude": "COPY --exclude=*.py --exclude=sub d /t",
    "copy exclude nested": "COPY --exclude=**/*.py d /t",
    "copy link flag": "COPY --link a.txt /link2/f\nCOPY --link d /t",
    "copy link flag chown": "COPY --link --chown=bob a.txt /t/f",
    "copy from stage": "FROM busybox\nCOPY --from=0 /real /t\nCOPY --from=0 /link /u\nCOPY --from=0 /etc/passwd /etc/group /v/",
    "copy from keeps owner": "RUN mkdir -p /o/s && echo 1 > /o/f && chown -R 3:4 /o && chmod 700 /o/s\nFROM busybox\nCOPY --from=0 /o /t\nCOPY --from=0 /o/f /f",
    "copy from chown": "RUN mkdir -p /o/s && chown -R 3:4 /o\nFROM busybox\nCOPY --from=0 --chown=1:2 /o /t",
    "copy from image": "COPY --from=busybox /etc /t",
    "copy spaces": 'COPY ["sp ace", "/t/sp ace"]',
    "copy replaces link in folder": "RUN ln -s /real/file /real/c.txt\nCOPY d /real",
    "copy large": "COPY big /t/\nCOPY big /u\nCOPY --chmod=600 big /v",
    "copy over itself": "COPY a.txt /f\nCOPY b.txt /f",
    "copy twice": "COPY a.txt /f\nRUN rm /f\nCOPY a.txt /f",
    "copy into workdir": "WORKDIR /w/x\nCOPY a.txt .\nCOPY b.txt y/\nCOPY d z",
    "heredoc": "COPY <<one <<two /t/\n1\none\n2\ntwo\nCOPY --chmod=700 --chown=7 <<E /s\nx\nE",
    "heredoc to name": "COPY <<E /new/name\nx\nE",
    "add tar": "ADD x.tar /t/",
    "add tar to name": "ADD x.tar /t",
    "add tars": "ADD x.tgz x.tbz x.txz /t/",
    "add chown": "ADD --chown=1:2 x.tar a.txt /t/",
    "add no archive": "ADD fake.tar a.txt /t/",
    "add folder": "ADD d /t",
    "add tar over files": "RUN mkdir -p /t/in && echo old > /t/in/one\nADD x.tar /t/",
    "add tar through link": "RUN ln -s /real /t\nADD x.tar /t/",
    "workdir": "WORKDIR /w/x\nWORKDIR y\nWORKDIR /real\nWORKDIR /link/z",
    "workdir of user": "USER bob\nWORKDIR /w/bob\nRUN mkdir sub",
    "run": "RUN mkdir /n && echo x > /n/f && chmod 600 /n/f && chown 9:9 /n && ln -s f /n/l && ln /n/f /n/h && mkfifo /n/p",
    "run removes": "RUN rm -r /real && rm /link && mkdir /real && echo new > /real/new",
    "run renames": "RUN mv /real /moved && mv /flink /flink2",
    "run changes modes": "RUN chmod 711 /real && chown 4:5 /real/file",
    "run removes and copies": "RUN rm -rf /real\nCOPY d /real",
    "run touches nothing": "RUN true\nRUN touch /tmp/x && rm /tmp/x",
    "run bind": "RUN --mount=target=/ctx cp /ctx/a.txt /copied && ls /ctx > /listed",
    "run bind writable": "RUN --mount=target=/ctx,rw echo w > /ctx/a.txt && cp /ctx/a.txt /copied",
    "run bind from": "FROM busybox\nRUN --mount=from=0,source=/real,target=/m cp /m/file /copied",
    "run cache": "RUN --mount=type=cache,target=/var/cache/x echo c > /var/cache/x/f && cp /var/cache/x/f /copied",
    "run tmpfs": "RUN --mount=type=tmpfs,target=/scratch echo t > /scratch/f && cp /scratch/f /copied",
    "run in a deep mount": "RUN --mount=type=cache,target=/deep/er/st touch /deep/er/x",
    "run heredoc": "RUN <<E\necho 1 > /one\necho 2 > /two\nE",
    "run as user": "USER bob\nRUN touch /tmp/mine && id > /tmp/id",
    "args": "ARG w=word\nENV e=$w\nRUN echo $w $e > /said\nCOPY a.txt /$w/",
    "scratch": "FROM scratch\nCOPY --from=0 /real/file /only\nCOPY d /d",
    "add tar of a file to a file": "RUN echo f > /t\nADD x.tar /t",
    "add tar through dangling link": "ADD x.tar /dangling",
    "add tar below dangling link": "ADD x.tar /dangling/sub/",
    "add file below dangling link": "ADD a.txt /dangling/",
    "copy below dangling link": "COPY a.txt /dangling/sub/name",
    "copy folder below dangling link": "COPY d /dangling/sub",
    "copy folder to dangling link": "COPY d /dangling",
    "copy below relative dangling link": "RUN ln -s ../../../up/there /real/out\nCOPY a.txt /real/out/name\nCOPY b.txt /link/out/",
    "copy below dangling link of links": "RUN ln -s /dangling /second\nCOPY a.txt /second/x/y",
    "copy chown below dangling link": "COPY --chown=5:6 a.txt /dangling/sub/name",
    "copy chmod of folder": "COPY --chmod=700 d /t\nCOPY --chmod=711 d /u/v/",
    "add chmod of folder": "ADD --chmod=700 d /t",
    "copy chmod of folder onto folder": "COPY --chmod=711 d /real",
    "copy chmod of context": "COPY --chmod=700 . /t",
    "copy chmod of folder to slash": "COPY --chmod=700 d/ /t/\nADD --chmod=711 d/ /u/",
    "copy chmod of folders": "COPY --chmod=700 d tod /t/",
    "copy chmod of pattern": "COPY --chmod=700 d/s* /t/",
    "copy chmod of file to new folders": "COPY --chmod=711 a.txt /t/u/v/name\nCOPY --chmod=700 a.txt /x/y/",
    "copy chmod of folder below new folders": "COPY --chmod=700 d /t/u/v",
    "copy chmod to workdir": "WORKDIR /w\nCOPY --chmod=700 d .",
    "copy chmod symbolic of folder": "COPY --chmod=go-rx d /t",
    "add tar chmod": "ADD --chmod=700 x.tar /t/u/",
    "add tar chmod symbolic": "ADD --chmod=go-rx x.tar a.txt /t/u/",
    "heredoc chmod to new folders": "COPY --chmod=700 <<E /new/er/name\nx\nE\nCOPY --chmod=go-rx <<E /old/er/name\nx\nE",
    "copy chmod symbolic to new folders": "COPY --chmod=go-rx d /t/u/v\nCOPY --chmod=u+x a.txt /x/y/name",
    "copy chmod and chown of folder": "COPY --chmod=700 --chown=5:6 d /t",
    "copy chmod of folder link flag": "COPY --link --chmod=700 d /t",
    "copy chmod of folder from stage": "FROM busybox\nCOPY --from=0 --chmod=700 /real /t",
    "copy chmod of link to folder": "COPY --chmod=700 tod /t",
    "run bind missing": "RUN --mount=type=bind,source=missing,target=/m true",
    "heredoc below dangling link": "COPY <<E /dangling/sub/name\nx\nE",
    "workdir below dangling link": "WORKDIR /dangling/sub",
    "bad target": "COPY a.txt /real/file/x",
    "bad folder on file": "COPY d /real/file",
    "bad file on folder": "COPY d /t\nRUN mkdir /u && mkdir /u/c.txt\nCOPY d /u",
    "copy outside": "COPY ../a.txt /t",
    "bad missing": "COPY missing /t",
    "bad user": "COPY --chown=nobody-here a.txt /t",
}  # fmt: skip

_MIXED = """RUN mkdir -p /t/folder/in && echo f > /t/file && echo g > /t/folder/in/g && ln -s /real /t/link && mkdir /t/tolink && echo h > /t/tolink/h
"""
_OF_ARCHIVES: dict[str, str] = {
    "add tar changes kinds": f"{_MIXED}ADD kinds.tar /t/",
    "add tar changes kinds in a new layer": f"{_MIXED}RUN rm /t/file && mkdir /t/file && echo x > /t/file/x && rm -r /t/folder && echo y > /t/folder\nADD kinds.tar /t",
    "add tar changes its own kinds": "ADD again.tar /t/",
    "add tar of a root": "ADD root.tar /t\nADD root.tar /real/\nADD --chown=5:6 root.tar /u/",
    "add tar of a root that is a file": "ADD rootless.tar /t/",
    "add tar of a root that is a link": "ADD rootlink.tar /t/",
    "add tar of hard links in the way": f"{_MIXED}ADD hard.tar /t/",
    "add tar of devices and links in the way": f"{_MIXED}ADD devices.tar /t/",
    "add tar changes kinds at the root": "RUN mkdir /file && echo x > /folder\nADD kinds.tar /",
    "bad below tar file": "RUN mkdir /t && echo f > /t/file\nADD below.tar /t/",
}

CASES: dict[str, Case] = {name: Case(f"{_PREPARED}{text}\n", FILES) for name, text in _INSTRUCTIONS.items()} | {
    name: Case(f"{_PREPARED}{text}\n", {**FILES, **_ARCHIVES}) for name, text in _OF_ARCHIVES.items()
}
