"""Whose certificates are believed."""

import ssl


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Make a context that checks certificates and names, against the system's authorities or those of a file.

    The same on every Python: from 3.13 on, its default refuses certificates of authorities that leave out what RFC 5280
    asks for (VERIFY_X509_STRICT), as private ones often do, and as OpenSSL, browsers and homeservers do not mind.
    Raises OSError, which ssl.SSLError is, for a file that cannot be used.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
