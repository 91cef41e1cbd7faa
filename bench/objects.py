"""What is asked of each server: the same objects, uploaded through mediarepo once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import botocore.session
from botocore.config import Config
from yarl import URL

from bench.load import Ask
from bench.pictures import photograph
from bench.servers import SERVER_NAME, Running
from mediarepo.embedded.seaweedfs import EmbeddedS3

KB, MB = 1_000, 1_000_000
_DOWNLOADS = {"download 10 KB": (10 * KB, 16), "download 1 MB": (MB, 8), "download 100 MB": (100 * MB, 2)}
_UPLOADS = {"upload 10 KB": (10 * KB, 16), "upload 1 MB": (MB, 8)}
_THUMBNAIL = "thumbnail, stored"
_PUT_KEYS = 256
_VALID_S = 86_400
_PREFIX = "mediarepo/"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured: what mediarepo is asked, and what nginx and S3 are asked for the same bytes."""

    name: str
    transferred_bytes: int
    ours: Ask
    direct: Ask


class Bucket:
    """The bucket as botocore sees it; only lists and signs."""

    def __init__(self, s3: EmbeddedS3) -> None:
        self._bucket = s3.bucket
        self.host = urlsplit(s3.endpoint_url).netloc
        self._client = botocore.session.Session().create_client(
            "s3",
            endpoint_url=s3.endpoint_url,
            region_name=s3.region,
            aws_access_key_id=s3.access_key_id,
            aws_secret_access_key=s3.secret_access_key,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )

    def sizes(self) -> dict[str, int]:
        """List all objects with their sizes."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=_PREFIX)
        return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", ())}

    def read(self, key: str) -> bytes:
        """Read an object."""
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body

    def signed_path(self, operation: str, key: str) -> str:
        """Sign a request in its query, so that nginx can pass it on as it is."""
        arguments: dict[str, Any] = {"Bucket": self._bucket, "Key": key}
        url = self._client.generate_presigned_url(operation, Params=arguments, ExpiresIn=_VALID_S)
        return str(url).partition(self.host)[2]


class Mediarepo:
    """The measured mediarepo, with its one application service's token."""

    def __init__(self, address: str, token: str) -> None:
        self.address = address
        self.headers = {"Host": SERVER_NAME, "Authorization": f"Bearer {token}"}

    async def upload(self, body: bytes, content_type: str) -> str:
        """Upload and give the media id."""
        headers = {**self.headers, "Content-Type": content_type}
        url = f"http://{self.address}/_matrix/media/v3/upload"
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
            answer.raise_for_status()
            uri: str = (await answer.json())["content_uri"]
        return uri.rpartition("/")[2]

    def ask(self, path: str, answer_bytes: int, connections: int) -> Ask:
        """Ask for bytes."""
        return Ask(
            address=self.address,
            paths=[path],
            headers=self.headers,
            answer_bytes=answer_bytes,
            connections=connections,
        )


async def prepare(ours: Running, token: str, bucket: Bucket) -> list[Case]:
    """Upload what is to be downloaded, find it in the bucket, and see to it that every answer is right."""
    mediarepo = Mediarepo(ours.address, token)
    cases = [await _download(mediarepo, bucket, name, *size) for name, size in _DOWNLOADS.items()]
    cases.append(await _thumbnail(mediarepo, bucket))
    return [*cases, *(_upload(mediarepo, bucket, name, *size) for name, size in _UPLOADS.items())]


async def _download(mediarepo: Mediarepo, bucket: Bucket, name: str, size_bytes: int, connections: int) -> Case:
    body = os.urandom(size_bytes)
    media_id = await mediarepo.upload(body, "application/octet-stream")
    path = f"/_matrix/client/v1/media/download/{SERVER_NAME}/{media_id}"
    (key,) = [key for key, size in bucket.sizes().items() if size == size_bytes]
    case = Case(
        name,
        size_bytes,
        ours=mediarepo.ask(path, size_bytes, connections),
        direct=_direct(bucket, [bucket.signed_path("get_object", key)], size_bytes, connections),
    )
    await _check_same(case, body)
    return case


async def _thumbnail(mediarepo: Mediarepo, bucket: Bucket) -> Case:
    before = bucket.sizes()
    media_id = await mediarepo.upload(photograph(1600, 1200), "image/jpeg")
    path = (
        f"/_matrix/client/v1/media/thumbnail/{SERVER_NAME}/{media_id}?width=320&height=240&method=scale&animated=false"
    )
    picture = await fetch(mediarepo.ask(path, 0, 1))
    for key in bucket.sizes().keys() - before.keys():
        offset = bucket.read(key).find(picture)
        if offset >= 0:
            break
    else:
        raise RuntimeError("the thumbnail is in no object")
    direct = _direct(
        bucket,
        [bucket.signed_path("get_object", key)],
        len(picture),
        16,
        {"Range": f"bytes={offset}-{offset + len(picture) - 1}"},
    )
    case = Case(_THUMBNAIL, len(picture), ours=mediarepo.ask(path, len(picture), 16), direct=direct)
    await _check_same(case, picture)
    return case


def _upload(mediarepo: Mediarepo, bucket: Bucket, name: str, size_bytes: int, connections: int) -> Case:
    keys = [f"bench/{size_bytes}/{number}" for number in range(_PUT_KEYS)]
    headers = {**mediarepo.headers, "Content-Type": "application/octet-stream"}
    return Case(
        name,
        size_bytes,
        ours=Ask(
            address=mediarepo.address,
            paths=["/_matrix/media/v3/upload"],
            method="POST",
            headers=headers,
            body_bytes=size_bytes,
            connections=connections,
        ),
        direct=Ask(
            address=bucket.host,
            paths=[bucket.signed_path("put_object", key) for key in keys],
            method="PUT",
            body_bytes=size_bytes,
            connections=connections,
        ),
    )


def _direct(
    bucket: Bucket, paths: Sequence[str], answer_bytes: int, connections: int, headers: dict[str, str] | None = None
) -> Ask:
    return Ask(
        address=bucket.host, paths=paths, headers=headers or {}, answer_bytes=answer_bytes, connections=connections
    )


async def fetch(ask: Ask) -> bytes:
    """Ask once."""
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(_url(ask), headers=ask.headers) as answer,
    ):
        answer.raise_for_status()
        return await answer.read()


def _url(ask: Ask) -> URL:
    return URL(f"http://{ask.address}{ask.paths[0]}", encoded=True)


async def _check_same(case: Case, body: bytes) -> None:
    for ask in (case.ours, case.direct):
        if await fetch(ask) != body:
            raise RuntimeError(f"{case.name}: {ask.address} does not answer with the object")
