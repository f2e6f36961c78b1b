#!/bin/sh
# Checks out what was deployed last in an environment; nothing where nothing was.
set -eu
last=$(git for-each-ref --count=1 --sort=-refname --format='%(refname)' "refs/tags/outcome/$1/")
if [ -n "$last" ]; then git checkout --quiet --detach "$last"; fi
