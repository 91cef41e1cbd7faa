"""Headers that every response carries."""

from types import MappingProxyType

CORS = MappingProxyType(
    {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": (
            "X-Requested-With, Content-Type, Authorization, Date, Range, If-Range, If-None-Match, If-Modified-Since"
        ),
        "Access-Control-Expose-Headers": (
            "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Last-Modified, Retry-After"
        ),
    }
)
PREFLIGHT = MappingProxyType({"Access-Control-Max-Age": "86400"})

EVERY_RESPONSE = MappingProxyType(
    {
        **CORS,
        "Content-Security-Policy": (
            "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
            "style-src 'unsafe-inline'; media-src 'self'; object-src 'self';"
        ),
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Referrer-Policy": "no-referrer",
        "Server": "mediarepo",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex, nofollow, noarchive, noimageindex",
    }
)
"""Cross-origin access, and the spec's defences against content that turns out to be a program."""
