"""Cases of the language: instructions, expansion, arguments, stages, flags, build checks, and what is refused."""

from __future__ import annotations

from functools import partial

from tests.builds import FOLDER
from tests.conformance.corpus import case

CONTEXT: case.Entries = {
    "a.txt": "a\n", "b.txt": "b\n", "dir": FOLDER, "dir/c.txt": "c\n", "dir/sub": FOLDER, "dir/sub/d.py": "d\n", "dir/sub/e.txt": "e\n", "run.sh": "#!/bin/sh\necho run\n",
    ".dockerignore": "*.log\nhidden\n", "x.log": "x\n", "hidden": FOLDER, "hidden/y": "y\n",
}  # fmt: skip
Case = partial(case.Case, context=CONTEXT)

B = "FROM busybox\n"

CASES: dict[str, case.Case] = {
    "env": Case(B + "ENV a=1 b='x y' c=$a\nENV d=$a:${b} e=\"q\\\"q\" f=\\$a\nENV legacy  some value \nENV a=2"),
    "expansion": Case(
        B + "ENV p=/x/y.tar.gz n=\nENV a=${p#*/} b=${p##*/} c=${p%.*} d=${p%%.*} e=${p/x/z} f=${p//\\//:} g=${no:-w} h=${n:-w} i=${n-w} j=${p:+set} k=${n+set} l=${n:+set}"
    ),
    "escape": Case('# escape=`\nFROM busybox\nENV a=c:\\x b=`$a\nRUN echo a `\n  && echo b\nLABEL a="x`"y"'),
    "label": Case(B + 'LABEL a=1 "b c"="d e" multi="one \\\n two"\nLABEL a=2\nLABEL legacy v w\nLABEL x.y-z=$PATH'),
    "cmd_shell": Case(B + "CMD echo $HOME"),
    "cmd_exec": Case(B + 'CMD ["echo", "a \\"b\\"", "$HOME", "é"]'),
    "cmd_empty": Case(B + "CMD []"),
    "entrypoint": Case(B + 'CMD ["x"]\nENTRYPOINT ["/bin/a", "b"]'),
    "entrypoint_resets": Case('FROM busybox AS one\nCMD ["x"]\nFROM one\nENTRYPOINT run it'),
    "entrypoint_empty": Case(B + "ENTRYPOINT []"),
    "shell": Case(B + 'SHELL ["/bin/busybox", "sh", "-e", "-c"]\nRUN echo a\nCMD b\nENTRYPOINT c\nHEALTHCHECK CMD d'),
    "healthcheck": Case(B + "HEALTHCHECK --interval=90s --timeout=1h --start-period=1500ms --start-interval=2s --retries=4 CMD curl -f localhost"),
    "healthcheck_exec": Case(B + 'HEALTHCHECK CMD ["a", "b c"]'),
    "healthcheck_none": Case(B + "HEALTHCHECK NONE"),
    "expose": Case(B + "ARG p='90 91/udp'\nEXPOSE 80 443/tcp 1000-1002 $p"),
    "expose_odd": Case(B + "EXPOSE 80/TCP 127.0.0.1:81:82 83:84"),
    "volume": Case(B + 'ENV v=/v\nVOLUME /a $v\nVOLUME ["/b c", "/d"]'),
    "user": Case(B + "ARG u=1000\nUSER $u:100\nWORKDIR /w"),
    "workdir": Case(B + "WORKDIR rel\nWORKDIR /a/../b/\nENV d=c\nWORKDIR $d//e\nWORKDIR /"),
    "stopsignal": Case(B + "STOPSIGNAL RTMIN+3"),
    "maintainer": Case(B + "MAINTAINER Some One <one@example>"),
    "onbuild": Case("FROM busybox AS base\nONBUILD ENV t=1\nONBUILD RUN echo $t\nONBUILD COPY a.txt /on\nFROM base\nENV u=2"),
    "onbuild_kept": Case(B + 'ONBUILD RUN ["a", "b"]\nONBUILD COPY <<E /x\nhi\nE'),
    "arg": Case("ARG g=1\nARG h=${g}2\nFROM busybox\nARG g\nARG h\nARG a=x b c=$a$g\nRUN echo $a\nENV a=y\nRUN echo $a", arguments={"b": "given", "g": "7"}),
    "arg_inherited": Case("FROM busybox AS one\nARG a=1\nRUN echo $a\nFROM one\nARG z=2\nRUN echo $a"),
    "arg_after_env": Case(B + "ENV a=1\nARG a=2\nRUN echo $a"),
    "arg_platform": Case(B + "ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDARCH\nRUN echo $TARGETPLATFORM"),
    "arg_proxy": Case(B + "RUN echo $HTTP_PROXY\nARG no_proxy\nRUN echo $no_proxy", arguments={"HTTP_PROXY": "http://p", "no_proxy": "n"}),
    "run_exec": Case(B + 'RUN ["/bin/echo", "a  b", "$HOME"]'),
    "run_heredoc": Case(B + "RUN <<EOF\necho 1\n\n# kept\necho 2\nEOF\nRUN <<-'X' cat\n\tone\n\tX\nRUN <<S\n#!/bin/sh\necho s\nS\nRUN cat <<A - <<B >/ab\n1\nA\n2\nB"),
    "run_mounts": Case(
        B + "WORKDIR /w\nRUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t,size=1m --mount=target=ctx --mount=type=secret,id=s --mount=type=bind,source=dir,target=/d,rw ls ctx"
    ),
    "run_network": Case(B + "RUN --network=none true\nRUN --network=default true"),
    "copy": Case(B + "WORKDIR /w\nCOPY a.txt b.txt ./\nCOPY dir /dir\nCOPY dir/*.txt nothing* sub/\nCOPY . /all/"),
    "copy_flags": Case(B + "ARG u=7\nCOPY --chown=$u:8 --chmod=640 a.txt /a\nCOPY --link --exclude=*.py dir /d\nCOPY --chmod=u+x a.txt /x"),
    "copy_heredoc": Case(B + "ENV v=1\nCOPY <<A <<'B' /d/\n$v \"q\"\nA\n$v\nB\nCOPY --chmod=755 <<-S /s.sh\n\t#!/bin/sh\n\tS"),
    "copy_from": Case("FROM busybox AS one\nRUN echo 1 >/one\nFROM busybox AS two\nRUN echo 2 >/two\nFROM scratch\nCOPY --from=one /one /\nCOPY --from=1 /two /2\nCOPY --from=busybox /etc/passwd /p"),
    "add": Case(B + "ADD a.txt dir /add/\nADD --chmod=600 --chown=1:1 b.txt /b\nADD <<T /t\nx\nT"),
    "scratch": Case('FROM scratch\nCOPY a.txt /\nCMD ["/a"]'),
    "scratch_only_config": Case("FROM scratch\nLABEL a=b"),
    "target": Case("FROM busybox AS One\nENV a=1\nFROM nosuch AS two\nRUN false", target="one"),
    "continuations": Case(B + "RUN echo a && \\\n    # a comment\n    echo b && \\\n\n    echo c\nENV a=1 \\\n    b=2\n"),
    "crlf_and_bom": Case("\ufeffFROM busybox\r\nRUN echo a \\\r\n  b\r\nENV x=y\r\n"),
    "lower_case": Case('from busybox as x\nrun echo a\nenv a=b\ncmd ["a"]'),
    "checks_names": Case("FROM busybox AS Upper\nFROM busybox as mixed\nFROM busybox AS scratch\nFROM busybox AS mixed\nRun true\nCMD a\nCMD b\nENTRYPOINT c"),
    "checks_vars": Case("# check=experimental=CopyIgnoredFile\nARG tag=1\nFROM busybox AS b\nARG API_KEY\nENV DB_PASSWORD=x PUBLIC_KEY=y\nENV k $PAHT$nothing\nLABEL l v\nWORKDIR w\nCOPY hidden/y x.log /\nADD hidden/y /z"),
    "checks_from": Case("ARG base\nARG i=\nFROM ${base:-busybox} AS one\nFROM --platform=linux/amd64 busybox AS two\nFROM --platform=$TARGETPLATFORM busybox AS three\nFROM ${i}busybox$nosuch"),
    "checks_skip": Case("# check=skip=JSONArgsRecommended,StageNameCasing\nFROM busybox AS B\nCMD a\nMAINTAINER m"),
    "checks_error": Case("# check=error=true\nFROM busybox\nCMD a"),
    "checks_descriptions": Case("# check=experimental=all\n# wrong comment\nFROM busybox AS it\n# also wrong\nARG a b\n# a is good\nARG a\n#\n\nARG c"),
    "epoch": Case(B + "RUN true", arguments={"SOURCE_DATE_EPOCH": "1000"}),
    # refused
    "bad_instruction": Case(B + "RUNN x"),
    "bad_flag": Case(B + "COPY --form=x a b"),
    "bad_mount_key": Case(B + "RUN --mount=type=cache,tagret=/x true"),
    "bad_mount_type": Case(B + "RUN --mount=type=cach,target=/x true"),
    "bad_mount_target": Case(B + "RUN --mount=type=tmpfs true"),
    "bad_json": Case(B + "CMD [1]"),
    "bad_heredoc": Case(B + "RUN <<EOF\nx"),
    "bad_env": Case(B + "ENV a"),
    "bad_pair": Case(B + "ENV a=b c"),
    "bad_expansion": Case(B + "ENV a=${b"),
    "bad_demand": Case(B + "USER ${u:?must be given}"),
    "bad_port": Case(B + "EXPOSE 99999"),
    "bad_protocol": Case(B + "EXPOSE 80/http"),
    "bad_signal": Case(B + "STOPSIGNAL SIGNONE"),
    "bad_chmod": Case(B + "COPY --chmod=99999 a.txt /"),
    "bad_symbolic_chmod": Case(B + "COPY --chmod=u?x a.txt /"),
    "bad_stage_index": Case(B + "COPY --from=3 a /"),
    "bad_stage_order": Case("FROM busybox AS one\nCOPY --from=two /x /\nFROM busybox AS two\nFROM one"),
    "bad_circle": Case("FROM busybox AS one\nCOPY --from=one /x /"),
    "bad_from_variable": Case(B + "COPY --from=$x a /"),
    "bad_checksum": Case(B + "ADD --checksum=sha256:abc a.txt /"),
    "bad_url_for_copy": Case(B + "COPY https://x.invalid/y /"),
    "bad_interval": Case(B + "HEALTHCHECK --interval=x CMD a"),
    "bad_shell": Case(B + "SHELL bash"),
    "bad_order": Case("RUN x\nFROM busybox"),
    "bad_blank_base": Case("FROM $none"),
    "bad_reference": Case("FROM Busybox"),
    "bad_target": Case("FROM busybox AS one", target="oen"),
    "bad_secret": Case(B + "RUN --mount=type=secret,id=a,required true"),
    "bad_trigger": Case("FROM busybox AS a\nONBUILD FROM x\nFROM a"),
    "bad_missing_source": Case(B + "COPY b.tx /"),
    "bad_exit": Case(B + "RUN exit 3"),
    "empty": Case("# nothing\n"),
    "no_stage": Case("ARG a=1\n"),
}
