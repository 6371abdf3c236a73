"""The plan of an edit: what differs, and what needs a new process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corten.engine.edit import LIVE, SWAP, make_plan
from corten.spec.bodies import parse_body
from corten.spec.engine import Config, EditRequest, HostConfig, LogConfig, PortBinding, RestartPolicy

CONFIG = Config(env=["A=1", "B=2"], labels={"x": "1", "y": "2"}, cmd=["run"])
HOST = HostConfig(restart_policy=RestartPolicy("no"))


def told(request: EditRequest) -> list[tuple]:
    return [(step.key, step.how, step.after) for step in make_plan(CONFIG, HOST, request).steps]


def test_what_differs_is_told_and_how_it_takes_effect():
    request = EditRequest(
        labels={"x": None, "z": "3"}, env=["B=3", "A", "C=4"], restart_policy=RestartPolicy("always"), cmd=["run"], log_config=LogConfig("local"),
        port_bindings={"80/tcp": [PortBinding("", "8080")]},
    )  # fmt: skip
    assert told(request) == [
        ("Labels", LIVE, {"y": "2", "z": "3"}),
        ("RestartPolicy", LIVE, {"Name": "always", "MaximumRetryCount": 0}),
        ("PortBindings", LIVE, {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}),
        ("Env", SWAP, ["B=3", "C=4"]),
        ("LogConfig", LIVE, {"Type": "local", "Config": {}}),
    ]
    assert make_plan(CONFIG, HOST, request).config.exposed_ports == {"80/tcp": {}}


def test_nothing_asked_or_nothing_new_is_no_step():
    assert told(EditRequest()) == []
    assert told(EditRequest(labels={"x": "1"}, env=["A=1"], cmd=["run"], binds=[], entrypoint=[])) == []
    assert not make_plan(CONFIG, HOST, EditRequest(labels={"new": ""})).needs_swap


@given(st.lists(st.sampled_from(["A=1", "A=2", "A", "B", "C=3", "C"]), max_size=6))
def test_an_edit_made_twice_changes_nothing_more(env):
    first = make_plan(CONFIG, HOST, EditRequest(env=env))
    again = make_plan(first.config, first.host, EditRequest(env=env))
    assert again.steps == ()


def test_null_takes_a_label_away_and_is_a_key_not_sent_elsewhere():
    request = parse_body(b'{"Labels":{"x":null},"Healthcheck":null,"Cmd":null}', EditRequest)
    assert told(request) == [("Labels", LIVE, {"y": "2"})]
