"""Nodes to typed instructions: every instruction, every flag, every option of --mount, and what is refused with which words."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder import instructions as i
from corten.builder.flags import FLAGS
from corten.builder.git_reference import GitReference, parse_git_reference
from corten.builder.instructions import CommandLine, Pair, read_program
from corten.builder.parser import parse
from corten.builder.ports import read_port
from corten.builder.run_options import (
    _KEYS,
    MOUNT_TYPES,
    DeviceOptions,
    MountOptions,
    mount_origin,
    read_device,
    read_mount,
)
from corten.errors import DockerfileError, DockerfileSyntax, Invalid
from corten.spec.engine import Healthcheck

SECOND = 1_000_000_000


def read(line: str) -> i.Instruction:
    """The last instruction of a Dockerfile that ends with these lines."""
    text = line if line.upper().startswith("FROM") else f"FROM a\n{line}"
    stage = read_program(parse(text)).stages[-1]
    return stage.instructions[-1] if stage.instructions else stage.origin


def fields(line: str) -> dict[str, object]:
    instruction = read(line)
    return {f.name: getattr(instruction, f.name) for f in dataclasses.fields(instruction) if f.name != "written"}


def refusal(text: str) -> str:
    with pytest.raises(DockerfileSyntax) as caught:
        read(text)
    return caught.value.reason


@pytest.mark.parametrize(
    "line, kind, wanted",
    [
        ("FROM a", i.From, {"base": "a", "stage": "", "platform": ""}),
        ("FROM --platform=$BUILDPLATFORM a:1 aS Name", i.From, {"base": "a:1", "stage": "name", "platform": "$BUILDPLATFORM", "as_written": ("aS", "Name")}),
        ("# name is it\nFROM a AS name", i.From, {"about": "is it"}),
        ("ARG a b= c=1", i.Arg, {"arguments": (i.Argument("a"), i.Argument("b", ""), i.Argument("c", "1"))}),
        ("# b says so\nARG a b", i.Arg, {"arguments": (i.Argument("a"), i.Argument("b", None, "says so"))}),
        ("RUN a b", i.Run, {"command": CommandLine(("a b",), shell=True), "network": "default", "security": "sandbox"}),
        ('RUN ["a", "b"]', i.Run, {"command": CommandLine(("a", "b"), shell=False)}),
        ("RUN", i.Run, {"command": CommandLine((), shell=True)}),
        ("RUN --mount=type=cache,target=/x --mount=from=b,target=/y a", i.Run, {"mounts": ("type=cache,target=/x", "from=b,target=/y"), "origins": ("", "b")}),
        ("RUN --network=none --security=insecure a", i.Run, {"network": "none", "security": "insecure"}),
        ("RUN --device=vendor.com/gpu=1,required --device=name=x.y/z a", i.Run, {"devices": (DeviceOptions("vendor.com/gpu=1", required=True), DeviceOptions("x.y/z"))}),
        ("COPY a b /c/", i.Copy, {"sources": ("a", "b"), "target": "/c/", "origin": "", "link": False, "parents": False}),
        ("COPY --from=x --chown=1:2 --chmod=u+x --link --parents --exclude=*.o --exclude=t a b", i.Copy,
         {"origin": "x", "chown": "1:2", "chmod": "u+x", "link": True, "parents": True, "exclude": ("*.o", "t")}),
        ("COPY --link=false a b", i.Copy, {"link": False}),
        ("ADD --keep-git-dir --checksum=sha256:1 --chmod=755 --chown=u --link --unpack=false --exclude=x a b", i.Add,
         {"keep_git_dir": True, "checksum": "sha256:1", "chmod": "755", "chown": "u", "link": True, "unpack": False, "exclude": ("x",)}),
        ("ADD a b", i.Add, {"unpack": None, "keep_git_dir": None}),
        ("ENV a=b c='d e'", i.Env, {"pairs": (Pair("a", "b"), Pair("c", "'d e'"))}),
        ("ENV a b c", i.Env, {"pairs": (Pair("a", "b c", legacy=True),)}),
        ("LABEL a.b=c", i.Label, {"pairs": (Pair("a.b", "c"),)}),
        ("MAINTAINER me <me@x>", i.Maintainer, {"author": "me <me@x>"}),
        ("EXPOSE 443 80/udp", i.Expose, {"ports": ("443", "80/udp")}),
        ('VOLUME ["/a b", " /c"]', i.Volume, {"paths": ("/a b", "/c")}),
        ("USER u:g", i.User, {"user": "u:g"}),
        ("WORKDIR a b", i.Workdir, {"path": "a b"}),
        ("STOPSIGNAL $s", i.StopSignal, {"signal": "$s"}),
        ('SHELL ["/bin/bash", "-c"]', i.Shell, {"words": ("/bin/bash", "-c")}),
        ("CMD a", i.Cmd, {"command": CommandLine(("a",), shell=True)}),
        ("ENTRYPOINT []", i.Entrypoint, {"command": CommandLine((), shell=False)}),
        ("HEALTHCHECK none", i.Health, {"check": Healthcheck(["NONE"])}),
        ("HEALTHCHECK CMD a b", i.Health, {"check": Healthcheck(["CMD-SHELL", "a b"])}),
        ('HEALTHCHECK --interval=1m --timeout=2s --start-period=3s --start-interval=4s --retries=5 CMD ["a"]', i.Health,
         {"check": Healthcheck(["CMD", "a"], 60 * SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND, 5)}),
        ("ONBUILD RUN  a", i.OnBuild, {"trigger": "RUN  a"}),
        ("onbuild copy <<A /\nx\nA", i.OnBuild, {"trigger": "copy <<A /\nx\nA"}),
    ],
)  # fmt: skip
def test_instruction(line, kind, wanted):
    assert type(read(line)) is kind
    found = fields(line)
    assert {name: found[name] for name in wanted} == wanted


def test_heredocs_as_sources():
    found = read("COPY a <<B <<'C' /d\nx$y\nB\nz\nC")
    assert isinstance(found, i.Copy)
    assert found.sources == ("a",)
    assert [(heredoc.name, heredoc.text, heredoc.expand) for heredoc in found.heredocs] == [("B", "x$y\n", True), ("C", "z\n", False)]


def test_all_instructions_and_flags_are_there():
    assert len(i.INSTRUCTIONS) == 18
    assert sum(map(len, FLAGS.values())) == 23


@pytest.mark.parametrize("instruction", FLAGS)
def test_flags_are_refused_where_they_do_not_belong(instruction):
    for flag in {name for flags in FLAGS.values() for name in flags} - set(FLAGS[instruction]):
        assert refusal(f"{instruction} --{flag}=x a b").startswith(f"unknown flag: --{flag}")


@pytest.mark.parametrize("instruction", sorted(set(i.INSTRUCTIONS) - set(FLAGS) - {"ONBUILD"}))
def test_instructions_without_flags(instruction):
    assert refusal(f"{instruction} --link a=b").startswith("unknown flag: --link")


@pytest.mark.parametrize(
    "line, reason",
    [
        ("RUNN a", "unknown instruction: RUNN (did you mean RUN?)"),
        ("form a", "unknown instruction: form (did you mean from?)"),
        ("APT install", "unknown instruction: APT (did you mean ARG?)"),
        ("INSTALL x", "unknown instruction: INSTALL"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1b", 'invalid name for build stage: "1b", name can\'t start with a number or contain symbols'),
        ("FROM --platfrom=x a", "unknown flag: --platfrom (did you mean platform?)"),
        ("COPY --form=x a b", "unknown flag: --form (did you mean from?)"),
        ("COPY --from a b", "missing a value on flag: --from"),
        ("COPY --from=a --from=b c d", "duplicate flag specified: --from"),
        ("COPY --link=maybe a b", "expecting boolean value for flag --link, not: maybe"),
        ("COPY --link= a b", "missing a value on flag: --link"),
        ("COPY a", "COPY requires at least two arguments, but only one was provided. Destination could not be determined"),
        ("ADD", "ADD requires at least two arguments, but only one was provided. Destination could not be determined"),
        ("COPY a <<B\nB", "COPY cannot accept a heredoc as a destination"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV =a", "ENV names can not be blank"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =a", "ARG names can not be blank"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL bash -c", "SHELL requires the arguments to be in JSON form"),
        ("SHELL ['a']", "SHELL requires the arguments to be in JSON form: ['a'] is no JSON array of strings (strings have double quotes)"),
        ("RUN --network=hots a", 'invalid network mode "hots" (did you mean host?)'),
        ("RUN --security=none a", 'security "none" is not valid'),
        ("RUN --mount=from=$a,target=/x a", "'from' doesn't support variable expansion, define alias stage instead"),
        ('RUN --mount=\'"a\' b', "failed to parse csv mounts: unexpected end of data"),
        ("RUN --device=a,b c", "invalid field 'b' must be a key=value pair"),
        ("RUN --device=required c", "a device needs a name"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE a", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK TCP 80", 'Unknown type "TCP" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK --interval=x CMD a", 'time: invalid duration "x"'),
        ("HEALTHCHECK --interval=1us CMD a", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --retires=1 CMD a", "unknown flag: --retires (did you mean retries?)"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN a", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from a", "FROM isn't allowed as an ONBUILD trigger"),
    ],
)
def test_refusals(line, reason):
    assert refusal(line) == reason


@pytest.mark.parametrize(
    "text, reason",
    [
        ("RUN a", "no build stage in current context: the first instruction must be FROM (or ARG)"),
        ("ARG a", "dockerfile contains no stages to build"),
    ],
)
def test_files_without_a_stage(text, reason):
    with pytest.raises(DockerfileError) as caught:
        read_program(parse(text))
    assert (caught.value.message, caught.value.line) == (reason, 1)


def test_program():
    program = read_program(parse("ARG a=1\nFROM x AS one\nRUN a\nFROM one\nFROM y AS two\nCMD b\nCMD c"))
    assert [argument.arguments[0].name for argument in program.arguments] == ["a"]
    assert [(stage.index, stage.name, stage.origin.base, len(stage.instructions)) for stage in program.stages] == [
        (0, "one", "x", 1), (1, "", "one", 0), (2, "two", "y", 2)]  # fmt: skip


# --- RUN --mount
def mount(text: str) -> MountOptions:
    return read_mount(text, lambda value: value.replace("$x", "X"))


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("target=/a", MountOptions(target="/a")),
        ("type=bind,source=b,dst=/a,from=s,rw", MountOptions(target="/a", source="b", origin="s", readonly=False)),
        ("destination=/a,readwrite=false", MountOptions(target="/a")),
        ("dst=/a,src=/b,ro=false", MountOptions(target="/a", source="/b", readonly=False)),
        ("target=/a,rw,readonly", MountOptions(target="/a")),
        ("type=CACHE,target=/a", MountOptions("cache", target="/a", readonly=False)),
        ("type=cache,target=/a,id=i,sharing=Locked,mode=0700,uid=1,gid=2,readonly,from=s,source=/b",
         MountOptions("cache", "s", "/b", "/a", "i", sharing="locked", mode=0o700, uid=1, gid=2)),
        ("type=tmpfs,target=/a,size=1m", MountOptions("tmpfs", target="/a", readonly=False, size=1 << 20)),
        ("size=10,type=tmpfs,target=/a", MountOptions("tmpfs", target="/a", readonly=False, size=10)),
        ("type=secret,id=i,target=/a,required,mode=400,uid=1,gid=2", MountOptions("secret", id="i", target="/a", required=True, mode=0o400, uid=1, gid=2)),
        ("type=secret,id=i,env=E,required=false", MountOptions("secret", id="i", env="E")),
        ("type=ssh", MountOptions("ssh")),
        ("type=ssh,id=i,target=/s,required=true,mode=0666,uid=3,gid=4", MountOptions("ssh", id="i", target="/s", required=True, mode=0o666, uid=3, gid=4)),
        ('"target=/a,b",source=$x', MountOptions(target="/a,b", source="X")),
    ],
)  # fmt: skip
def test_mount(text, wanted):
    assert mount(text) == wanted


@pytest.mark.parametrize(
    "text, reason",
    [
        ("type=bnd,target=/a", 'unsupported mount type "bnd" (did you mean bind?)'),
        ("type=cache,sharing=lock,target=/a", 'unsupported sharing value "lock" (did you mean locked?)'),
        ("type=cache,sharing=loked,target=/a", 'unsupported sharing value "loked" (did you mean locked?)'),
        ("tagret=/a", "unexpected key 'tagret' in 'tagret=/a' (did you mean target?)"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("nosuch", "unexpected key 'nosuch' in 'nosuch'"),
        ("target=/a,required", "unexpected key 'required' for mount type 'bind'"),
        ("target=/a,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,target=/a,size=x", "invalid value for size: x"),
        ("target=/a,ro=perhaps", "invalid value for readonly: perhaps"),
        ("target=/a,mode=1", 'mode not allowed for "bind" type mounts'),
        ("type=tmpfs,target=/a,uid=1", 'uid not allowed for "tmpfs" type mounts'),
        ("target=/a,gid=1", 'gid not allowed for "bind" type mounts'),
        ("type=cache,target=/a,mode=9", "invalid value 9 for mode"),
        ("type=cache,target=/a,uid=-1", "invalid value -1 for uid"),
        ("type=cache,target=/a,gid=4294967296", "invalid value 4294967296 for gid"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=ssh,source=a", "ssh does not support source"),
        ("target=/a,sharing=shared", "invalid cache sharing set for bind mount"),
    ],
)
def test_mount_refusals(text, reason):
    with pytest.raises(Invalid) as caught:
        mount(text)
    assert caught.value.message == reason


def test_all_mount_types_and_keys_are_there():
    assert len(MOUNT_TYPES) == 5
    assert len(_KEYS) == 19


@given(st.text(st.sampled_from('type=bind,cache"secret ssh;tmpfs/target:from$id{}size1mode07uid')) | st.text())
def test_any_mount_and_device_is_read_or_refused(text):
    for read_it in (mount, read_device, mount_origin):
        try:
            read_it(text)
        except Invalid as error:
            assert error.message


@given(st.text(st.sampled_from("https://git@x.git#?ref=tag&:/.%[]")) | st.text())
def test_any_address_is_a_repository_or_not(text):
    try:
        found = parse_git_reference(text, bare_github=True)
    except Invalid as error:
        assert error.message
    else:
        assert found is None or not found.folder.startswith(("/", ".."))


@given(st.text(st.sampled_from("0123456789:-/tcpudTCP[].")))
def test_any_port_is_read_or_refused(text):
    try:
        assert all(re.fullmatch(r"[0-9]{1,5}/(tcp|udp|sctp)", name) for name in read_port(text).names)
    except Invalid as error:
        assert error.message


@pytest.mark.parametrize(
    "text, found",
    [
        ("https://h/r.git", GitReference("https://h/r.git")),
        ("https://h/r.git#v1:a/../b", GitReference("https://h/r.git", "v1", "b")),
        ("git@h:o/r.git#:sub", GitReference("git@h:o/r.git", "", "sub")),
        ("ssh://git@h/r", GitReference("ssh://git@h/r")),
        ("git://h/r?branch=b&subdir=/s", GitReference("git://h/r", "refs/heads/b", "s")),
        ("https://h/r.git?tag=refs/tags/v&keep-git-dir&submodules=0&commit=abc", GitReference("https://h/r.git", "refs/tags/v", "", "abc", keep_git_dir=True, submodules=False)),
        ("https://h/r.tar.gz", None), ("./r.git", None), ("../git@h:r", None), ("ftp://h/r.git", None), ("dir/r.git", None),
    ],
)  # fmt: skip
def test_git_reference(text, found):
    assert parse_git_reference(text) == found


def test_github_without_a_scheme_is_a_context_only():
    assert parse_git_reference("github.com/u/r", bare_github=True) == GitReference("https://github.com/u/r")
    assert parse_git_reference("github.com/u/r") is None


@pytest.mark.parametrize(
    "text, reason",
    [
        ("https://h/r.git?nosuch=1", 'unexpected query "nosuch" of a git repository'),
        ("https://h/r.git?ref=a&ref=b", 'query "ref" has multiple values'),
        ("https://h/r.git?tag=", 'query "tag" has no value'),
        ("https://h/r.git?tag=a#b", 'ref conflicts: "b" vs "refs/tags/a"'),
        ("https://h/r.git?subdir=a#:b", 'subdir conflicts: "b" vs "a"'),
        ("https://h/r.git?submodules=x", 'invalid submodules value: "x"'),
    ],
)
def test_git_reference_refusals(text, reason):
    with pytest.raises(Invalid) as caught:
        parse_git_reference(text)
    assert caught.value.message.startswith(reason)
