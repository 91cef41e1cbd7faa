#!/bin/sh
# Starts SeaweedFS as one process with the credentials that deploy/compose.yaml names.
# Only the S3 port asks for credentials: keep the others inside the container's network, or on loopback.
set -eu
DATA=${DATA:-/data}
BIND=${BIND:-0.0.0.0}
S3_PORT=${S3_PORT:-8333}
SECRET=${SECRET:-/run/secrets/s3-secret-key}
umask 077
printf '{"identities":[{"name":"mediarepo","credentials":[{"accessKey":"GK6d656469617265706f2d6b65","secretKey":"%s"}],"actions":["Admin","Read","Write","List","Tagging"]}]}\n' \
    "$(tr -d '\r\n' < "$SECRET")" > "$DATA/s3.json"
# shellcheck disable=SC2086 # extra flags, if any, are words
exec weed -v=0 mini -dir="$DATA" -ip=127.0.0.1 -ip.bind="$BIND" -s3.port="$S3_PORT" -s3.config="$DATA/s3.json" \
    -s3.port.iceberg=0 -s3.port.lance=0 -webdav=false -admin.ui=false -master.telemetry=false -bucket=media ${EXTRA:-}
