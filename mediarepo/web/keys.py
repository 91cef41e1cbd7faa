"""Typed keys under which handlers find what they need."""

from aiohttp import web

from mediarepo.config.settings import Settings
from mediarepo.federation.verification import Verification
from mediarepo.homeserver.identity import Identity
from mediarepo.homeserver.tenants import Tenants
from mediarepo.services.admins import Admins
from mediarepo.services.deletion import Deletion
from mediarepo.services.downloads import Downloads
from mediarepo.services.pending import PendingUploads
from mediarepo.services.quarantine import Quarantine
from mediarepo.services.readiness import Readiness
from mediarepo.services.records import Records
from mediarepo.services.remote_media import RemoteMedia
from mediarepo.services.thumbnails import Thumbnails
from mediarepo.services.uploads import Uploads
from mediarepo.telemetry.metrics import Metrics
from mediarepo.web.draining import InFlight
from mediarepo.web.proxies import TrustedProxies

SETTINGS = web.AppKey("settings", Settings)
TENANTS = web.AppKey("tenants", Tenants)
IDENTITY = web.AppKey("identity", Identity)
UPLOADS = web.AppKey("uploads", Uploads)
DOWNLOADS = web.AppKey("downloads", Downloads)
THUMBNAILS = web.AppKey("thumbnails", Thumbnails)
PENDING = web.AppKey("pending", PendingUploads)
REMOTE_MEDIA = web.AppKey("remote_media", RemoteMedia)
VERIFICATION = web.AppKey("verification", Verification)
ADMINS = web.AppKey("admins", Admins)
RECORDS = web.AppKey("records", Records)
QUARANTINE = web.AppKey("quarantine", Quarantine)
DELETION = web.AppKey("deletion", Deletion)
READINESS = web.AppKey("readiness", Readiness)
METRICS = web.AppKey("metrics", Metrics)
IN_FLIGHT = web.AppKey("in_flight", InFlight)
PROXIES = web.AppKey("proxies", TrustedProxies)
