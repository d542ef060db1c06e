#!/bin/sh
# Create random secrets for compose.yml in docker/secrets/. Existing files are kept.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
cd secrets

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { [ -s "$1" ] || printf '%s' "$2" > "$1"; }

keep postgres_password "$(random)"
keep redis_password "$(random)"
keep storage__access_key_id deepfakestream
keep storage__secret_access_key "$(random)"
keep worker__flower__password "$(random)"
keep api__metrics_token "$(random)"
# Signs evidence bundles.
[ -s evidence__key ] || openssl genpkey -algorithm ed25519 -out evidence__key
keep grafana_password "$(random)"
keep database__url "postgresql+psycopg://deepfakestream:$(cat postgres_password)@postgres:5432/deepfakestream"
keep broker__url "redis://:$(cat redis_password)@redis:6379/0"
keep s3_identities "{\"identities\": [{\"name\": \"deepfakestream\", \"credentials\": [{\"accessKey\": \"$(cat storage__access_key_id)\", \"secretKey\": \"$(cat storage__secret_access_key)\"}], \"actions\": [\"Admin\", \"Read\", \"Write\", \"List\"]}]}"
# Containers read the files as other users; the folder's mode keeps other users of this machine out.
chmod 700 .
chmod 444 ./*
