#!/bin/sh
# Names the clusters as the stack files do: for each ENVIRONMENT=NAME[@REGION] of CLUSTERS, a context
# of the kubeconfig with the environment's name.
set -eu
for cluster in ${CLUSTERS:-}; do
  name=${cluster#*=}
  region=${name#"${name%%@*}"}
  aws eks update-kubeconfig --alias "${cluster%%=*}" --name "${name%%@*}" ${region:+--region "${region#@}"}
done
