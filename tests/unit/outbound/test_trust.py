import ssl
from pathlib import Path

import pytest

from mediarepo.outbound.client import tls_context


@pytest.mark.parametrize("own", [False, True])
def test_certificates_and_names_are_checked_as_strictly_on_every_python(certificate: Path, *, own: bool) -> None:
    context = tls_context(f"{certificate}.crt" if own else None)

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert not own or len(context.get_ca_certs()) == 1


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        tls_context(str(tmp_path / "none.pem"))
