"""Typed keys of the application and of requests."""

from aiohttp import web

from mediarepo.config.settings import Settings
from mediarepo.federation.request_auth import RequestVerifier
from mediarepo.homeserver.identity import Identity
from mediarepo.homeserver.tenants import Homeservers
from mediarepo.model.request_record import RequestIds, RequestRecord
from mediarepo.services.access import MediaAccess
from mediarepo.services.authorization import Admins, AuditTrail, Authorization
from mediarepo.services.batch_isolation import FailedItemReports
from mediarepo.services.deletion import Deletion
from mediarepo.services.invalidation import Invalidation
from mediarepo.services.leases import JobReports
from mediarepo.services.limits import Quotas, RateLimiter
from mediarepo.services.media_admin import MediaAdmin, UsageReports
from mediarepo.services.media_info import MediaInfoReader
from mediarepo.services.media_viewer import MediaViewer
from mediarepo.services.previews import Previews
from mediarepo.services.quarantine import Quarantine
from mediarepo.services.readiness import Readiness
from mediarepo.services.retention import Retention
from mediarepo.services.tasks import Tasks
from mediarepo.services.thumbnails import Thumbnails
from mediarepo.services.uploads import PendingUploads, Uploads
from mediarepo.telemetry.logs import LineWriter
from mediarepo.telemetry.metrics import Metrics
from mediarepo.telemetry.worker_metrics import MetricsPage
from mediarepo.web.in_flight import InFlight
from mediarepo.web.proxies import TrustedProxies

SETTINGS = web.AppKey("settings", Settings)
TENANTS = web.AppKey("tenants", Homeservers)
IDENTITY = web.AppKey("identity", Identity)
UPLOADS = web.AppKey("uploads", Uploads)
ACCESS = web.AppKey("access", MediaAccess)
MEDIA_INFO = web.AppKey("media_info", MediaInfoReader)
THUMBNAILS = web.AppKey("thumbnails", Thumbnails)
PENDING = web.AppKey("pending", PendingUploads)
VERIFICATION = web.AppKey("verification", RequestVerifier)
ADMINS = web.AppKey("admins", Admins)
AUTHORIZATION = web.AppKey("authorization", Authorization)
RECORDS = web.AppKey("records", MediaAdmin)
QUARANTINE = web.AppKey("quarantine", Quarantine)
DELETION = web.AppKey("deletion", Deletion)
PICTURES = web.AppKey("pictures", MediaViewer)
PREVIEWS = web.AppKey("previews", Previews)
QUOTAS = web.AppKey("quotas", Quotas)
RATES = web.AppKey("rates", RateLimiter)
USAGE = web.AppKey("usage", UsageReports)
RETENTION = web.AppKey("retention", Retention)
TASKS = web.AppKey("tasks", Tasks)
AUDIT = web.AppKey("audit", AuditTrail)
INVALIDATION = web.AppKey("invalidation", Invalidation)
JOBS = web.AppKey("jobs", JobReports)
FAILED_ITEMS = web.AppKey("failed_items", FailedItemReports)
READINESS = web.AppKey("readiness", Readiness)
METRICS = web.AppKey("metrics", Metrics)
METRICS_PAGE = web.AppKey("metrics_page", MetricsPage)
IN_FLIGHT = web.AppKey("in_flight", InFlight)
PROXIES = web.AppKey("proxies", TrustedProxies)
REQUEST_IDS = web.AppKey("request_ids", RequestIds)
ACCESS_LOG = web.AppKey("access_log", LineWriter)
RECORD = web.RequestKey("record", RequestRecord)
