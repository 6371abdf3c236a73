"""Every query parameter of the image and distribution endpoints that the other cases have not: read, honoured, or refused with Docker's words."""

from __future__ import annotations

from tests.conformance.ask import Request
from tests.conformance.cases.image_rules import AMD, OTHER, made

_BUSYBOX = '{"reference":["busybox:latest"]}'
_TAG2: Request = ("POST", "/images/conf-img:1/tag?repo=conf-img&tag=2", None)
LONG, UPPER = "0" * 65, "A" * 64


def _list(query: str) -> Request:
    return ("GET", f"/images/json?{query}", None)


CASES: dict[str, list[Request]] = {
    "image list": made(
        _list(f"filters={_BUSYBOX}&all=1"), _list(f"filters={_BUSYBOX}&shared-size=1"), _list(f"filters={_BUSYBOX}&digests=1"), _list(f"filters={_BUSYBOX}&manifests=1"),
        _list(f"filters={_BUSYBOX}&identity=1"), _list('filters={"reference":["conf-*:1","nosuch"]}'), _list('filters={"reference":["conf-img"],"dangling":["false"]}'),
        _list('filters={"dangling":["true"],"reference":["conf-img"]}'), _list('filters={"label":["nosuch"]}'),
        _list('filters={"before":["conf-img:1"],"reference":["busybox"]}'), _list('filters={"since":["conf-img:1"],"reference":["conf-img"]}'),
        _list('filters={"until":["2000-01-01"]}'), _list('filters={"before":["conf-none"],"since":["conf-none"]}'), _list("all=x&shared-size=x&digests=x"),
        ("GET", "/images/json/", None), ("POST", "/images/json", None),
    ),
    "image inspect": [
        ("GET", "/images/busybox/json?manifests=1", None), ("GET", "/images/busybox/json?size=1", None), ("GET", f"/images/busybox/json?platform={AMD}", None),
        ("GET", "/images/busybox:nosuch/json", None), ("GET", f"/images/busybox@sha256:{'0' * 64}/json", None), ("GET", f"/images/busybox@sha256:{LONG}/json", None),
        ("GET", f"/images/busybox@sha256:{UPPER}/json", None), ("GET", f"/images/busybox@md5:{'0' * 32}/json", None), ("GET", "/images/sha256:zz/json", None), ("GET", "/images/a//b/json", None),
    ],
    "image history": made(("GET", "/images/conf-img:1/history", None), ("GET", f"/images/conf-img:1/history?platform={AMD}", None), ("GET", "/images/conf-img/history", None)),
    "image tag": made(
        _TAG2, _TAG2, ("POST", "/images/{ID}/tag?repo=conf-other&tag=1", None), ("POST", "/images/conf-img:1/tag?repo=conf-other:1", None),
        ("POST", "/images/conf-img:1/tag?repo=conf-other:1&tag=2", None), ("DELETE", "/images/conf-other:2", None), ("POST", "/images/conf-img:1/tag?repo=conf-img&tag=" + "t" * 129, None),
        ("POST", "/images/conf-img:1/tag?repo=" + "r" * 256, None), ("POST", "/images/conf-img:1/tag?repo=conf-img&tag=-x", None),
        ("POST", "/images/conf-img:1/tag?repo=conf-img&force=1&tag=2", None), ("POST", "/images/conf-img:1/tag?tag=2", None), ("POST", "/images/busybox:nosuch/tag?repo=conf-img", None),
    ),
    "image remove": made(
        ("DELETE", "/images/conf-img:nosuch", None), ("DELETE", "/images/conf-img", None), ("DELETE", "/images/conf-img:1?force=x&noprune=x", None),
    ),
    "image pulls refused": [
        ("POST", "/images/create?fromImage=conf-x:1&tag=b:d", None), ("POST", f"/images/create?fromImage=conf-x&tag=sha256:{LONG}", None),
        ("POST", f"/images/create?fromImage=conf-x@sha256:{UPPER}", None), ("POST", f"/images/create?fromImage=conf-x@md5:{'0' * 32}", None),
        ("POST", "/images/create?fromImage=127.0.0.1:1/x", None), ("POST", "/images/create?fromImage=127.0.0.1:1/x&tag=1", None), ("POST", "/images/create?fromImage=127.0.0.1:1/x:", None),
        ("POST", "/images/create?fromImage=127.0.0.1:1/x&platform=linux", None), ("POST", "/images/create?fromImage=127.0.0.1:1/x&platform=l!nux", None),
        ("POST", "/images/create?fromImage=127.0.0.1:1/x&platform=windows/amd64", None), ("POST", "/images/create?fromImage=-", None),
    ],
    "image imports refused": [
        ("POST", "/images/create", None), ("POST", "/images/create?fromSrc=http://127.0.0.1:1/x", None), ("POST", "/images/create?fromSrc=127.0.0.1:1/x", None),
        ("POST", "/images/create?fromSrc=-&repo=BAD", None), ("POST", "/images/create?fromSrc=-&repo=conf-img&tag=b@d", None), ("POST", "/images/create?fromSrc=-&platform=windows/amd64", None),
        ("POST", "/images/create?fromSrc=-&platform=a/b/c/d", None), ("POST", "/images/create?fromSrc=-&changes=FROM%20x", None), ("POST", "/images/create?fromSrc=-&changes=NOSUCH%20x", None),
        ("POST", "/images/create?fromSrc=-&changes=ENV", None), ("POST", f"/images/create?fromSrc=-&repo=conf-img@sha256:{'0' * 64}", None), ("POST", "/images/create?fromSrc=ftp://127.0.0.1:1/x", None),
    ],
    "image pushes refused": made(
        ("POST", "/images/conf-img:1/push", None), ("POST", f"/images/conf-img@sha256:{'0' * 64}/push", None), ("POST", "/images/conf-none/push", None), ("POST", "/images/conf-img/push?tag=nosuch", None),
        ("POST", "/images/conf-img/push?tag=b@d", None), ("POST", f"/images/conf-img/push?tag=1&platform={OTHER}", None), ("POST", '/images/conf-img/push?tag=1&platform={"os":"linux"}', None),
    ),
    "image archives refused": [
        ("POST", "/images/load", None), ("POST", "/images/load?quiet=1", {}), ("POST", "/images/load?quiet=0", []), ("POST", f"/images/load?platform={AMD}&platform={OTHER}", {}),
        ("GET", "/images/get", None), ("GET", "/images/get?names=busybox&names=conf-none", None), ("GET", "/images/get?names=", None), ("GET", "/images/busybox:nosuch/get", None),
        ("GET", f"/images/get?names=busybox&platform={OTHER}", None), ("GET", f"/images/get?names=busybox&platform={AMD}&platform={OTHER}", None),
    ],
    "commits refused": [
        ("POST", "/containers/create?name=conf-box", {"Image": "busybox"}), ("POST", "/commit", None), ("POST", "/commit?container=conf-none", None), ("POST", "/commit?container=conf-box&repo=BAD", None),
        ("POST", "/commit?container=conf-box&repo=conf-img&tag=b@d", None), ("POST", "/commit?container=conf-box&changes=FROM%20x", None), ("POST", "/commit?container=conf-box&changes=ENV", None),
        ("POST", "/commit?container=conf-box&changes=NOSUCH%20x", None), ("POST", "/commit?container=conf-box", []), ("POST", "/commit?container=conf-box&changes=EXPOSE%20x", None),
        ("POST", '/commit?container=conf-box&repo=conf-img&tag=1&comment=c&author=a&pause=0&changes=ENV%20A=b&changes=CMD%20["x"]', {"Env": ["C=d"], "Labels": {"l": "v"}}),
        ("GET", "/images/conf-img:1/json", None), ("GET", "/images/conf-img:1/history", None), ("DELETE", "/containers/conf-box", None), ("DELETE", "/images/conf-img:1", None),
    ],
    "distribution": [
        ("GET", "/distribution/BAD/json", None), ("GET", "/distribution/127.0.0.1:1/x/json", None), ("GET", "/distribution/127.0.0.1:1/x:1/json", None),
        ("GET", f"/distribution/conf-x@sha256:{LONG}/json", None), ("GET", "/distribution/conf-x:b@d/json", None), ("GET", f"/distribution/{'0' * 64}/json", None), ("GET", "/distribution/json", None),
    ],
    "image prune refused": [
        ("POST", '/images/prune?filters={"foo":["x"]}', None), ("POST", '/images/prune?filters={"dangling":["x"]}', None), ("POST", "/images/prune?filters=x", None),
        ("POST", '/images/prune?filters={"label":["conf-nosuch"]}', None), ("POST", '/images/prune?filters={"label!":["conf-nosuch"],"until":["2000-01-01"]}', None),
    ],
}  # fmt: skip
