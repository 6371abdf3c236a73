"""What may be removed, by name, by id, by force; what platforms, tags and filters are refused. Each case makes its own image conf-img:1."""

from __future__ import annotations

from tests.conformance.ask import Request

_BOX = ("POST", "/containers/create?name=conf-box", {"Image": "busybox", "Cmd": ["sleep", "600"]})
_GONE = [("DELETE", "/containers/conf-box?force=1", None), ("DELETE", "/images/conf-img:1?force=1", None), ("DELETE", "/images/conf-img:2?force=1", None),
         ("DELETE", "/images/conf-other:1?force=1", None)]  # fmt: skip
_USER = ("POST", "/containers/create?name=conf-user", {"Image": "conf-img:1", "Cmd": ["sleep", "600"]})
_NO_USER = ("DELETE", "/containers/conf-user?force=1", None)
_LOOK = ("GET", "/images/conf-img:1/json", None)
AMD = '{"os":"linux","architecture":"amd64"}'
OTHER = '{"os":"linux","architecture":"s390x"}'


def made(*requests: Request) -> list[Request]:
    """The requests around an image of its own, whose id the first of them may use."""
    return [_BOX, ("POST", "/commit?container=conf-box&repo=conf-img&tag=1", None), _LOOK, *requests, *_GONE]


CASES: dict[str, list[Request]] = {
    "one name": made(("DELETE", "/images/conf-img:1", None), _LOOK),
    "two tags by name": made(("POST", "/images/conf-img:1/tag?repo=conf-img&tag=2", None), ("DELETE", "/images/conf-img:1", None), ("DELETE", "/images/conf-img:2", None)),
    "two tags by id": made(("POST", "/images/conf-img:1/tag?repo=conf-img&tag=2", None), ("DELETE", "/images/{ID}", None), ("DELETE", "/images/{ID}?force=1", None),
                           ("GET", "/images/{ID}/json", None)),
    "two repositories by id": made(("POST", "/images/conf-img:1/tag?repo=conf-other&tag=1", None), ("DELETE", "/images/{ID}", None), ("DELETE", "/images/{ID}?force=1", None)),
    "one name by id": made(("DELETE", "/images/{ID}", None), _LOOK),
    "stopped user by name": made(_USER, _LOOK, ("DELETE", "/images/conf-img:1", None), ("DELETE", "/images/conf-img:1?force=1", None), ("GET", "/images/{ID}/json", None), _NO_USER),
    "stopped user by id": made(_USER, _LOOK, ("DELETE", "/images/{ID}", None), ("DELETE", "/images/{ID}?force=1", None), ("GET", "/images/{ID}/json", None),
                               ("GET", "/containers/conf-user/json", None), ("POST", "/containers/conf-user/start", None), _NO_USER),
    "running user": made(_USER, ("POST", "/containers/conf-user/start", None), _LOOK, ("DELETE", "/images/conf-img:1", None), ("DELETE", "/images/{ID}", None),
                         ("DELETE", "/images/{ID}?force=1", None), ("DELETE", "/images/conf-img:1?force=1", None), ("GET", "/images/{ID}/json", None), _NO_USER,
                         ("DELETE", "/images/{ID}", None)),
    "user of one of two tags": made(("POST", "/images/conf-img:1/tag?repo=conf-img&tag=2", None), _USER, ("DELETE", "/images/conf-img:1", None), ("DELETE", "/images/conf-img:2", None),
                                    _NO_USER),
    "children": made(_USER, ("POST", "/commit?container=conf-user&repo=conf-other&tag=1", None), _NO_USER, _LOOK, ("DELETE", "/images/{ID}", None), ("DELETE", "/images/{ID}?force=1", None),
                     ("DELETE", "/images/conf-img:1", None), ("GET", "/images/{ID}/json", None), ("DELETE", "/images/conf-other:1", None), ("GET", "/images/{ID}/json", None)),
    "children without prune": made(_USER, ("POST", "/commit?container=conf-user&repo=conf-other&tag=1", None), _NO_USER, _LOOK, ("DELETE", "/images/conf-img:1", None),
                                   ("DELETE", "/images/conf-other:1?noprune=1", None), ("GET", "/images/{ID}/json", None), ("DELETE", "/images/{ID}", None)),
    "removals refused": [("DELETE", "/images/conf-none", None), ("DELETE", "/images/conf-none:1?force=1", None), ("DELETE", "/images/BAD", None), ("DELETE", "/images/%20", None),
                         ("DELETE", f"/images/sha256:{'0' * 64}", None), ("DELETE", f"/images/{'0' * 12}", None)],
    "platforms": made(("GET", f"/images/conf-img:1/json?platform={AMD}", None), ("GET", f"/images/conf-img:1/json?platform={OTHER}", None),
                      ("GET", f"/images/conf-img:1/json?platform={AMD}&manifests=1", None), ("GET", "/images/conf-img:1/json?platform=x", None),
                      ("GET", '/images/conf-img:1/json?platform={"os":"linux"}', None), ("GET", f"/images/conf-img:1/history?platform={OTHER}", None),
                      ("GET", "/images/conf-img:1/history?platform=x", None), ("GET", f"/images/conf-img:1/get?platform={OTHER}", None),
                      ("GET", "/images/conf-img:1/get?platform=x", None), ("POST", "/images/load?platform=x", None), ("POST", "/images/conf-img/push?tag=1&platform=x", None),
                      ("DELETE", f"/images/conf-img:1?platforms={OTHER}", None), ("DELETE", f"/images/conf-img:1?platforms={AMD}&platforms={OTHER}", None),
                      ("DELETE", f"/images/conf-img:1?platforms={OTHER}&force=1", None), ("DELETE", "/images/conf-img:1?platforms=x&force=1", None)),
    "tags refused": [("POST", "/images/busybox/tag", None), ("POST", "/images/busybox/tag?repo=sha256&tag=1", None), ("POST", "/images/busybox/tag?repo=conf-x&tag=b@d", None),
                     ("POST", f"/images/busybox/tag?repo=conf-x@sha256:{'0' * 64}", None), ("POST", "/images/conf-none/tag?repo=conf-x", None),
                     ("POST", f"/images/busybox/tag?repo={'0' * 64}", None)],
    "image list refused": [("GET", '/images/json?filters={"foo":["x"]}', None), ("GET", '/images/json?filters={"dangling":["x"]}', None), ("GET", '/images/json?filters={"before":["conf-none"]}', None),
                           ("GET", '/images/json?filters={"since":["conf-none"]}', None), ("GET", '/images/json?filters={"reference":["["]}', None), ("GET", "/images/json?filters=x", None)],
    "images missing": [("GET", "/images/conf-none/json", None), ("GET", "/images/conf-none/history", None), ("GET", "/images/conf-none/get", None), ("GET", "/images/get?names=conf-none:1", None),
                       ("GET", "/images/BAD/json", None), ("GET", "/images/BAD/history", None), ("GET", "/images/BAD/get", None), ("POST", "/images/conf-none/push?tag=1", None),
                       ("POST", "/images/BAD/push?tag=1", None), ("POST", "/images/create?fromImage=scratch", None), ("POST", "/images/create?fromImage=conf-x&tag=b@d", None),
                       ("POST", "/images/create?fromImage=conf-x&platform=a/b/c/d", None)],
}  # fmt: skip
