#!/usr/bin/env bash
# Bring the viewer that the pages carry from npm again: niivue.min.js is dist/niivue.umd.js, byte for byte.
set -euo pipefail
cd "$(dirname "$0")"

version=0.69.0
sha256=$(cut -d' ' -f1 niivue.sha256)

draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT
npm pack --silent --pack-destination "$draft" "@niivue/niivue@$version" >/dev/null
tar -xzf "$draft/niivue-niivue-$version.tgz" -C "$draft" package/dist/niivue.umd.js
echo "$sha256  $draft/package/dist/niivue.umd.js" | sha256sum --check --quiet
cp "$draft/package/dist/niivue.umd.js" niivue.min.js
echo "niivue.min.js is NiiVue $version"
