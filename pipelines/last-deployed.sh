#!/bin/sh
# Takes the stack files from what was deployed last in an environment; none where nothing was. A tag
# counts where it names a commit of the branch that is checked out: each other one may be forged.
set -eu
project=$(sed -n "s/^name: *['\"]\{0,1\}\([A-Za-z0-9_.-]*\).*/\1/p" Pulumi.yaml)
git for-each-ref --sort=-refname --format='%(refname)' "refs/tags/outcome/$project/$1/" |
  while read -r tag; do
    if git merge-base --is-ancestor "$tag^{commit}" HEAD; then
      git checkout --quiet "$tag^{commit}" -- 'Pulumi.*.yaml'
      break
    fi
  done
