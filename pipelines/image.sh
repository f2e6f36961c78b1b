#!/bin/sh
# The application's image, before anything is pushed: `build` makes it, `check` starts it with what
# it needs, probes its health and runs the integration tests, `scan` looks for known weaknesses.
#
#   IMAGE         its name on this machine, app:candidate unless set
#   BUILD_NUMBER  its version
#   CACHE         options for docker build, as each kind of pipeline has another cache
set -eu
cd "$(dirname "$0")/.."
export IMAGE="${IMAGE:-app:candidate}"

compose() {
  docker compose --file app/compose.yaml --file pipelines/compose.yaml "$@"
}

probe() {
  curl --fail --silent --show-error --output /dev/null --max-time 5 \
    --retry 30 --retry-delay 1 --retry-all-errors "http://127.0.0.1:8080$1"
  echo "$1 answers"
}

case ${1:-} in
  build)
    # shellcheck disable=SC2086 # words of their own
    docker build ${CACHE:-} \
      --build-arg VERSION="${BUILD_NUMBER:-0}" \
      --build-arg REVISION="$(git rev-parse HEAD)" \
      --build-arg CREATED="$(TZ=UTC git show --no-patch --no-show-signature --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd HEAD)" \
      --build-arg SOURCE="$(git remote get-url origin | sed 's|://[^/]*@|://|')" \
      --tag "$IMAGE" app
    ;;
  check)
    trap 'compose down --volumes' EXIT
    compose up --detach orders
    probe /healthz
    probe /readyz
    DATABASE_URL=postgres://orders:orders@127.0.0.1:5432/orders npm run --prefix app test:integration
    ;;
  scan)
    mkdir -p app/reports
    # All of it into the report, as others read it too; some of it is too much.
    trivy image --format json --output app/reports/trivy.json "$IMAGE"
    trivy convert --format table --severity HIGH,CRITICAL --exit-code 1 app/reports/trivy.json
    ;;
  *)
    echo "image.sh: the command is ${1:-missing}; expected build, check or scan." >&2
    exit 2
    ;;
esac
