"""The web application, with what its handlers need under typed keys."""

from aiohttp import web

from mediarepo.app.joining import join_readiness
from mediarepo.app.parts import Repository
from mediarepo.services.audit import AuditTrail
from mediarepo.services.fleet import FleetReports
from mediarepo.web import keys
from mediarepo.web.admin.api.table import add_api_routes
from mediarepo.web.draining import InFlight
from mediarepo.web.middleware import add_headers, answer_in_matrix, observe
from mediarepo.web.proxies import TrustedProxies
from mediarepo.web.routes import add_federation_routes, add_matrix_routes, add_operator_routes, add_synapse_admin_routes


def make_web_app(repository: Repository, *, matrix: bool, operators: bool) -> web.Application:
    """Make an application of the endpoints for clients, for operators, or for both."""
    foundation = repository.foundation
    app = web.Application(middlewares=[observe, answer_in_matrix])
    app.on_response_prepare.append(add_headers)
    app[keys.SETTINGS] = foundation.settings
    app[keys.IN_FLIGHT] = InFlight()
    app[keys.METRICS] = foundation.metrics
    app[keys.READINESS] = join_readiness(foundation)
    app[keys.TENANTS] = repository.tenants
    app[keys.PROXIES] = TrustedProxies(foundation.settings.listen)
    app[keys.IDENTITY] = repository.identity
    app[keys.UPLOADS] = repository.uploads
    app[keys.PENDING] = repository.pending
    app[keys.PREVIEWS] = repository.previews
    app[keys.QUOTAS] = repository.quotas
    app[keys.RATES] = repository.rates
    app[keys.USAGE] = repository.administration.usage
    app[keys.RETENTION] = repository.administration.retention
    app[keys.TASKS] = repository.administration.tasks
    app[keys.AUDIT] = AuditTrail(log=repository.administration.audit)
    app[keys.JOBS] = FleetReports(runs=repository.administration.jobs)
    app[keys.FAILED_ITEMS] = repository.administration.failed_items
    app[keys.DOWNLOADS] = repository.downloads
    app[keys.REMOTE_MEDIA] = repository.remote_media
    app[keys.ADMINS] = repository.administration.admins
    app[keys.AUTHORIZATION] = repository.administration.authorization
    app[keys.RECORDS] = repository.administration.records
    app[keys.QUARANTINE] = repository.administration.quarantine
    app[keys.DELETION] = repository.administration.deletion
    app[keys.VERIFICATION] = repository.verification
    app[keys.THUMBNAILS] = repository.thumbnails
    if matrix:
        add_matrix_routes(app)
        add_federation_routes(app)
        add_synapse_admin_routes(app)
        add_api_routes(app)
    if operators:
        add_operator_routes(app)
    return app
