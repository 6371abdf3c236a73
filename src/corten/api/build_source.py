"""What a build is made from: the Dockerfile in its context, the ignore file beside it, and errors that show their place in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from corten.api.build_request import BuildRequest
from corten.builder.context import Context, NoSuchFile
from corten.builder.graph import Local, Shown, Vertex
from corten.builder.options import BuildOptions
from corten.builder.parser import decode
from corten.builder.source import shown
from corten.errors import DockerfileError, Invalid
from corten.spec.ignore_file import ignore_file_names, read_patterns
from corten.spec.source_excerpt import excerpt

_LIMIT = 16 << 20  # bytes of a Dockerfile or an ignore file


class NoDockerfile(Invalid):
    template = "Cannot locate specified Dockerfile: {path}"


@dataclass(frozen=True)
class BuildSource:
    """`options` has the context as its ignore file leaves it."""

    text: str
    options: BuildOptions

    @contextmanager
    def showing(self) -> Iterator[None]:
        """An error that knows its lines is raised with them below."""
        try:
            yield
        except DockerfileError as error:
            raise shown(error, self.text, self.options.file) from None


    def place(self, step: Shown) -> str:
        """The step's lines with those around them; empty for one that stands in no file."""
        return excerpt(self.text, step.line, step.last_line, name=step.file) if step.line else ""


def read_source(request: BuildRequest, context: Context, named: Mapping[str, Vertex | str] | None = None) -> BuildSource:
    """`named` are the named contexts. Raises NoDockerfile, Invalid."""
    name = request.dockerfile
    data = _read(context, name)
    if data is None and name == "Dockerfile":
        data = _read(context, "dockerfile")
    if data is None:
        raise NoDockerfile(path=name)
    if not data.strip():
        raise Invalid(f"the Dockerfile ({name}) cannot be empty")
    ignored = next((found for path in ignore_file_names(name) if (found := _read(context, path)) is not None), b"")
    patterns = read_patterns(decode(ignored))
    return BuildSource(decode(data), replace(request.options, context=Vertex(Local(ignore=patterns)), contexts=named or {}, file=name))


def _read(context: Context, path: str) -> bytes | None:
    try:
        return context.read(path, _LIMIT)
    except NoSuchFile:
        return None
