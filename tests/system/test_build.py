"""Builds through Docker's classic front: what comes out, what is found in the cache, what is told."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading

import docker
import pytest

from corten.api.client import ApiError
from tests.builds import FOLDER, Link, build, context, tree
from tests.engines import eventually
from tests.system.conftest import need


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    said = len(engine.log())
    yield
    for image in engine.client.get("/images/json", all=1):
        if not any(tag.startswith("busybox:") for tag in image["RepoTags"] or []):
            engine.client.delete(f"/images/{image['Id']}", force=1)
    engine.client.post("/build/prune", all=1)
    assert engine.client.get("/system/df")["BuildCache"] == []
    folders = (f"{engine.data_root}/containers", f"{engine.data_root}/tmp", f"{engine.exec_root}/containers")
    eventually(lambda: not any(os.listdir(folder) for folder in folders))
    assert "Traceback" not in engine.log()[said:]


def test_the_words_are_the_classic_builders(engine):
    files = {"Dockerfile": 'FROM busybox\nENV X=1\nRUN echo hi; echo err >&2\nCOPY a.txt /x/\nCMD ["sh"]\n', "a.txt": "a"}
    built = build(engine, files, t="words:1")
    lines = built.text.split("\n")
    base, short = engine.client.get("/images/busybox/json")["Id"][7:19], built.image[7:19]
    assert lines[:2] == ["Step 1/5 : FROM busybox", f" ---> {base}"]
    assert "Step 3/5 : RUN echo hi; echo err >&2" in lines
    assert " ---> Running in " in built.text
    assert " ---> Removed intermediate container " in built.text
    assert {"stream": "\x1b[91merr\n\x1b[0m"} in built.messages
    assert {"stream": "hi\n"} in built.messages
    assert lines[-3:] == [f"Successfully built {short}", "Successfully tagged words:1", ""]
    image = engine.client.get("/images/words:1/json")
    assert image["Id"] == built.image
    assert "X=1" in image["Config"]["Env"]
    assert image["Config"]["Cmd"] == ["sh"]
    assert len(image["RootFS"]["Layers"]) == 2  # RUN changed nothing
    history = [row["CreatedBy"] for row in engine.client.get("/images/words:1/history")]
    assert len(history) == 5
    assert build(engine, files, q=1).messages == [{"stream": f"{built.image}\n"}]


def test_a_multi_stage_build_runs_what_it_needs(engine):
    files = {"Dockerfile": """
FROM busybox AS tools
RUN mkdir -p /out/bin && echo tool > /out/bin/tool && chmod 750 /out/bin/tool && chown 7:8 /out/bin/tool
FROM busybox AS unused
RUN false
FROM busybox
COPY --from=tools /out /opt
COPY --from=tools --chown=1:2 --chmod=0400 /out/bin/tool /again
RUN cat /opt/bin/tool
"""}  # fmt: skip
    built = build(engine, files, t="multi:1")
    assert "RUN false" not in built.text
    files_made = tree(engine, "multi:1")
    assert files_made["opt/bin/tool"] == ("0", 0o750, 7, 8, b"tool\n")
    assert files_made["again"] == ("0", 0o400, 1, 2, b"tool\n")
    assert not {"proc", "etc/resolv.conf", ".dockerenv", "dev/console"} & {name.rstrip("/") for name in files_made if name.startswith(("etc/res", ".docker", "dev/c"))}
    assert build(engine, files, target="tools", t="tools:1").cached == 1


def test_copies(engine):
    files = {
        "Dockerfile": """
