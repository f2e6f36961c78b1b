#!/bin/sh
# Names the clusters as the stack files do: for each ENVIRONMENT=NAME[@REGION] of CLUSTERS, a context
# of the kubeconfig with the environment's name. A cluster that the job's role may not find has none.
set -eu
for cluster in ${CLUSTERS:-}; do
  name=${cluster#*=}
  region=${name#"${name%%@*}"}
  aws eks update-kubeconfig --alias "${cluster%%=*}" --name "${name%%@*}" ${region:+--region "${region#@}"} ||
    echo "clusters.sh: $cluster is left out" >&2
done
