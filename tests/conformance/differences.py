"""Where Corten's answers differ from Docker's, and why. A row that no longer differs fails the test: the table stays true."""

from __future__ import annotations

from tests.conformance.cases.versions import VERSIONS

_FAULT = "bad input is 400; Docker's 500 says that the engine is at fault"
_PREFIX = "Docker's other bodies say what is wrong with a prefix, so does this one"
_CONTAINERD = "there is no containerd behind Corten"
_SHIM = "there is no containerd shim"
_RUNTIME = "the built-in runtime has a name of its own beside Docker's `runc`"
_SEVERAL = "several platforms of one image are kept, and removed, side by side"

_FOUND_LATE = "bad input is 400; Docker finds it out late, and answers 500"
_SUBNETS = "a network may have several subnets of a family: when one is full, the next is used"
_MANIFESTS = "several platforms of one image are kept: what an image is made of is shown as Docker's containerd store shows it"
_BOTH = '{"os":"linux","architecture":"amd64"}&platform={"os":"linux","architecture":"s390x"}'

# (case, request, path or "message" or "status") -> reason
DIFFERENCES: dict[tuple[str, str, str], str] = {
    ("image prune", 'POST /images/prune?filters={"until":["x"]}', "status"): _FAULT,
    ("image prune", 'POST /images/prune?filters={"until":["1h","2h"]}', "status"): _FAULT,
    ("image prune", 'GET /images/json?filters={"until":["x"]}', "status"): _FAULT,
    ("bad binds", "POST /containers/create", "status"): "Docker answers 500 to a bad -v; its API document says 400, and so it is for a bad --mount",
    ("running", "POST /containers/conf-box/stop?t=x", "status"): _FAULT,
    ("paused", "POST /containers/conf-box/unpause", "status"): _FAULT,
    ("bad signals", "POST /containers/conf-box/stop?signal=FOO", "status"): _FAULT,
    ("bad signals", "POST /containers/conf-box/restart?signal=FOO", "status"): _FAULT,
    ("restart fails", "POST /containers/conf-box/restart", "status"): "400, as for a start that fails so",
    ("remove a link", "DELETE /containers/conf-box?link=1", "status"): _FAULT,
    **{(f"container {version}", f"POST /v{version}/containers/conf-box/stop?signal=nosuch&t=0", "status"): _FAULT
       for version in ("1.43", "1.44", "1.45", "1.47", "1.48", "1.51")},
    ("queries", "GET /containers/json?limit=x", "status"): _FAULT,
    ("credentials", "POST /auth", "status"): _FAULT,
    ("credentials", "POST /auth", "message"): _PREFIX,
    ("events", "GET /events?since=x", "status"): _FAULT,
    ("logs with odd windows", "GET /containers/conf-box/logs?stdout=1&since=x", "status"): _FAULT,
    ("logs with odd windows", "GET /containers/conf-box/logs?stdout=1&until=x", "status"): _FAULT,
    ("log refused at the start: cache size", "POST /containers/conf-box/start", "status"): "a cache that cannot be made is said, not left out",
    ("versions", "GET /info", "$.Containerd"): _CONTAINERD,
    ("versions", "GET /info", "$.Runtimes.io.containerd.runc.v2"): _SHIM,
    **{(f"info {version}", f"GET /v{version}/info", "$.Runtimes.corten"): _RUNTIME for version in VERSIONS},
    **{(f"info {version}", f"GET /v{version}/info", "$.Runtimes.io.containerd.runc.v2"): _SHIM for version in VERSIONS},
    **{(f"info {version}", f"GET /v{version}/info", "$.Containerd"): _CONTAINERD for version in ("1.47", "1.48", "1.51")},
    ("platforms", 'DELETE /images/conf-img:1?platforms={"os":"linux","architecture":"amd64"}&platforms={"os":"linux","architecture":"s390x"}', "status"): _SEVERAL,
    ("platforms", 'DELETE /images/conf-img:1?platforms={"os":"linux","architecture":"amd64"}&platforms={"os":"linux","architecture":"s390x"}', "message"): _SEVERAL,
    ("image tag", "POST /images/conf-img:1/tag?tag=2", "status"): "Docker says 200 and does nothing",
    ("image imports refused", "POST /images/create", "status"): _FAULT,
    ("image imports refused", "POST /images/create?fromSrc=ftp://127.0.0.1:1/x", "status"): _FAULT,
    ("image archives refused", "GET /images/get?names=", "status"): _FAULT,
    **{("image archives refused", f"{request}{_BOTH}", part): _SEVERAL for request in ("POST /images/load?platform=", "GET /images/get?names=busybox&platform=")
       for part in ("status", "message")},
    ("distribution", f"GET /distribution/{'0' * 64}/json", "status"): _FAULT,
    ("bridge options refused", "POST /networks/create", "status"): _FAULT,
    ("subnets", "POST /networks/create", "status"): _FOUND_LATE,
    ("other drivers", "POST /networks/create", "status"): _FAULT,
    **{("two subnets", request, part): _SUBNETS for request in ("POST /networks/create", "GET /networks/conf-net", "DELETE /networks/conf-net") for part in ("status", "message")},
    **{("named like a container", "POST /networks/create", part): "no container could ever be on a network of that name: `container:x` in NetworkMode is a container"
       for part in ("status", "$")},
    **{(f"image queries {version}", f'GET /v{version}/images/json?filters={{"reference":["busybox:latest"]}}&shared-size=1&manifests=1&digests=1', f"$[].{key}"): _MANIFESTS
       for version, keys in (("1.47", ("Manifests",)), ("1.48", ("Manifests", "Descriptor")), ("1.51", ("Manifests", "Descriptor"))) for key in keys},
    **{(f"image queries {version}", f"GET /v{version}/images/busybox/json?manifests=1", f"$.{key}"): _MANIFESTS
       for version in ("1.48", "1.51") for key in ("Manifests", "Descriptor")},
    ("tags refused", "POST /images/busybox/tag", "status"): "Docker says 200 and does nothing",
    ("image list refused", 'GET /images/json?filters={"reference":["["]}', "status"): _FAULT,
    ("images missing", "GET /images/BAD/get", "status"): _FAULT,
    ("options refused", 'GET /containers/json?filters={"publish":["1:2"]}', "status"): "bad input is 400; Docker answers 500 to a port that is none",
}  # fmt: skip
