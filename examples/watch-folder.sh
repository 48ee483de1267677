#!/usr/bin/env bash
# Watches a folder for class lists (x.txt: a line an image, class [seed [scale]]), samples each into a
# folder beside it and marks it x.txt.done, or x.txt.failed with the reason in x.log. Ctrl-C stops; lists
# that were begun go on at the next start.
#   examples/watch-folder.sh [FOLDER] [SECONDS] [OPTION...]    # 0 seconds: once, as from cron; options go to adm sample
set -euo pipefail
folder=${1:-out/lists}
pause=${2:-5}
mkdir -p "$folder"
shopt -s nullglob

while true; do
    for list in "$folder"/*.txt; do
        code=0
        adm sample --classes-file "$list" --out "${list%.txt}" --grid "${@:3}" >"${list%.txt}.log" 2>&1 || code=$?
        case $code in
        0) mv "$list" "$list.done" && echo "$list.done" ;;
        129 | 130 | 143) exit "$code" ;; # stopped: it goes on next time
        *) mv "$list" "$list.failed" && echo "$list.failed" ;;
        esac
    done
    [ "$pause" = 0 ] && break
    sleep "$pause"
done
