from pathlib import Path

from mediarepo.embedded.postgres import EmbeddedPostgres
from mediarepo.embedded.seaweedfs import EmbeddedS3
from tests.deploy.fronting import everything_else, fronted
from tests.support.installation import SERVER_NAME, installed, settings_for

BASE = "/_synapse/admin/v1"
USER, ROOM = f"@a:{SERVER_NAME}", f"!r:{SERVER_NAME}"
OURS = [
    ("GET", f"{BASE}/media/{SERVER_NAME}/abc"),
    ("POST", f"{BASE}/media/delete?before_ts=1"),
    ("POST", f"{BASE}/purge_media_cache?before_ts=1"),
    ("POST", f"{BASE}/quarantine_media/{ROOM}"),
    ("POST", f"{BASE}/user/{USER}/media/quarantine"),
    ("POST", f"{BASE}/room/{ROOM}/media/quarantine"),
    ("GET", f"{BASE}/users/{USER}/media"),
    ("GET", f"{BASE}/statistics/users/media"),
    ("GET", "/_mediarepo/admin/v1/usage"),
]
THEIRS = [
    ("GET", f"{BASE}/room/{ROOM}/media"),
    ("GET", f"{BASE}/rooms/{ROOM}"),
    ("GET", f"{BASE}/users/{USER}/admin"),
    ("GET", f"/_synapse/admin/v2/users/{USER}"),
    ("GET", f"{BASE}/statistics/database/rooms"),
]


async def test_admin_paths_for_media_go_to_mediarepo_and_all_others_to_the_homeserver(
    postgres: EmbeddedPostgres, s3: EmbeddedS3, tmp_path: Path
) -> None:
    async with (
        installed(settings_for(postgres, s3)) as own,
        everything_else() as homeserver,
        fronted("nginx", tmp_path, own.url, homeserver.url) as front,
    ):
        own.url = front.url
        ours = [(await own.request(method, path, token=None)).status for method, path in OURS]
        reached = list(homeserver.targets)
        theirs = [(await own.request(method, path, token=None)).json for method, path in THEIRS]

    assert ours == [401] * len(OURS)
    assert reached == []
    assert theirs == [{"homeserver": True}] * len(THEIRS)
