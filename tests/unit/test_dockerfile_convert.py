"""Dockerfile to graph, config and history: read from the plan, no image needed. Texts of the history are BuildKit's."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.convert import convert
from corten.builder.graph import (
    Cache,
    Exec,
    File,
    Git,
    Http,
    Image,
    Local,
    Mkfile,
    Secret,
    Ssh,
    Tmpfs,
    Vertex,
    in_order,
    layers_of,
)
from corten.builder.options import BuildOptions
from corten.builder.plan import BuildPlan, FoundImage
from corten.builder.stage import DEFAULT_PATH
from corten.errors import DockerfileError, Invalid, NoSuchImage
from corten.spec.digest import digest_of
from corten.spec.image import ImageConfig, RootFS, RunConfig
from corten.spec.platform import Platform

AMD64 = Platform("amd64")
PATH = f"PATH={DEFAULT_PATH}"


class Images:
    """Every name is an image of its own, but for `nosuch`."""

    def __init__(self, **configs: RunConfig) -> None:
        self.configs = configs
        self.asked: list[tuple[str, str]] = []

    async def find(self, reference: str, platform: Platform) -> FoundImage:
        self.asked.append((reference, str(platform)))
        name = reference.partition(":")[0]
        if name == "nosuch":
            raise NoSuchImage(name=reference)
        config = self.configs.get(name, RunConfig(env=["PATH=/bin"], cmd=["sh"]))
        architecture = "amd64" if name == "amdonly" else platform.architecture
        rootfs = RootFS([digest_of(name.encode())] if name != "empty" else [])
        return FoundImage(reference, digest_of(reference.encode()), ImageConfig(architecture, rootfs, variant=platform.variant, config=config))


def plan(text: str, images: Images | None = None, **options) -> BuildPlan:
    options.setdefault("build_platform", AMD64)
    return asyncio.run(convert(text, BuildOptions(**options), images or Images()))


def refusal(text: str, **options) -> tuple[int, str]:
    with pytest.raises(DockerfileError) as caught:
        plan(text, **options)
    return caught.value.line, caught.value.reason


def lines(found: BuildPlan) -> list[str]:
    return [line.created_by for line in found.history]


def operations(found: BuildPlan, kind: type) -> list:
    return [vertex.op for vertex in in_order([found.target]) if isinstance(vertex.op, kind)]


def the_exec(text: str, **options) -> Exec:
    return operations(plan(f"FROM a\n{text}", **options), Exec)[-1]


def the_file(text: str, **options) -> File:
    return operations(plan(f"FROM a\n{text}", **options), File)[-1]


# --- config and history
@pytest.mark.parametrize(
    "text, history, config",
    [
        ("ENV a=1 b=$a", ["ENV a=1 b="], {"env": ["PATH=/bin", "a=1", "b="]}),
        ("ENV a=1\nENV b=$a a=2", ["ENV a=1", "ENV b=1 a=2"], {"env": ["PATH=/bin", "a=2", "b=1"]}),
        ("ENV a 1  2", ["ENV a=1  2"], {"env": ["PATH=/bin", "a=1  2"]}),
        ('LABEL a="x y" $HOME.b=c', ["LABEL a=x y .b=c"], {"labels": {"a": "x y", ".b": "c"}}),
        ("EXPOSE 90/UDP 80 81-82", ["EXPOSE [80/tcp 81/tcp 82/tcp 90/udp]"], {"exposed_ports": {"80/tcp": {}, "81/tcp": {}, "82/tcp": {}, "90/udp": {}}}),
        ("ENV p='1 2'\nEXPOSE $p", ["ENV p=1 2", "EXPOSE [1/tcp 2/tcp]"], {"exposed_ports": {"1/tcp": {}, "2/tcp": {}}}),
        ("VOLUME /a $PATH", ["VOLUME [/a /bin]"], {"volumes": {"/a": {}, "/bin": {}}}),
        ("USER a:b", ["USER a:b"], {"user": "a:b"}),
        ("STOPSIGNAL SIGKILL", ["STOPSIGNAL SIGKILL"], {"stop_signal": "SIGKILL"}),
        ("CMD a b", ['CMD ["/bin/sh" "-c" "a b"]'], {"cmd": ["/bin/sh", "-c", "a b"], "args_escaped": True}),
        ('CMD ["a", "\\"$b\\""]', ['CMD ["a" "\\"$b\\""]'], {"cmd": ["a", '"$b"']}),
        ("ENTRYPOINT a", ['ENTRYPOINT ["/bin/sh" "-c" "a"]'], {"entrypoint": ["/bin/sh", "-c", "a"], "cmd": None}),
        ('CMD ["b"]\nENTRYPOINT ["a"]', ['CMD ["b"]', 'ENTRYPOINT ["a"]'], {"entrypoint": ["a"], "cmd": ["b"]}),
        ('SHELL ["/bin/bash", "-c"]\nCMD a', ["SHELL [/bin/bash -c]", 'CMD ["/bin/bash" "-c" "a"]'], {"shell": ["/bin/bash", "-c"], "cmd": ["/bin/bash", "-c", "a"]}),
        ("WORKDIR /", ["WORKDIR /"], {"working_dir": "/"}),
        ("WORKDIR /a/../b\nWORKDIR c", ["WORKDIR /a/../b", "WORKDIR /b/c"], {"working_dir": "/b/c"}),
        ("ARG a=1 b", ["ARG a=1 b"], {"env": ["PATH=/bin"]}),
        ("HEALTHCHECK NONE", ['HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" \'\\x00\'}'], {}),
        ("HEALTHCHECK --interval=90s --retries=2 CMD a b",
         ['HEALTHCHECK &{["CMD-SHELL" "a b"] "1m30s" "0s" "0s" "0s" \'\\x02\'}'], {}),
        ("ONBUILD RUN x\nONBUILD COPY a b", [], {"on_build": ["RUN x", "COPY a b"]}),
    ],
)  # fmt: skip
def test_config(text, history, config):
    found = plan(f"FROM a\n{text}")
    assert lines(found) == history
    assert {name: getattr(found.config, name) for name in config} == config


def test_maintainer_is_the_author():
    found = plan("FROM a\nMAINTAINER me")
    assert (found.author, lines(found)) == ("me", ["MAINTAINER me"])


def test_scratch():
    found = plan("FROM scratch\nCOPY a /")
    assert found.base is None
    assert (found.config.env, found.config.working_dir) == ([PATH], "/")


def test_a_base_without_path_gets_one():
    assert plan("FROM a\nUSER x", Images(a=RunConfig(env=["b=c"]))).config.env == ["b=c", PATH]


def test_labels_of_the_build():
    assert plan("FROM a\nLABEL x=1 y=2", labels={"y": "3"}).config.labels == {"x": "1", "y": "3"}


# --- ARG
@pytest.mark.parametrize(
    "text, given, seen",
    [
        ("FROM a\nARG x", {}, []),
        ("FROM a\nARG x", {"x": "1"}, ["x=1"]),
        ("FROM a\nARG x=0", {}, ["x=0"]),
        ("FROM a\nARG x=0", {"x": "1"}, ["x=1"]),
        ("FROM a\nARG x=0", {"y": "1"}, ["x=0"]),
        ("ARG x=2\nFROM a\nRUN true", {}, []),
        ("ARG x=2\nFROM a\nARG x", {}, ["x=2"]),
        ("ARG x=2\nFROM a\nARG x=3", {}, ["x=3"]),
        ("ARG x=2\nFROM a\nARG x", {"x": "1"}, ["x=1"]),
        ("ARG x=2\nARG y=$x$x\nFROM a\nARG y", {}, ["y=22"]),
        ("FROM a\nENV x=9\nARG x=0", {}, ["x=0"]),
        ("FROM a\nARG x=0\nENV x=9", {}, ["x=9"]),
        ("FROM a\nARG x=0\nARG y=${x}1", {}, ["x=0", "y=01"]),
        ("FROM a AS b\nARG x=0\nFROM b", {}, ["x=0"]),
        ("FROM a AS b\nARG x=0\nFROM a", {}, []),
        ("FROM a\nARG TARGETPLATFORM\nARG TARGETARCH\nARG BUILDOS", {}, ["TARGETPLATFORM=linux/amd64", "TARGETARCH=amd64", "BUILDOS=linux"]),
        ("FROM a\nARG TARGETARCH=none", {}, ["TARGETARCH=none"]),
        ("FROM a\nRUN true", {"http_proxy": "p", "x": "1"}, []),
    ],
)
def test_arguments_reach_a_step(text, given, seen):
    step = operations(plan(f"{text}\nRUN env", arguments=given), Exec)[-1]
    assert [entry for entry in step.env if not entry.startswith("PATH=")] == seen


def test_arguments_are_in_the_history():
    found = plan("FROM a\nARG x=1\nARG y\nENV x=2\nRUN b", arguments={"y": "3 4"})
    assert lines(found)[-1] == "RUN |2 x=2 y=3 4 /bin/sh -c b # buildkit"


def test_proxies_are_seen_by_steps_only():
    step = the_exec("RUN a", arguments={"HTTP_PROXY": "p", "no_proxy": "n"})
    assert step.proxies == ("HTTP_PROXY=p", "http_proxy=p", "NO_PROXY=n", "no_proxy=n")
    assert Vertex(step).digest == Vertex(the_exec("RUN a")).digest


def test_a_build_argument_takes_the_place_of_a_bad_default():
    images = Images()
    plan("ARG x=${no:?}\nFROM a:$x", images, arguments={"x": "1"})
    assert images.asked == [("a:1", "linux/amd64")]


def test_arguments_that_nothing_declares_are_named():
    found = plan("ARG u\nFROM a\nARG v", arguments={"u": "1", "v": "1", "w": "1", "x": "2", "HTTP_PROXY": "p", "BUILDKIT_SYNTAX": "docker/dockerfile:1", "BUILDKIT_INLINE_CACHE": "1"})
    assert found.warnings == ("[Warning] One or more build-args [BUILDKIT_INLINE_CACHE w x] were not consumed",)


# --- FROM and stages
def test_stages_that_nobody_needs_are_dropped():
    images = Images()
    found = plan("FROM a AS one\nRUN 1\nFROM b AS two\nRUN 2\nFROM c\nCOPY --from=one / /", images)
    assert sorted(name for name, _ in images.asked) == ["a:latest", "c:latest"]
    assert [step.text for step in found.steps] == ["FROM a AS one", "RUN 1", "FROM c", "COPY --from=one / /"]


@pytest.mark.parametrize("target, words", [("one", ["1"]), ("ONE", ["1"]), ("two", ["1", "2"]), ("0", ["1"]), ("", ["1", "2", "3"])])
def test_target(target, words):
    found = plan("FROM a AS one\nRUN 1\nFROM one AS two\nRUN 2\nFROM two\nRUN 3", target=target)
    assert [step.args[-1] for step in operations(found, Exec)] == words


def test_unknown_target():
    with pytest.raises(Invalid, match=r'target stage "oen" could not be found \(did you mean one\?\)'):
        plan("FROM a AS one", target="oen")


def test_a_stage_takes_over_config_and_history():
    found = plan("FROM a AS one\nENV x=1\nWORKDIR /w\nONBUILD USER u\nFROM one\nRUN 2")
    assert found.config.env == ["PATH=/bin", "x=1"]
    assert (found.config.working_dir, found.config.user, found.config.on_build) == ("/w", "u", None)
    assert lines(found) == ["ENV x=1", "WORKDIR /w", "USER u", "RUN /bin/sh -c 2 # buildkit"]
    assert [line.vertex is not None for line in found.history] == [False, True, False, True]


def test_from_is_expanded():
    images = Images()
    plan("ARG name=a\nARG tag=${none:-1}\nFROM --platform=$TARGETPLATFORM ${name}b:$tag", images, platform=Platform("arm64"))
    assert images.asked == [("ab:1", "linux/arm64")]


def test_copy_from_an_image_asks_for_the_targets_platform():
    images = Images()
    plan("FROM --platform=$BUILDPLATFORM a\nCOPY --from=b:2 /x /\nRUN --mount=from=c,target=/c y", images, platform=Platform("arm64"))
    assert sorted(images.asked) == [("a:latest", "linux/amd64"), ("b:2", "linux/arm64"), ("c:latest", "linux/arm64")]


def test_platform_of_the_result():
    assert str(plan("FROM a").platform) == "linux/amd64"
    assert str(plan("FROM --platform=linux/arm/v7 a").platform) == "linux/arm/v7"
    assert str(plan("FROM --platform=linux/arm64 a", platform=Platform("s390x")).platform) == "linux/s390x"


def test_triggers_of_an_image_come_first():
    images = Images(a=RunConfig(on_build=["ARG x=1", "COPY --from=other /a /b", "RUN <<E\nhi\nE"]))
    found = plan("FROM c AS other\nFROM a AS last\nUSER u", images)
    assert lines(found) == ["ARG x=1", "COPY /a /b # buildkit", "RUN |1 x=1 /bin/sh -c hi\n # buildkit", "USER u"]
    assert found.config.on_build is None
    assert operations(found, Exec)[0].args[-1] == "hi\n"
    assert operations(found, Image)[0].reference == "a:latest"


def test_named_contexts():
    files = Vertex(Local("files"))
    images = Images()
    found = plan(
        "FROM a AS one\nRUN 1\nFROM b\nCOPY --from=one /x /\nCOPY --from=files /y /\nCOPY --from=c:latest /z /",
        images, contexts={"one": "other:1", "files": files, "c": "d", "b": "docker.io/library/e:2"},
    )  # fmt: skip
    assert sorted(name for name, _ in images.asked) == ["d:latest", "e:2", "other:1"]
    assert operations(found, Local) == [files.op]
    assert not operations(found, Exec)


def test_a_folder_can_be_a_base():
    found = plan("FROM rootfs\nRUN 1", contexts={"rootfs": Vertex(Local("rootfs"))})
    assert len(operations(found, File)) == 1
    assert found.base is None


@pytest.mark.parametrize(
    "text, line, reason",
    [
        ("FROM $no", 1, "base name ($no) should not be blank"),
        ("FROM A", 1, 'failed to parse stage name "A": invalid reference format: repository name (library/A) must be lowercase'),
        ("FROM a\nFROM nosuch", 2, "nosuch: No such image: nosuch:latest"),
        ("FROM a\nCOPY --from=nosuch b c", 2, "nosuch: No such image: nosuch:latest"),
        ("FROM a AS nosuhc\nFROM nosuch", 2, "nosuch: No such image: nosuch:latest (did you mean nosuhc?)"),
        ("FROM --platform=$x a", 1, "empty platform value from expression $x"),
        ("FROM --platform=a/b/c/d a", 1, 'failed to parse platform a/b/c/d: "a/b/c/d": cannot parse platform specifier: invalid argument'),
        ("FROM a AS one\nCOPY --from=two b c\nFROM a AS two\nFROM one", 2, 'cannot copy from stage "two", it needs to be defined before current stage "one"'),
        ("FROM a AS one\nCOPY --from=one b c", 2, "circular dependency detected on stage: one (one -> one)"),
        ("FROM a\nCOPY --from=1 b c", 2, "invalid stage index 1: the Dockerfile has 1 stages, counted from 0"),
        ("FROM a\nCOPY --from=$x b c", 2, "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"),
        ("FROM a\nENV x=${y", 2, "failed to process \"${y\": syntax error: missing '}'"),
        ("ARG x=${y\nFROM a", 1, "failed to process \"${y\": syntax error: missing '}'"),
        ("FROM a\nUSER ${u:?say who}", 2, 'failed to process "${u:?say who}": u: say who'),
        ("FROM a\nSTOPSIGNAL SIGNONE", 2, "invalid signal: SIGNONE"),
        ("FROM a\nEXPOSE 99999", 2, "invalid containerPort: 99999"),
        ("FROM a\nEXPOSE 80/http", 2, 'invalid port: "80/http": invalid proto: http'),
        ("FROM a\nCOPY --chmod=99999 b c", 2, "invalid chmod parameter: '99999'. it should be octal string and between 0 and 07777, or symbolic as in chmod(1)"),
        ("FROM a\nCOPY https://x/y /", 2, "source can't be a URL for COPY"),
        ("FROM a\nCOPY https://x/y.git /", 2, "source can't be a git ref for COPY"),
        ("FROM a\nADD --checksum=sha256:1 b /", 2, "checksum requires HTTP(S) or Git sources"),
        ("FROM a\nADD --checksum=sha256:1 b c /", 2, "checksum can't be specified for multiple sources"),
        ("FROM a\nRUN --mount=type=tmpfs b", 2, 'invalid mount target "/": a tmpfs mount needs a target= that is not the root'),
        ("FROM a\nRUN --mount=type=cache,target=/b,nosuch=1 c", 2, "unexpected key 'nosuch' in 'nosuch=1'"),
        ("# syntax=example/frontend:1\nFROM a", 1,
         "the frontend example/frontend:1 is not supported: Corten reads Dockerfiles itself, as docker/dockerfile:1 does; leave the syntax line out"),
        ("# syntax=mirror.example/notdocker/dockerfile:1\nFROM a", 1,
         "the frontend mirror.example/notdocker/dockerfile:1 is not supported: Corten reads Dockerfiles itself, as docker/dockerfile:1 does; leave the syntax line out"),
        ("# syntax=hub/docker/dockerfile:1\nFROM a", 1,
         "the frontend hub/docker/dockerfile:1 is not supported: Corten reads Dockerfiles itself, as docker/dockerfile:1 does; leave the syntax line out"),
        ("# check=nosuch=1\nFROM a", 1, 'failed to parse check options: invalid check option "nosuch"'),
    ],
)  # fmt: skip
def test_refusals(text, line, reason):
    assert refusal(text) == (line, reason)


@pytest.mark.parametrize("name", [
        "docker/dockerfile", "docker/dockerfile:1", "docker/dockerfile:1.7-labs", "docker.io/docker/dockerfile:1.4", "docker/dockerfile-upstream:master", "mirror.example/docker/dockerfile:1",
        "mirror.example:5000/hub/docker/dockerfile:1.7-labs", "localhost/docker/dockerfile@sha256:" + "0" * 64])  # fmt: skip
def test_dockers_own_frontends_are_served(name):
    assert plan(f"# syntax={name}\nFROM a\nUSER u").config.user == "u"


def test_a_trigger_that_is_wrong_is_told_where_it_came_in():
    with pytest.raises(DockerfileError) as caught:
        plan("FROM b\nFROM a", Images(a=RunConfig(on_build=["FROM x"])))
    assert (caught.value.line, caught.value.reason) == (2, "ONBUILD trigger `FROM x` of a: FROM isn't allowed as an ONBUILD trigger")


# --- RUN
@pytest.mark.parametrize(
    "text, args",
    [
        ("RUN a $b", ("/bin/sh", "-c", "a $b")),
        ('RUN ["a", "$b"]', ("a", "$b")),
        ('SHELL ["/bin/bash", "-e", "-c"]\nRUN a', ("/bin/bash", "-e", "-c", "a")),
        ("RUN <<E\na\nb\nE", ("/bin/sh", "-c", "a\nb\n")),
        ("RUN <<-E\n\ta\n\tE", ("/bin/sh", "-c", "a\n")),
        ("RUN cat <<E > /x\na\nE", ("/bin/sh", "-c", "cat <<E > /x\na\nE")),
        ("RUN <<A cat && <<B cat\n1\nA\n2\nB", ("/bin/sh", "-c", "<<A cat && <<B cat\n1\nA\n2\nB")),
        ("RUN <<E\n#!/usr/bin/env python3\nprint(1)\nE", ("/bin/sh", "-c", "/dev/pipes/E")),
    ],
)
def test_command(text, args):
    assert the_exec(text).args == args


def test_a_script_is_mounted():
    found = plan("FROM a\nRUN <<E\n#!/bin/x\n1\nE")
    [script] = [action for op in operations(found, File) for action in op.actions if isinstance(action, Mkfile)]
    assert (script.name, script.data, script.mode) == ("E", b"#!/bin/x\n1\n", "0755")
    [mount] = operations(found, Exec)[0].mounts
    assert (mount.target, mount.readonly) == ("/dev/pipes", True)


def test_where_and_as_whom():
    step = the_exec("WORKDIR /w\nUSER u:g\nRUN --network=none --security=insecure --device=a.b/c,required x", arguments={"BUILDKIT_SANDBOX_HOSTNAME": "h"})
    assert (step.cwd, step.user, step.network, step.security, step.hostname) == ("/w", "u:g", "none", "insecure", "h")
    assert [(device.name, device.required) for device in step.devices] == [("a.b/c", True)]
    assert the_exec("RUN x", network="host").network == "host"


@pytest.mark.parametrize(
    "text, mounts",
    [
        ("type=cache,target=/c", (Cache("/c", "/c"),)),
        ("type=cache,target=c/,id=$i,sharing=locked,mode=0700,uid=1", (Cache("/w/c", "I", "locked", mode=0o700, uid=1),)),
        ("type=tmpfs,target=/t,size=1k", (Tmpfs("/t", 1024),)),
        ("type=secret,id=s", (Secret("s", "/run/secrets/s"),)),
        ("type=secret,target=/x/y", (Secret("y", "/x/y"),)),
        ("type=secret,id=s,env=E,required", (Secret("s", "", "E", required=True),)),
        ("type=secret,id=s,env=E,target=/x", (Secret("s", "/x", "E"),)),
        ("type=ssh", (Ssh("/run/buildkit/ssh_agent.0"),)),
        ("type=ssh,id=k,target=/s,mode=0666", (Ssh("/s", "k", mode=0o666),)),
    ],
)  # fmt: skip
def test_mounts(text, mounts):
    assert the_exec(f"ENV i=I\nWORKDIR /w\nRUN --mount={text} x").mounts == mounts


def test_mounts_of_trees():
    found = plan(
        "FROM a AS s\nFROM b\nRUN --mount=target=/1,source=x/../y --mount=from=s,target=/2,rw --mount=type=cache,from=s,target=/3,source=/z --mount=target=/4 x"
    )
    [step] = operations(found, Exec)
    assert [(mount.target, mount.input, mount.source, mount.readonly) for mount in step.mounts] == [
        ("/1", 1, "/y", True), ("/2", 2, "/", False), ("/3", 2, "/z", False), ("/4", 1, "/", True)]  # fmt: skip
    assert [type(vertex.op) for vertex in found.target.inputs] == [Image, Local, Image]


def test_a_cache_has_a_namespace():
    assert the_exec("RUN --mount=type=cache,target=/c x", arguments={"BUILDKIT_CACHE_MOUNT_NS": "n"}).mounts == (Cache("/c", "n//c"),)


# --- COPY and ADD
@pytest.mark.parametrize(
    "text, sources, target",
    [
        ("COPY a /b", ["/a"], "/b"),
        ("COPY a b/ /c/", ["/a", "/b"], "/c/"),
        ("COPY ../a ./b//c d", ["/a", "/b/c"], "/w/d"),
        ("COPY . .", ["/"], "/w/"),
        ("COPY a ./", ["/a"], "/w/"),
        ("COPY a /x/.", ["/a"], "/x/"),
        ("COPY a x/..", ["/a"], "/w"),
        ("COPY *.py $d/", ["/*.py"], "/D/"),
        ('COPY ["a b", "c d"]', ["/a b"], "/w/c d"),
        ("COPY --parents a/./b/c d /e/", ["/a/./b/c", "/d"], "/e/"),
    ],
)
def test_copy(text, sources, target):
    actions = the_file(f"ENV d=/D\nWORKDIR /w\n{text}").actions
    assert [source for action in actions for source in action.sources] == sources
    assert {action.target for action in actions} == {target}


def test_copy_options():
    found = plan("FROM a\nARG o=7\nCOPY --chown=$o:g --chmod=u+x,go=r --exclude=*.o --parents --link x y* /z")
    op = operations(found, File)[-1]
    assert op.link
    assert [(a.owner, a.mode, a.exclude, a.parents, a.required, a.unpack) for a in op.actions] == [
        ("7:g", "u+x,go=r", ("*.o",), True, True, False), ("7:g", "u+x,go=r", ("*.o",), True, False, False)]  # fmt: skip
    assert lines(found)[-1] == "COPY --parents --chown=7:g --chmod=u+x,go=r x y* /z # buildkit"


def test_heredocs_are_files():
    found = plan("FROM a\nENV v=1 q=\"'\"\nCOPY --chmod=600 <<A <<'B' /d/\n$v \"$q\" \\$v\nA\n$v\nB")
    a, b = operations(found, File)[-1].actions
    assert (a.path, a.name, a.data, a.mode) == ("/d/", "A", b"1 \"'\" $v\n", "600")
    assert (b.name, b.data) == ("B", b"$v\n")
    assert lines(found)[-1] == "COPY --chmod=600 <<A <<B /d/ # buildkit"


def test_add():
    found = plan(
        "FROM a\nADD l.tar https://x/y/z%20a?q=1 https://h/r.git#v1:sub git@h:o/r.git /d/\nADD --unpack=false l.tar /e\n"
        "ADD --unpack --checksum=sha256:" + "1" * 64 + " https://x/y.tar /f\nADD --keep-git-dir --checksum=abc https://h/r.git?branch=b&submodules=false /g"
    )
    first, second, third, fourth = (op.actions for op in operations(found, File))
    assert [(a.sources, a.unpack, a.wildcard) for a in first] == [(("/l.tar",), True, True), (("/z a",), False, False), (("/",), False, False), (("/",), False, False)]
    assert (second[0].unpack, third[0].unpack) == (False, True)
    assert operations(found, Http) == [Http("https://x/y/z%20a?q=1", "z a"), Http("https://x/y.tar", "y.tar", "sha256:" + "1" * 64)]
    assert operations(found, Git) == [
        Git("https://h/r.git", "v1", "sub"), Git("git@h:o/r.git"), Git("https://h/r.git", "refs/heads/b", "", keep_git_dir=True, checksum="abc", submodules=False)]  # fmt: skip
    assert fourth[0].target == "/g"


def test_workdir_makes_a_folder_for_the_user():
    [action] = the_file("USER u\nWORKDIR /x").actions
    assert (action.path, action.mode, action.owner) == ("/x", 0o755, "u")


def test_how_steps_are_called():
    found = plan('FROM a:1 AS s\nWORKDIR /w\nENV v=1\nRUN  echo "$v" $no\nFROM s\nCOPY --from=s $v /')
    shown = [step.vertex.shown for step in found.steps if step.vertex]
    assert [(each.text, each.line) for each in shown] == [
        ("[s 1/3] FROM docker.io/library/a:1", 1), ("[s 2/3] WORKDIR /w", 2), ('[s 3/3] RUN  echo "1" $no', 4),
        ('[s 3/3] RUN  echo "1" $no', 4), ("[stage-1 1/1] COPY --from=s 1 /", 6)]  # fmt: skip


def test_epoch():
    assert plan("FROM a", arguments={"SOURCE_DATE_EPOCH": "12"}).epoch == 12
    assert plan("ARG SOURCE_DATE_EPOCH=7\nFROM a").epoch == 7
    assert plan("FROM a").epoch is None
    with pytest.raises(Invalid, match="invalid SOURCE_DATE_EPOCH: x"):
        plan("FROM a", arguments={"SOURCE_DATE_EPOCH": "x"})


LINES = st.lists(
    st.sampled_from(
        ["FROM a", "FROM a AS b", "FROM b AS c", "FROM scratch", "FROM ${x:-a} AS d", "FROM --platform=$BUILDPLATFORM a AS e", "ARG x=1", "ARG x y=$x", "ENV x=$y z",
         "ENV x=${y#*}$z", "RUN echo", 'RUN ["a"]', "RUN --mount=type=cache,target=/c,from=b x", "RUN --mount=from=c,target=$x y", "RUN <<E\n$x\nE", "COPY a b",
         "COPY --from=b /x* /y/", "COPY --from=0 . .", "COPY <<E /\n${x}\nE", "ADD https://h/x /", "ADD git@h:r.git#v:s /", "WORKDIR $x", "USER $x", "EXPOSE $x 80-81",
         "VOLUME $x", "CMD x", "ENTRYPOINT x", "HEALTHCHECK CMD x", "ONBUILD COPY --from=b a b", "ONBUILD RUN x", "STOPSIGNAL 9", 'SHELL ["x"]', "LABEL a=$x", "MAINTAINER x"]
    ),
    max_size=14,
)  # fmt: skip


@given(LINES, st.sampled_from(["", "b", "c", "0", "nosuch"]), st.dictionaries(st.sampled_from(["x", "y", "http_proxy"]), st.text(max_size=5), max_size=2))
def test_any_dockerfile_is_a_plan_or_is_refused(text, target, arguments):
    images = Images(a=RunConfig(env=["A=b", "odd"], on_build=["COPY --from=c /q /", "ENV t=$A"], working_dir="w"))
    try:
        found = plan("\n".join(text), images, target=target, arguments=arguments)
    except Invalid as error:
        assert error.message
    else:
        assert found.steps[0].text.startswith("FROM")
        assert len(layers_of(found.target)) == sum(line.vertex is not None for line in found.history)
