"""A program that runs beside Synapse: two users of matrix-nio, one sends a picture, the other looks at it."""

import asyncio
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import nio  # type: ignore[import-not-found]  # it is installed in Synapse's environment only

REPORT: dict[str, Any] = {"requests": []}


def noted(answer: Any) -> Any:
    """Keep what was asked and answered; fail with the answer's own words."""
    sent = getattr(answer, "transport_response", None)
    if sent is not None:
        REPORT["requests"].append(f"{sent.method} {sent.url.raw_path} {sent.status}")
    if isinstance(answer, nio.ErrorResponse):
        sys.exit(f"{answer}: {REPORT['requests']}")
    return answer


async def logged_in(url: str, name: str, password: str) -> Any:
    client = nio.AsyncClient(url, name)
    noted(await client.login(password))
    return client


async def send_picture(alice: Any, bob: Any, picture: Path) -> str:
    data = picture.read_bytes()
    with picture.open("rb") as file:
        uploaded, _ = await alice.upload(file, "image/jpeg", filename="a picture.jpg", filesize=len(data))
    uri: str = noted(uploaded).content_uri
    room = noted(await alice.room_create(invite=[bob.user_id])).room_id
    content = {
        "msgtype": "m.image",
        "body": "a picture.jpg",
        "url": uri,
        "info": {"mimetype": "image/jpeg", "size": len(data)},
    }
    noted(await alice.room_send(room, "m.room.message", content))
    noted(await bob.join(room))
    return uri


async def look_at_picture(bob: Any) -> None:
    synced = noted(await bob.sync(full_state=True))
    events = [event for room in synced.rooms.join.values() for event in room.timeline.events]
    (image,) = [event for event in events if isinstance(event, nio.RoomMessageImage)]
    REPORT["seen"] = image.url
    _, _, server_name, media_id = image.url.split("/")
    for name in (None, "renamed.jpg"):
        downloaded = noted(await bob.download(image.url, filename=name))
        REPORT.setdefault("downloads", []).append(
            [hashlib.sha256(downloaded.body).hexdigest(), downloaded.content_type, downloaded.filename]
        )
    thumbnail = noted(await bob.thumbnail(server_name, media_id, 96, 96, nio.ResizingMethod.crop))
    Path(sys.argv[5]).write_bytes(thumbnail.body)
    REPORT["thumbnail"] = thumbnail.content_type


async def main(url: str, passwords: list[str], picture: Path) -> None:
    alice, bob = await logged_in(url, "alice", passwords[0]), await logged_in(url, "bob", passwords[1])
    try:
        REPORT["uploaded"] = await send_picture(alice, bob, picture)
        await look_at_picture(bob)
    finally:
        await alice.close()
        await bob.close()
    sys.stdout.write(json.dumps(REPORT))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:4], Path(sys.argv[4])))
