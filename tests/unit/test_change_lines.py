"""The instructions of commit and import: what they make of a config, and Docker 28.5's texts for what they cannot be."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corten.errors import Invalid
from corten.spec.change_lines import apply_change_lines
from corten.spec.engine import Config, Healthcheck
from corten.spec.shell_words import expand, split_words

BASE = Config(env=["PATH=/bin", "B=2"], cmd=["old"], working_dir="/w", labels={"a": "1"})


@pytest.mark.parametrize(
    ("lines", "key", "wanted"),
    [
        (["ENV C=$PATH:x"], "env", ["PATH=/bin", "B=2", "C=/bin:x"]),
        (["ENV B=3 C='$B' D=\"$B y\""], "env", ["PATH=/bin", "B=3", "C=$B", "D=2 y"]),
        (["ENV a b c"], "env", ["PATH=/bin", "B=2", "a=b c"]),
        (["ENV A=1", "ENV C=${A}${NO:-none}${A:+yes}"], "env", ["PATH=/bin", "B=2", "A=1", "C=1noneyes"]),
        (["CMD echo hi"], "cmd", ["/bin/sh", "-c", "echo hi"]),
        (['CMD ["a", "b"]'], "cmd", ["a", "b"]),
        (["CMD"], "cmd", ["/bin/sh", "-c"]),
        (["cmd \\", "  one \\", "# a comment", "  two"], "cmd", ["/bin/sh", "-c", "one   two"]),
        (['ENTRYPOINT ["e"]'], "cmd", None),
        (['CMD ["c"]', 'ENTRYPOINT ["e"]'], "cmd", ["c"]),
        (["ENTRYPOINT e"], "entrypoint", ["/bin/sh", "-c", "e"]),
        (["ENTRYPOINT"], "entrypoint", None),
        (["EXPOSE 80-82 53/udp 9:90"], "exposed_ports", {"80/tcp": {}, "81/tcp": {}, "82/tcp": {}, "53/udp": {}, "90/tcp": {}}),
        (['LABEL a="b c" d=e'], "labels", {"a": "b c", "d": "e"}),
        (["USER $B"], "user", "2"),
        (["VOLUME /a /b"], "volumes", {"/a": {}, "/b": {}}),
        (['VOLUME ["/c d"]'], "volumes", {"/c d": {}}),
        (["WORKDIR sub"], "working_dir", "/w/sub"),
        (["WORKDIR a b"], "working_dir", "/w/a b"),
        (["WORKDIR /x/../y/"], "working_dir", "/y"),
        (["STOPSIGNAL 9"], "stop_signal", "9"),
        (["ONBUILD RUN x  y"], "on_build", ["RUN x  y"]),
        (["HEALTHCHECK NONE"], "healthcheck", Healthcheck(["NONE"])),
        (["HEALTHCHECK --interval=1s --retries=3 CMD x y"], "healthcheck", Healthcheck(["CMD-SHELL", "x y"], interval=10**9, retries=3)),
        (['HEALTHCHECK CMD ["x"]'], "healthcheck", Healthcheck(["CMD", "x"])),
    ],
)
def test_what_a_line_makes(lines, key, wanted):
    assert getattr(apply_change_lines(BASE, lines), key) == wanted


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=b c", 'Syntax error - can\'t find = in "c". Must be of the form: name=value'),
        ("CMD [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK FOO", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK --foo=1 CMD x", "unknown flag: --foo"),
        ("HEALTHCHECK --interval=x CMD y", 'time: invalid duration "x"'),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("EXPOSE 80/foo", "Invalid proto: foo"),
        ("USER", "USER requires exactly one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("STOPSIGNAL FOO", "invalid signal: FOO"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("LABEL", "LABEL requires at least one argument"),
        ("# nothing", "file with no instructions"),
        ("", "file with no instructions"),
    ],
)
def test_dockers_texts(line, text):
    with pytest.raises(Invalid) as error:
        apply_change_lines(BASE, [line])
    assert error.value.message == text


@given(st.text(alphabet="AB =$'\"{}\\:-+x\n#[]", max_size=30))
@example("\\")
def test_any_text_is_a_config_or_is_refused(text):
    for word in ("ENV", "EXPOSE", "VOLUME", "HEALTHCHECK CMD", ""):
        try:
            apply_change_lines(BASE, [f"{word} {text}"])
        except Invalid as error:
            assert error.message


@given(st.lists(st.text(alphabet="ab c$'\"", max_size=6), max_size=4))
def test_quoted_words_come_back(words):
    quoted = " ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"' for word in words)
    assert [expand(word, {}) for word in split_words(quoted)] == words
