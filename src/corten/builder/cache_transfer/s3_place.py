"""A cache in a bucket: objects `<prefix>blobs/sha256/<hex>` and `<prefix>manifests/<name>`. Foreign errors are translated here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from corten.errors import CortenError, Forbidden, Invalid, NotFound
from corten.registry.progress import Emit, Progress
from corten.spec.build_cache import S3Bucket
from corten.spec.digest import encoded
from corten.spec.image import Descriptor

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CHUNK = 1 << 20
_RETRIES: Any = {"max_retries": 4}


class NoSuchObject(NotFound):
    template = "the bucket {bucket} has no {key}"


class BucketRefused(CortenError):
    template = "the bucket {bucket}: {reason}"


class S3Place:
    """`store` is obstore's; any of its kinds serves."""

    def __init__(self, bucket: S3Bucket, store: ObjectStore, emit: Emit) -> None:
        self._bucket, self._store, self._emit = bucket, store, emit

    async def manifest(self) -> bytes:
        with self._translating(self._manifest_key):
            result = await self._store.get_async(self._manifest_key)
            return bytes(await result.bytes_async())

    async def read(self, blob: Descriptor) -> AsyncIterator[bytes]:
        key = self._blob_key(blob.digest)
        with self._translating(key):
            result = await self._store.get_async(key)
            async for data in result.stream(min_chunk_size=_CHUNK):
                yield bytes(data)

    async def write(self, digest: str, path: str, shown: str) -> None:
        key = self._blob_key(digest)
        with self._translating(key):
            if await self._has(key):
                return
            if shown:
                self._emit(Progress("Pushing", shown, 0, os.stat(path).st_size))
            with open(path, "rb") as file:
                await self._store.put_async(key, file)
            if shown:
                self._emit(Progress("Pushed", shown))

    async def put_manifest(self, data: bytes) -> None:
        with self._translating(self._manifest_key):
            await self._store.put_async(self._manifest_key, data)

    async def _has(self, key: str) -> bool:
        from obstore.exceptions import NotFoundError

        try:
            await self._store.head_async(key)
        except (NotFoundError, FileNotFoundError):
            return False
        return True

    @property
    def _manifest_key(self) -> str:
        return f"{self._bucket.prefix}manifests/{self._bucket.name}"

    def _blob_key(self, digest: str) -> str:
        return f"{self._bucket.prefix}blobs/sha256/{encoded(digest)}"

    @contextmanager
    def _translating(self, key: str) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError):
            raise NoSuchObject(bucket=self._bucket.bucket, key=key) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            raise Forbidden(f"the bucket {self._bucket.bucket} refuses these credentials for {key}") from None
        except (exceptions.BaseError, OSError) as error:
            raise BucketRefused(bucket=self._bucket.bucket, reason=str(error).partition("\n")[0][:300]) from None


def open_bucket(bucket: S3Bucket) -> ObjectStore:
    """Raises Invalid for settings that cannot be."""
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    settings: dict[str, Any] = {
        "region": bucket.region, "endpoint": bucket.endpoint, "access_key_id": bucket.key_id, "secret_access_key": bucket.secret, "session_token": bucket.token,
    }  # fmt: skip
    chosen = {key: value for key, value in settings.items() if value}
    options: Any = {"allow_http": True} if bucket.endpoint.startswith("http://") else {}
    try:
        return S3Store(bucket.bucket, virtual_hosted_style_request=not bucket.path_style and not bucket.endpoint, client_options=options, retry_config=_RETRIES, **chosen)
    except (BaseError, ValueError) as error:
        raise Invalid(f"the bucket {bucket.bucket}: {error}") from None
