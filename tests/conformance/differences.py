"""Where Corten's answers differ from Docker's, and why. A row that no longer differs fails the test: the table stays true."""

from __future__ import annotations

# (case, request, path or "message" or "status") -> reason
DIFFERENCES: dict[tuple[str, str, str], str] = {
    ("bad binds", "POST /containers/create", "status"): "Docker answers 500 to a bad -v; its API document says 400, and so it is for a bad --mount",
    ("running", "POST /containers/conf-box/stop?t=x", "status"): "bad input is 400; Docker's 500 says that the engine is at fault",
    ("versions", "GET /info", "$.Containerd"): "there is no containerd behind Corten",
    ("versions", "GET /info", "$.Runtimes.runc"): "the default runtime is Corten's own, under the name corten",
    ("versions", "GET /info", "$.Runtimes.io.containerd.runc.v2"): "there is no containerd shim",
}
