"""What is in a container: changes, and images made of it."""

from __future__ import annotations

from tests.conformance.ask import RUN, Request, created

CASES: dict[str, list[Request]] = {
    "changes": created({"Image": "busybox", "Cmd": ["touch", "/new"]}, ("GET", "/containers/conf-box/changes", None), ("POST", "/containers/conf-box/start", None),
                       ("POST", "/containers/conf-box/wait", None), ("GET", "/containers/conf-box/changes", None)),
    "contents refused": [("GET", "/containers/zz/changes", None), ("GET", "/containers/zz/export", None), ("HEAD", "/containers/zz/archive?path=/", None)],
    "archive": created(RUN, ("POST", "/containers/conf-box/start", None), ("GET", "/containers/conf-box/archive?path=/etc/passwd/", None),
                       ("GET", "/containers/conf-box/archive?path=/proc/version", None), ("GET", "/containers/conf-box/archive?path=/dev/null", None),
                       ("HEAD", "/containers/conf-box/archive?path=/bin/.", None), ("PUT", "/containers/conf-box/archive?path=/etc/passwd", None),
                       ("PUT", "/containers/conf-box/archive?path=/nosuch", None), ("PUT", "/containers/conf-box/archive?path=/etc", None),
                       ("PUT", "/containers/conf-box/archive", None)),
    "commit": created({"Image": "busybox", "Cmd": ["true"]}, ("POST", "/commit?container=conf-box&repo=conf-commit&tag=1&comment=c&author=a&changes=ENV+A%3Db", None),
                      ("GET", "/images/conf-commit:1/json", None), ("GET", "/images/conf-commit:1/history", None), ("DELETE", "/images/conf-commit:1", None)),
    "commit refused": created(
        {"Image": "busybox", "Cmd": ["true"]}, ("POST", "/commit?container=zz", None), ("POST", "/commit", None), ("POST", "/commit?container=conf-box&repo=BAD", None),
        ("POST", "/commit?container=conf-box&repo=conf-commit&tag=b@d", None), ("POST", "/commit?container=conf-box&changes=RUN+x", None),
        ("POST", "/commit?container=conf-box&changes=EXPOSE+x", None), ("POST", "/commit?container=conf-box&changes=HEALTHCHECK", None),
    ),
    "import refused": [("POST", "/images/create?fromSrc=-&changes=RUN+x", None), ("POST", "/images/create?fromSrc=-&platform=windows/amd64", None),
                       ("POST", "/images/create?fromSrc=-&platform=a/b/c/d", None), ("POST", "/images/create?fromSrc=-&repo=BAD", None)],
}  # fmt: skip