FROM busybox
RUN mkdir -p /real /etc && ln -s /real /link && echo old > /real/file && ln -s /real/file /flink && echo 'bob:x:12:34::/:/bin/sh' > /etc/passwd
COPY d /dd
COPY d/one d/two /both/
COPY d /real
COPY f /link/
COPY f /flink
COPY l /followed
COPY --chown=bob f /a/b/c
COPY --chown=55 f /n
COPY --chmod=u+x,g-r f /m
COPY d/*e /stars/
COPY --exclude=two d /without
COPY --parents d/sub/deep /parents/
COPY --link f /linked/f
ADD a.tgz /unpacked/
ADD f /added
WORKDIR /w/x
COPY <<EOF /doc
text of $PATH
EOF
""",
        "f": "f", "d/one": "1", "d/two": "2", "d/sub/deep": "deep", "l": Link("f"), "a.tgz": _archive(), "big": b"x" * 300_000,
    }  # fmt: skip
    build(engine, files, t="copies:1")
    made = tree(engine, "copies:1")
    assert made["dd/one"] == ("0", 0o644, 0, 0, b"1")
    assert made["both/two"][4] == made["real/two"][4] == b"2"
    assert made["real/f"][4] == made["followed"][4] == b"f"
    assert made["real/file"][4] == b"f"
    assert made["flink"] == ("2", 0o777, 0, 0, b"/real/file")
    assert made["a/b/c"] == ("0", 0o644, 12, 34, b"f")
    assert made["a/b"][2:4] == (12, 34)
    assert made["n"][2:4] == (55, 55)
    assert made["m"][1] == 0o704
    assert "stars/one" in made
    assert "stars/two" not in made
    assert "without/one" in made
    assert "without/two" not in made
    assert made["parents/d/sub/deep"][4] == b"deep"
    assert made["linked/f"][4] == b"f"
    assert made["unpacked/in/arch"] == ("0", 0o600, 55, 66, b"q")
    assert made["added"][4] == b"f"
    assert made["w/x"][0] == "5"
    assert made["doc"][4].startswith(b"text of /usr/local/sbin")


def _archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("in/arch")
        entry.size, entry.uid, entry.gid, entry.mode = 1, 55, 66, 0o600
        archive.addfile(entry, io.BytesIO(b"q"))
    return packed.getvalue()


def test_mounts_leave_no_trace(engine):
    files = {"Dockerfile": """
FROM busybox AS other
RUN mkdir /data && echo from-other > /data/x
FROM busybox
RUN --mount=type=cache,target=/root/cache --mount=type=bind,target=/ctx --mount=type=bind,from=other,source=/data,target=/o,rw \
    --mount=type=tmpfs,target=/t echo seen >> /root/cache/log; cat /ctx/f /o/x; echo w > /o/w; touch /t/z; cat /root/cache/log > /result
RUN --mount=type=cache,target=/root/cache test "$(cat /root/cache/log)" = seen && test ! -e /o && test ! -e /ctx && test ! -e /t
""", "f": "ctx-file\n"}  # fmt: skip
    built = build(engine, files, t="mounts:1")
    assert "ctx-file\nfrom-other\n" in built.text
    made = {name.rstrip("/") for name in tree(engine, "mounts:1")}
    assert "result" in made
    assert not {"root/cache", "ctx", "o", "t", "run"} & made
    rows = engine.client.get("/system/df")["BuildCache"]
    assert [row["Type"] for row in rows].count("exec.cachemount") == 1


def test_the_cache_goes_by_content(engine):
    files = {"Dockerfile": "FROM busybox\nCOPY a /a\nRUN cat /a\nCOPY b /b\n", "a": "1", "b": "2", "other": "3"}
    first = build(engine, files)
    assert first.cached == 0
    touched = build(engine, context({**files, "other": "changed"}, mtime=1_800_000_000))
    assert (touched.cached, touched.image) == (3, first.image)
    changed = build(engine, {**files, "b": "new"}, explain=1)
    assert changed.cached == 2
    assert "Not in the cache: file b is" in changed.text
    assert "Context: Dockerfile has " in changed.text
    command = build(engine, {**files, "Dockerfile": files["Dockerfile"].replace("cat /a", "cat /a /a")}, explain=1)
    assert "Not in the cache: command is" in command.text
    assert build(engine, {**files, "a": "x"}, explain=1).text.count("Not in the cache: base is") >= 1
    assert build(engine, files, nocache=1).cached == 0


def test_the_same_image_on_another_day(engine, own_engine):
    """Same files with other times, on another engine with nothing cached: the same id."""
    dockerfile = "FROM busybox\nRUN echo x > /made && mkdir /d && ln -s made /l && mkfifo /p\nCOPY . /app\nWORKDIR /w\nRUN rm -r /var/www && touch /w/t\n"
    files = {"Dockerfile": dockerfile, "b/z": "z", "a": "a", "big": bytes(400_000)}
    first = build(engine, context(files, mtime=1_500_000_000)).image
    backwards = dict(reversed(files.items()))
    assert build(own_engine, context(backwards, mtime=1_900_000_000)).image == first


def test_source_date_epoch(engine):
    files = {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "a"}
    image = build(engine, files, buildargs={"SOURCE_DATE_EPOCH": "1234567890"}).image
    assert engine.client.get(f"/images/{image}/json")["Created"] == "2009-02-13T23:31:30Z"


def test_build_arguments_labels_and_tags(engine):
    files = {"Dockerfile": "ARG BASE=nosuch\nFROM $BASE\nARG WHAT=default\nRUN echo got $WHAT\nLABEL own=1\n"}
    built = build(engine, files, buildargs={"BASE": "busybox", "WHAT": "this", "SLIP": "x"}, labels={"more": "2"}, t="args:1")
    assert "got this\n" in built.text
    assert "[Warning] One or more build-args [SLIP] were not consumed\n" in built.text
    assert engine.client.get("/images/args:1/json")["Config"]["Labels"] == {"own": "1", "more": "2"}
    assert build(engine, files, buildargs={"BASE": "busybox", "WHAT": "that"}).cached == 1


def test_networks_of_steps(engine):
    files = {"Dockerfile": "FROM busybox\nRUN ip -o addr; hostname; cat /etc/hosts\n"}
    bridged = build(engine, files, extrahosts="db:10.1.2.3").text
    assert "eth0" in bridged
    assert "10.1.2.3\tdb" in bridged
    assert "eth0" not in build(engine, files, networkmode="none", nocache=1).text
    assert "network nosuch not found" in build(engine, files, networkmode="nosuch", nocache=1).error
    assert "eth0" not in build(engine, {"Dockerfile": "FROM busybox\nRUN --network=none ip -o addr\n"}).text


def test_a_step_finds_containers_by_name_and_is_found_by_none(engine):
    network = engine.client.post("/networks/create", {"Name": "of-builds"})["Id"]
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": network},
                                                          "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": ["server.alias"]}}}})["Id"]  # fmt: skip
    engine.client.post(f"/containers/{container}/start")
    try:
        address = engine.client.get(f"/containers/{container}/json")["NetworkSettings"]["Networks"]["of-builds"]["IPAddress"]
        text = build(engine, {"Dockerfile": "FROM busybox\nRUN ping -c1 server.alias && ! ping -c1 buildkitsandbox.of-builds\n"}, networkmode=network).text
        assert f"PING server.alias ({address})" in text
    finally:
        engine.remove(container)
        engine.client.delete(f"/networks/{network}")


def test_a_workdir_of_a_user_that_is_not_there_is_roots(engine):
    """As in BuildKit (buildah's conformance test `edgecases`): the user may come with a volume, or never."""
    image = build(engine, {"Dockerfile": "FROM busybox\nUSER nobody-here\nWORKDIR /w\nUSER 7\nWORKDIR /seven\n"}).image
    made = tree(engine, image)
    assert made["w"][1:4] == (0o755, 0, 0)
    assert made["seven"][2] == 7


def test_limits_hold(engine):
    files = {"Dockerfile": "FROM busybox\nRUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max; ulimit -n; df -k /dev/shm | tail -1\n"}
    text = build(engine, files, memory=64 << 20, ulimits=[{"Name": "nofile", "Soft": 77, "Hard": 88}], shmsize=16 << 20).text
    assert f"{64 << 20}\n77\n" in text
    assert " 16384 " in text
    assert build(engine, files, memory=1000, nocache=1).error == "Minimum memory limit allowed is 6MB"


def test_two_builds_at_once_run_a_step_once(engine):
    files = {"Dockerfile": "FROM busybox\nRUN echo once-$(cat /proc/sys/kernel/random/uuid) | tee /id; sleep 1\n"}
    results = []
    threads = [threading.Thread(target=lambda: results.append(build(engine, files))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.image for result in results}) == 1
    said = {line for result in results for line in result.text.split("\n") if line.startswith("once-")}
    assert len(said) == 1


def test_stages_run_side_by_side(engine):
    """Each waits for the other's word through a shared cache mount: one after the other they would wait for ever."""
    meet = "RUN --mount=type=cache,target=/meet,id=meet touch /meet/{mine}; for i in $(seq 100); do test -e /meet/{other} && exit 0; sleep 0.1; done; exit 1"
    files = {"Dockerfile": "\n".join([
        "FROM busybox AS a", meet.format(mine="a", other="b"), "FROM busybox AS b", meet.format(mine="b", other="a"),
        "FROM busybox", "COPY --from=a /etc /x", "COPY --from=b /etc /y", ""])}  # fmt: skip
    assert build(engine, files).image


def test_four_stages_keep_both_processors_busy(engine):
    """Four loops without an end, seen in /proc: as many as there are processors want one at the same moment, and more than one has one."""
    stages = "".join(f"FROM busybox AS s{n}\nRUN while :; do :; done # loop-4716-{n}\n" for n in range(4))
    copies = "".join(f"COPY --from=s{n} /etc/passwd /p{n}\n" for n in range(4))
    results = []
    building = threading.Thread(target=lambda: results.append(build(engine, {"Dockerfile": f"{stages}FROM busybox\n{copies}"}, buildid="four")))
    building.start()
    expected = min(4, len(os.sched_getaffinity(0)))
    seen: set[str] = set()

    def running() -> bool:
        """Field 3 of stat is the state, 39 the processor that it was on last (proc(5))."""
        states = [stat.rpartition(")")[2].split() for stat in _stats("loop-4716")]
        seen.update(fields[36] for fields in states if fields[0] == "R")
        return [fields[0] for fields in states].count("R") >= expected and len(seen) >= expected

    try:
        eventually(running)
    finally:
        engine.client.post("/build/cancel", id="four")
        building.join()
    assert results[0].error == "the build was cancelled"


def _stats(word: str) -> list[str]:
    """/proc/PID/stat of the shells that run a step with the word in it."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as command, open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
                if word.encode() in command.read() and "(sh)" in (text := stat.read()):
                    found.append(text)
        except OSError:
            continue  # it has ended
    return found


@pytest.mark.parametrize("dockerfile, parameters, status, text", [
    ("FROM busybox\nRUNN x\n", {}, 400, "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"),
    ("", {}, 400, "the Dockerfile (Dockerfile) cannot be empty"),
    ("FROM busybox\n", {"dockerfile": "nosuch"}, 400, "Cannot locate specified Dockerfile: nosuch"),
    ("FROM busybox\n", {"dockerfile": "../x"}, 400, "forbidden path outside the build context: ../x ()"),
    ("FROM busybox AS a\n", {"target": "zz"}, 400, 'target stage "zz" could not be found (did you mean a?)'),
    ("FROM busybox\n", {"squash": 1}, 400, "squash is only supported with experimental mode"),
    ("FROM busybox\n", {"platform": "foo"}, 400, '"foo": unknown operating system or architecture: invalid argument'),
    ("FROM busybox\n", {"buildargs": "xx"}, 400, "error reading build args: invalid character 'x' looking for beginning of value"),
    ("FROM busybox\n", {"version": "9"}, 400, 'invalid version "9"'),
])  # fmt: skip
def test_what_is_refused(engine, dockerfile, parameters, status, text):
    with pytest.raises(ApiError) as refused:
        build(engine, {"Dockerfile": dockerfile}, **parameters)
    said, *place = str(refused.value).split("\n")
    assert (refused.value.http_status, said) == (status, text)
    assert place[:1] in ([], ["Dockerfile:2"])


@pytest.mark.parametrize("dockerfile, error", [
    ("FROM busybox\nRUN echo x; exit 3\n", "The command '/bin/sh -c echo x; exit 3' returned a non-zero code: 3"),
    ("FROM busybox\nCOPY fil /\n", "COPY failed: file not found in build context or excluded by .dockerignore: stat fil: file does not exist (did you mean file?)"),
    ("FROM busybox\nCOPY secret /\n", "COPY failed: file not found in build context or excluded by .dockerignore: stat secret: file does not exist (the ignore file excludes it)"),
    ("FROM busybox\nCOPY loop/x /\n", "too many levels of symbolic links"),
    ("FROM busybox\nCOPY file /etc\nCOPY file /bin/sh/x\n", "cannot make a folder below /bin/sh: it is not a directory"),
    ("FROM busybox\nCOPY --chown=nobody-here file /\n", "unable to find user nobody-here: no matching entries in passwd file"),
    ("FROM busybox\nRUN --mount=type=secret,id=x,required true\n", "secret x: not found"),
])  # fmt: skip
def test_failures_name_the_step_and_leave_the_cache(engine, dockerfile, error):
    files = {"Dockerfile": dockerfile, "file": "f", "secret": "s", "loop": Link("loop"), ".dockerignore": "secret\n", "e": FOLDER}
    built = build(engine, files)
    assert error in built.error
    assert "Step 2/" in built.text
    assert build(engine, {**files, "Dockerfile": "FROM busybox\nRUN true\n"}).image


def test_contexts_in_any_compression(engine, tmp_path):
    plain = context({"Dockerfile": "FROM busybox\nCOPY a /\n", "a": "a"})
    first = build(engine, plain).image
    for program in ("gzip", "bzip2", "xz", "zstd"):
        packed = subprocess.run([need(program), "-c"], input=plain, capture_output=True, check=True).stdout
        assert build(engine, packed).image == first


def test_the_docker_cli(engine, docker_cli, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /app\nRUN ls /app\n")
    (tmp_path / ".dockerignore").write_text("*.log\n")
    (tmp_path / "kept").write_text("k")
    (tmp_path / "left.log").write_text("l")
    environment = engine.environment | {"DOCKER_BUILDKIT": "0"}
    done = subprocess.run([docker_cli, "build", "-t", "cli:1", "--iidfile", str(tmp_path / "iid"), str(tmp_path)], env=environment, capture_output=True, text=True, check=True)
    assert "Successfully tagged cli:1" in done.stdout
    assert (tmp_path / "iid").read_text() == engine.client.get("/images/cli:1/json")["Id"]
    made = tree(engine, "cli:1")
    assert "app/kept" in made
    assert "app/left.log" not in made
    quiet = subprocess.run([docker_cli, "build", "-q", "-"], env=environment, input="FROM busybox\nENV A=1\n", capture_output=True, text=True, check=True)
    assert quiet.stdout.startswith("sha256:")
    failed = subprocess.run([docker_cli, "build", "-"], env=environment, input="FROM busybox\nRUN exit 9\n", capture_output=True, text=True, check=False)
    assert failed.returncode == 9
    assert "returned a non-zero code: 9" in failed.stderr
    hosts = ["--add-host", "db:10.1.2.3", "--add-host", "web:10.1.2.4"]
    added = subprocess.run([docker_cli, "build", *hosts, "-"], env=environment, input="FROM busybox\nRUN cat /etc/hosts\n", capture_output=True, text=True, check=True)
    assert "10.1.2.3\tdb\n10.1.2.4\tweb\n" in added.stdout
    pruned = subprocess.run([docker_cli, "builder", "prune", "-af"], env=environment, capture_output=True, text=True, check=True)
    assert "Total reclaimed space" in pruned.stdout


def test_docker_py(engine):
    client = docker.DockerClient(base_url=f"unix://{engine.socket}", version="auto", timeout=60)
    try:
        script = io.BytesIO(b"FROM busybox\nENV FOO=bar\nRUN touch baz\nRUN touch bax\n")
        image, log = client.images.build(fileobj=script, tag="py:1")
        assert image.tags == ["py:1"]
        assert any("Successfully built" in line.get("stream", "") for line in log)
        again = client.api.build(fileobj=io.BytesIO(script.getvalue()), tag="py:2", cache_from=["py:1"], decode=True)
        assert sum("Using cache" in line.get("stream", "") for line in again) == 3
        with pytest.raises(docker.errors.BuildError, match="returned a non-zero code: 1"):
            client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN false\n"))
        assert client.api.prune_builds()["SpaceReclaimed"] >= 0
    finally:
        client.close()


def test_pushed_layers_are_made_when_they_are_needed(engine, registry):
    image = build(engine, {"Dockerfile": "FROM busybox\nCOPY a /a\n", "a": "a" * 1000}, t=f"{registry}/built:1").image
    list(engine.client.messages(f"/images/{registry}/built/push", tag="1"))
    engine.client.delete(f"/images/{registry}/built:1", force=1)
    engine.client.post("/build/prune", all=1)
    list(engine.client.messages("/images/create", fromImage=f"{registry}/built", tag="1"))
    assert engine.client.get(f"/images/{registry}/built:1/json")["Id"] == image
