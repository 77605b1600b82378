#!/bin/sh
# Runs a PostgreSQL server for tests: postgres.sh FOLDER BIN ARGUMENTS_OF_THE_SERVER...
# The tests of Rust (pg_server.rs) and of Python (clients/python/testing) start it.
#
# FOLDER holds the file `password`, and `primary` with the primary's URL if the server is a standby. The script creates
# the database in FOLDER/data if there is none. BIN is the folder of initdb and postgres. When standard input ends, as it
# does however the process of the tests ends, or says a word, the script stops the server. Then it removes FOLDER, unless
# the word is `keep`.
trap '' INT TERM HUP
folder=$1 bin=$2; shift 2
if [ -f "$folder/primary" ] && [ ! -d "$folder/data" ]; then
    "$bin/pg_basebackup" --dbname "$(cat "$folder/primary")" --pgdata "$folder/data" --checkpoint=fast --no-sync \
        --write-recovery-conf || exit 1
elif [ ! -d "$folder/data" ]; then
    "$bin/initdb" --pgdata "$folder/data" --pwfile "$folder/password" --username rmom --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C --no-sync || exit 1
fi
"$bin/postgres" -D "$folder/data" "$@" &
server=$!
word=
read -r word
# Again and again: a server that is only starting does not hear it.
tries=0
while kill -QUIT $server 2>/dev/null && [ $tries -lt 600 ]; do
    tries=$((tries + 1))
    sleep 0.05
done
wait $server
[ "$word" = keep ] || rm -rf "$folder"
