#!/bin/sh
# What runs in the database's Jobs: POSIX sh with psql, pg_dump, pg_restore, coreutils and grep. The
# first word says what to do; all else comes from the environment.
#
#   before   the schema's version as the container's message; a backup NAME first if it is below HEAD,
#            and a refusal for REASON from the version REFUSE_FROM on; all that `points` refuses, too.
#            UNDONE by a migration down, nothing of the last attempt is left
#   points   a refusal where a release that has not passed has gone over a point of no return: one that
#            is not among POINTS (`5=contract 7=irreversible`), or is above RUNS_ON, where that is given
#   guard    ahead of each attempt at a migration: one attempt a Job, and none on top of leftovers
#   reached  after a migration: whether it has led to the version HEAD
#   backup   a backup, called after the time
#   list     every backup, and what the database holds, as lines of JSON
#   refresh  BACKUP in place of what is there, which is not kept
#   restore  BACKUP into the database, whole or not at all; over what is there only with OVERWRITE
#   copy     what is there, as COPY, while `restore` keeps everybody from changing it
#   empty    takes everything out of the database
umask 077
export LC_ALL=C PGCONNECT_TIMEOUT=10 PGTZ=UTC
fail() { printf '%s\n' "$*" >&2; exit 1; }

# Whatever is printed of a URL may be its password, also in parts where it is malformed.
url_rest=${DATABASE_URL#*://}
url_authority=${url_rest%%/*}
url_login=${url_rest%@*}
url_password=
case $url_rest in
  *@*) case $url_login in
    *:*) url_password=${url_login#*:} ;;
  esac ;;
esac
mask() {
  while IFS= read -r line || [ -n "$line" ]; do
    for secret in "$DATABASE_URL" "$url_password"; do
      [ -n "$secret" ] || continue
      while :; do
        case $line in
          *"$secret"*) line="${line%%"$secret"*}***${line#*"$secret"}" ;;
          *) break ;;
        esac
      done
    done
    printf '%s\n' "$line"
  done
}
check_url() {
  case $DATABASE_URL in
    postgres://* | postgresql://*) ;;
    *) fail "$URL_KEY is not shown; expected a URL such as postgresql://user:password@host/database" ;;
  esac
  case $DATABASE_URL in
    *[?\&]password=* | *[?\&]sslpassword=*) fail "$URL_KEY holds a password behind its ?; expected it before the @" ;;
  esac
  case $url_rest in
    *@*@*) fail "$URL_KEY holds more than one @; expected other ones as %40" ;;
  esac
  case $url_rest in
    *@*) case $url_authority in
      *@*) ;;
      *) fail "$URL_KEY holds a / before its @; expected it as %2F" ;;
    esac ;;
  esac
}

sql() { psql -X -q -At -v ON_ERROR_STOP=1 "$@" "$DATABASE_URL"; }

# A table that is not there yet is a schema at its beginning.
read_version() {
  if version=$(printf '%s\n' "$VERSION_QUERY" | sql -v VERBOSITY=verbose 2>/tmp/error); then
    :
  elif grep -Eq '(42P01|3F000):' /tmp/error; then
    version=0
  else
    cat /tmp/error >&2
    fail "baton:database.version cannot be read"
  fi
  case $version in
    '') version=0 ;;
    *[!0-9]*) fail "baton:database.version gives $version; expected one whole number" ;;
  esac
}

schema_now() {
  pg_dump --schema-only --no-owner --no-privileges "$DATABASE_URL" >/tmp/schema.all ||
    fail "the schema cannot be read: see above"
  # An empty one has no lines.
  grep -Ev '^(--|\\(un)?restrict |$)' /tmp/schema.all || [ $? = 1 ]
}

# For each table: how many rows, and a sum that does not depend on their order.
SUMS='SET LOCAL search_path = $$$$; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = hex; SET LOCAL intervalstyle = postgres;
SET LOCAL datestyle = ISO; SET LOCAL timezone = UTC; SET LOCAL row_security = off;
SELECT pg_catalog.format($$SELECT %L, pg_catalog.count(*), coalesce(pg_catalog.sum(pg_catalog.hashtextextended((t.*)::pg_catalog.text COLLATE pg_catalog."C", 0)::pg_catalog.numeric), 0) FROM ONLY %I.%I t$$,
  n.nspname || $$.$$ || c.relname, n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = $$r$$ AND n.nspname !~ $$^pg_$$ AND n.nspname <> $$information_schema$$
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = $$pg_class$$::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = $$e$$)
ORDER BY n.nspname, c.relname \gexec'

# What is not an extension's, in the order in which it can be dropped.
OBJECTS='SELECT pg_catalog.format($$DROP %s IF EXISTS %s CASCADE$$, kind, name) FROM (
  SELECT 1 AS step, $$SCHEMA$$ AS kind, pg_catalog.quote_ident(nspname) AS name, oid, $$pg_namespace$$ AS catalog
    FROM pg_catalog.pg_namespace WHERE nspname !~ $$^pg_$$ AND nspname NOT IN ($$information_schema$$, $$public$$)
  UNION ALL
  SELECT 2, CASE c.relkind WHEN $$v$$ THEN $$VIEW$$ WHEN $$m$$ THEN $$MATERIALIZED VIEW$$ WHEN $$S$$ THEN $$SEQUENCE$$
      WHEN $$f$$ THEN $$FOREIGN TABLE$$ ELSE $$TABLE$$ END, pg_catalog.format($$public.%I$$, c.relname), c.oid, $$pg_class$$
    FROM pg_catalog.pg_class c WHERE c.relnamespace = $$public$$::pg_catalog.regnamespace AND c.relkind IN ($$r$$, $$p$$, $$v$$, $$m$$, $$S$$, $$f$$)
  UNION ALL
  SELECT 3, $$ROUTINE$$, p.oid::pg_catalog.regprocedure::pg_catalog.text, p.oid, $$pg_proc$$
    FROM pg_catalog.pg_proc p WHERE p.pronamespace = $$public$$::pg_catalog.regnamespace
  UNION ALL
  SELECT 4, CASE t.typtype WHEN $$d$$ THEN $$DOMAIN$$ ELSE $$TYPE$$ END, pg_catalog.format($$public.%I$$, t.typname), t.oid, $$pg_type$$
    FROM pg_catalog.pg_type t WHERE t.typnamespace = $$public$$::pg_catalog.regnamespace
      AND (t.typtype IN ($$d$$, $$e$$, $$r$$) OR (t.typtype = $$c$$ AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid AND c.relkind = $$c$$)))
  UNION ALL
  SELECT 5, $$COLLATION$$, pg_catalog.format($$public.%I$$, c.collname), c.oid, $$pg_collation$$
    FROM pg_catalog.pg_collation c WHERE c.collnamespace = $$public$$::pg_catalog.regnamespace
  UNION ALL
  SELECT 6, $$TEXT SEARCH CONFIGURATION$$, pg_catalog.format($$public.%I$$, c.cfgname), c.oid, $$pg_ts_config$$
    FROM pg_catalog.pg_ts_config c WHERE c.cfgnamespace = $$public$$::pg_catalog.regnamespace
  UNION ALL
  SELECT 7, $$TEXT SEARCH DICTIONARY$$, pg_catalog.format($$public.%I$$, d.dictname), d.oid, $$pg_ts_dict$$
    FROM pg_catalog.pg_ts_dict d WHERE d.dictnamespace = $$public$$::pg_catalog.regnamespace
  UNION ALL
  SELECT 8, $$SERVER$$, pg_catalog.quote_ident(srvname), oid, $$pg_foreign_server$$ FROM pg_catalog.pg_foreign_server
) objects WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
  WHERE d.classid = catalog::pg_catalog.regclass AND d.objid = objects.oid
    -- An extension has made it, or it goes with another object.
    AND d.objsubid = 0 AND d.deptype IN ($$e$$, $$i$$))
ORDER BY step, name'
# Whatever the role's own limits are, these take as long as they take.
UNLIMITED="SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0;"
# A host that is lost holds its locks for a minute, not for hours.
UNLIMITED="$UNLIMITED SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;"
QUIETLY="SET LOCAL lock_timeout = '60s'; SET LOCAL client_min_messages = warning;"
# Reading goes on, and so does pg_dump.
LOCKS='SELECT pg_catalog.format($$LOCK TABLE %I.%I IN EXCLUSIVE MODE$$, n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ($$r$$, $$p$$) AND n.nspname !~ $$^pg_$$ AND n.nspname <> $$information_schema$$
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = $$pg_class$$::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = $$e$$)
ORDER BY n.nspname, c.relname'
LARGE_OBJECTS='SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata;'

is_empty() {
  found=$(printf '%s;\n' "$OBJECTS" | sql) || fail "what the database holds cannot be read: see above"
  [ -z "$found" ]
}

# NAME: all of it, consistent, readable, and with the sums of its tables.
backup() {
  name=$1
  number=1
  while [ -e "$BACKUPS/$name.dump" ]; do
    number=$((number + 1))
    name=$1-$number
  done
  # What a killed one of its kind has left.
  rm -f "$BACKUPS/.${1%%-*}-"*
  export PART="$BACKUPS/.$name"
  rm -f /tmp/dumped
  sql <<END
$UNLIMITED
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT pg_catalog.pg_export_snapshot() AS snapshot \gset
\setenv SNAPSHOT :snapshot
\! pg_dump -Fc --no-owner --no-privileges --no-publications --no-subscriptions --snapshot="\$SNAPSHOT" -f "\$PART.dump" "\$DATABASE_URL" && touch /tmp/dumped
\o '$PART.sums'
$SUMS
\o
COMMIT;
END
  [ -e /tmp/dumped ] || fail "backup $name failed: see above"
  pg_restore --list "$PART.dump" >/dev/null || fail "backup $name cannot be read back"
  schema_now >"$PART.schema"
  read_version
  printf '{"backup":"%s","version":%s,"at":"%s","bytes":%s,"tables":%s}\n' "$name" "$version" \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(($(wc -c <"$PART.dump")))" "$(($(wc -l <"$PART.sums")))" >"$PART.json"
  for kind in sums schema dump json; do mv "$PART.$kind" "$BACKUPS/$name.$kind"; done
  sync
}

# NAME: the version of the schema in it; nothing where it is gone.
version_of() {
  found=$(grep -o '"version":[0-9]*' "$BACKUPS/$1.json") || :
  printf '%s' "${found#*:}"
}

# VERSION: the newest backup of a schema below it.
newest_below() {
  for file in $(ls -t "$BACKUPS" | grep '\.json$'); do
    if [ "$(version_of "${file%.json}")" -lt "$1" ]; then
      printf '%s' "${file%.json}"
      return
    fi
  done
}

# POINT REASON: there is no way back over it but a backup of what was below it.
refuse_return() {
  former=$(newest_below "$1")
  fail "the schema is at version $version: $2 Go forward, or restore what was before with" \
    "\`baton restore $ENVIRONMENT --backup ${former:-NAME}\` and run this again."
}

# GROUP COUNT: keeps the newest, and whatever is still spoken of.
prune() {
  ls -t "$BACKUPS" | grep "^$1.*\.json$" | tail -n "+$(($2 + 1))" | while IFS= read -r file; do
    case ${file%.json} in "$BACKUP" | "$used") continue ;; esac
    for kind in json dump sums schema; do rm -f "$BACKUPS/${file%.json}.$kind"; done
    echo "backup ${file%.json} is beyond those to keep, and removed"
  done
}

# They come in transactions of their own, which would end the one that holds everything.
LARGE_OBJECT='^[0-9]+; [0-9]+ [0-9]+ (BLOBS? |COMMENT - LARGE OBJECT )'
# The settings of a newer client's are not known to an older server.
NEWER='SET transaction_timeout = 0;'
restore_large_objects() {
  grep -E "$LARGE_OBJECT" /tmp/list.all >/tmp/list.large || return 0
  pg_restore --no-owner --no-privileges -L /tmp/list.large -f /tmp/large.sql "$FILE.dump" &&
    grep -vx -e 'BEGIN;' -e 'COMMIT;' -e "$NEWER" /tmp/large.sql
}
restore_objects() {
  { pg_restore --no-owner --no-privileges -L /tmp/list -f - "$FILE.dump" || : >/tmp/unreadable; } |
    grep -vx "$NEWER" || :
  [ ! -e /tmp/unreadable ]
}

# NAME [COPY]: what the backup holds in place of what is there, in one transaction. In it, what is there
# is backed up as COPY first, with everybody else's writes held back.
restore() {
  export FILE="$BACKUPS/$1" COPY="${2:-}" SCRIPT="$0"
  rm -f /tmp/restored /tmp/differs /tmp/copied /tmp/unreadable
  pg_restore --list "$FILE.dump" >/tmp/list.all || fail "backup $1 cannot be read"
  grep -Ev " COMMENT - EXTENSION |$LARGE_OBJECT" /tmp/list.all >/tmp/list
  {
    printf '%s\n' "$UNLIMITED" '\o /dev/null' 'BEGIN;' "$QUIETLY"
    if [ -n "$COPY" ]; then
      printf '%s \\gexec\n' "$LOCKS"
      printf '%s\n' '\! /bin/sh "$SCRIPT" copy' '\set copied `test -e /tmp/copied && echo 1 || echo 0`' \
        '\if :copied' '\else' 'ROLLBACK;' '\quit' '\endif'
    fi
    printf '%s \\gexec\n' "$OBJECTS"
    printf '%s\n' "$LARGE_OBJECTS"
    if restore_objects && restore_large_objects; then
      printf '%s\n' '\o /tmp/sums' "$SUMS" '\o' \
        '\! cmp -s /tmp/sums "$FILE.sums" || touch /tmp/differs' \
        '\set differs `test -e /tmp/differs && echo 1 || echo 0`' \
        '\if :differs' 'ROLLBACK;' '\else' 'COMMIT;' '\! touch /tmp/restored' '\endif'
    else
      printf '%s\n' 'ROLLBACK;'
    fi
  } | sql || :
  if [ -e /tmp/differs ]; then
    fail "backup $1 gives other data than it was made of, so nothing was changed: $(diff /tmp/sums "$FILE.sums" | head -n 3)"
  fi
  [ -e /tmp/restored ] || fail "backup $1 could not be restored, so nothing was changed: see above"
  tables=$(($(wc -l <"$FILE.sums")))
  rows=0
  while IFS='|' read -r _ count _; do rows=$((rows + count)); done <"$FILE.sums"
}

# The last attempt at a migration: by which Job, the backup before it, and where it was to lead. One
# that has got there, however it ended, left nothing to undo.
ATTEMPT=$BACKUPS/.attempt
read_attempt() {
  started=
  used=
  read_version
  [ -e "$ATTEMPT" ] || return 0
  read -r started used head <"$ATTEMPT" || fail "$ATTEMPT cannot be read: remove it once you know what the last migration has done"
  [ "$version" != "$head" ] || rm -f "$ATTEMPT"
}
is_pending() { [ -e "$ATTEMPT" ] && [ "$version" -lt "$head" ]; }
# It ended, as it wrote another version, and so is undone by nobody; but its release says what is not so.
is_beyond() { [ -e "$ATTEMPT" ] && [ "$version" -gt "$head" ]; }
refuse_label() {
  fail "the migration has led to version $version of the schema; expected $HEAD, as the image's label" \
    "baton.schema-head says. Build it again with a label and migrations that agree"
}

# A release that has migrated and never passed left no record. What it has done to the schema must be
# known to the next one, or there would be a way back to a release that does not run on it.
CROSSED=$BACKUPS/points
check_points() {
  [ -n "$RELEASE" ] && [ -e "$CROSSED" ] || return 0
  read_version
  while read -r point tag; do
    at=${point%=*}
    # Undone since, by a restore or a migration down.
    [ "$at" -le "$version" ] || continue
    if [ -n "$RUNS_ON" ]; then
      [ "$at" -gt "$RUNS_ON" ] || continue
      refuse_return "$at" "$RELEASE is made for version $RUNS_ON and does not run on it, as $tag has gone over $point."
    fi
    case " $POINTS " in *" $at="*) continue ;; esac
    said="the schema is at version $version: $tag, which has not passed, has gone over $point, and $RELEASE does not say so"
    [ "$at" -gt "$HEAD" ] || fail "$said; expected its label baton.schema-points to name that. Build it again with it"
    fail "$said; expected a release that brings that schema, with labels, or a later one. Build one, or restore what was before"
  done <"$CROSSED"
}

# Points above the version: what had gone over them has failed, or is undone.
forget_points() {
  [ -e "$CROSSED" ] || return 0
  while read -r point tag; do
    [ "${point%=*}" -gt "$version" ] || echo "$point $tag"
  done <"$CROSSED" >"$CROSSED.part"
  mv "$CROSSED.part" "$CROSSED"
}

# NAME: whether nobody can have written much since.
is_fresh() { [ -e "$BACKUPS/$1.json" ] && [ $(($(date +%s) - $(stat -c %Y "$BACKUPS/$1.json"))) -lt 900 ]; }

end_leftovers() {
  sql >/dev/null <<'END'
SELECT pg_catalog.pg_terminate_backend(pid, 10000) FROM pg_catalog.pg_stat_activity
WHERE datname = pg_catalog.current_database() AND usename = current_user AND application_name = 'baton-migration';
END
}

run() {
  check_url
  case $1 in
    before)
      read_attempt
      if [ -n "$REFUSE_FROM" ] && [ "$version" -ge "$REFUSE_FROM" ]; then
        refuse_return "$REFUSE_FROM" "$REASON"
      fi
      if is_beyond; then
        [ "$head" != "$HEAD" ] || refuse_label
        # A release that knows of it.
        [ "$HEAD" -lt "$version" ] || rm -f "$ATTEMPT"
      fi
      # It was undone by a migration down.
      [ -z "$UNDONE" ] || rm -f "$ATTEMPT"
      check_points
      made=
      if [ "$version" -lt "$HEAD" ]; then
        before=$version
        backup "$NAME"
        [ "$version" = "$before" ] || fail "the schema went from $before to $version while it was backed up; run this again"
        made=$name
        prune before- "$KEEP"
      fi
      printf '{"version":%s,"backup":"%s"}' "$version" "$made" >/dev/termination-log
      forget_points
      echo "schema version $version, backup ${made:-not needed}"
      ;;
    points)
      check_points
      ;;
    copy)
      backup "$COPY"
      printf '%s' "$name" >/tmp/copied
      ;;
    guard)
      log=$BACKUPS/migrations.log
      read_attempt
      # An attempt that was killed after its end: there is nothing left to do.
      [ "$version" -lt "$HEAD" ] || exit 0
      if [ "$started" != "$JOB" ] && [ -e "$log" ] && grep -q "^$JOB " "$log"; then
        fail "the migration was started again by ${started:-another Job}"
      fi
      end_leftovers
      left="nothing of it remains"
      left_by=
      if is_pending; then
        schema_now >/tmp/schema
        if [ "$version" = "$(version_of "$used")" ] && cmp -s /tmp/schema "$BACKUPS/$used.schema"; then
          :
        elif [ -n "$RESTORE" ] && [ "$started" != "$JOB" ]; then
          # Since then it may have been used, for how long nobody knows.
          fail "the migration by $started was ended before it was over, and was applied in part, up to version $version;" \
            "backup $used holds what was before it. Run \`baton restore $ENVIRONMENT --backup $used\`, which keeps" \
            "what is there in another backup; or go on from there without baton:database.policy.restoreHalfApplied"
        elif [ -n "$RESTORE" ]; then
          restore "$used" "replaced-$(date -u +%Y%m%dT%H%M%SZ)"
          prune replaced- "$KEEP"
          left="what it had applied in part is undone: backup $used is restored, $rows rows in $tables tables, the same as before"
        else
          left="it was applied in part, up to version $version; backup $used holds what was before it (baton:database.policy.restoreHalfApplied)"
        fi
        rm -f "$ATTEMPT"
        left_by=$started
      fi
      [ "$started" != "$JOB" ] || fail "the migration to version $HEAD failed or was killed, and $left"
      [ -z "$left_by" ] || echo "of a former attempt, $left"
      # A backup that served an attempt is as old as that; and one that has waited may be, too.
      name=$BACKUP
      if [ -z "$name" ] || { [ -e "$log" ] && grep -q " $name\$" "$log"; } || ! is_fresh "$name"; then
        backup "$NAME"
        prune before- "$KEEP"
      fi
      for point in $POINTS; do
        [ "${point%=*}" -le "$version" ] || echo "$point $RELEASE" >>"$CROSSED"
      done
      # All of it or nothing: what is left half-written could be read by nobody.
      printf '%s %s %s\n' "$JOB" "$name" "$HEAD" >"$ATTEMPT.part"
      sync
      mv "$ATTEMPT.part" "$ATTEMPT"
      printf '%s %s\n' "$JOB" "$name" >>"$log"
      ;;
    reached)
      read_attempt
      if [ "$version" -lt "$HEAD" ]; then
        # It has ended by itself: nothing of it is half done.
        rm -f "$ATTEMPT"
        refuse_label
      fi
      if is_beyond; then refuse_label; fi
      ;;
    backup)
      time=$(date -u +%Y%m%dT%H%M%SZ)
      backup "${NAME:-scheduled-$time}"
      prune scheduled- "$KEEP"
      cat "$BACKUPS/$name.json"
      ;;
    list)
      read_version
      for file in "$BACKUPS"/*.json; do [ ! -e "$file" ] || cat "$file"; done
      is_empty && state=true || state=false
      printf '{"empty":%s,"version":%s}\n' "$state" "$version"
      ;;
    restore)
      [ -e "$BACKUPS/$BACKUP.dump" ] || fail "backup $BACKUP is not there"
      if ! is_empty; then
        [ -n "$OVERWRITE" ] || fail "the database is not empty; expected an empty one, or OVERWRITE"
        restore "$BACKUP" "replaced-$(date -u +%Y%m%dT%H%M%SZ)"
        echo "what is replaced is in backup $(cat /tmp/copied)"
        prune replaced- "$KEEP"
      else
        restore "$BACKUP"
      fi
      rm -f "$ATTEMPT"
      read_version
      printf '{"restored":"%s","version":%s,"tables":%s,"rows":%s}\n' "$BACKUP" "$version" "$tables" "$rows"
      ;;
    refresh)
      restore "$BACKUP"
      rm -f "$ATTEMPT"
      echo "$rows rows in $tables tables"
      ;;
    empty)
      { printf '%s\n' 'BEGIN;' "$QUIETLY"; printf '%s \\gexec\n' "$OBJECTS"; printf '%s\n' "$LARGE_OBJECTS" 'COMMIT;'; } | sql >/dev/null
      rm -f "$ATTEMPT"
      ;;
  esac
}

{ (set -e; run "$1"); echo $? >/tmp/exit; } 2>&1 | mask
exit "$(cat /tmp/exit)"
