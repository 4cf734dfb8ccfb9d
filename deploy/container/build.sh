#!/usr/bin/env bash
# Builds the image rds-lb-agent:VERSION, by podman, buildah or docker.
#
#   BINARY=PATH    a ready binary below the repository; default: built in the image
#   BUILDER=IMAGE  the Rust image, RUNTIME=IMAGE the image below the agent; defaults: see Dockerfile
#   IMAGE=NAME     default: rds-lb-agent:VERSION
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=$(sed -nE '/^\[workspace.package\]/,/^\[/ s/^version = "(.*)"/\1/p' Cargo.toml)
arguments=(--file deploy/container/Dockerfile --tag "${IMAGE:-rds-lb-agent:$version}" --build-arg "VERSION=$version")
[ -z "${RUNTIME:-}" ] || arguments+=(--build-arg "RUNTIME=$RUNTIME")
[ -z "${BUILDER:-}" ] || arguments+=(--build-arg "BUILDER=$BUILDER")
[ -z "${BINARY:-}" ] || arguments+=(--build-arg BINARY_FROM=ready --build-arg "BINARY=$BINARY")

for engine in podman buildah docker; do
  command -v "$engine" >/dev/null || continue
  case $engine in
    # The format of OCI has no health check.
    podman) exec podman build --format docker "${arguments[@]}" . ;;
    buildah) exec buildah build --format docker "${arguments[@]}" . ;;
    docker) exec docker build "${arguments[@]}" . ;;
  esac
done
echo "needs podman, buildah or docker" >&2
exit 1
