"""Running the hooks of a bundle. Source: OCI runtime-spec config.md "POSIX-platform Hooks"."""

from __future__ import annotations

import msgspec

from corten.errors import CortenError
from corten.spec.runtime import Hook


class HookFailed(CortenError):
    template = "{kind} hook {path}: {reason}"


def run_hooks(kind: str, hooks: list[Hook] | None, state: dict[str, object]) -> None:
    """Run them in order with the state on their standard input. Raises HookFailed for the first that fails."""
    if not hooks:
        return
    import subprocess  # most bundles have no hooks

    for hook in hooks:
        environment = dict(entry.partition("=")[::2] for entry in hook.env or [])
        try:
            done = subprocess.run(
                hook.args or [hook.path], executable=hook.path, env=environment, input=msgspec.json.encode(state),
                timeout=hook.timeout, capture_output=True, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HookFailed(kind=kind, path=hook.path, reason=str(error)) from None
        if done.returncode:
            text = done.stderr.decode("utf-8", "replace").strip() or f"exit status {done.returncode}"
            raise HookFailed(kind=kind, path=hook.path, reason=text)
