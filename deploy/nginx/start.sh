#!/usr/bin/env bash
# Starts nginx in the foreground, with the name server that this container was given.
# nginx has to ask it again and again, because replicas come and go; it does not read resolv.conf itself.
# The first one only: podman writes the machine's own behind it, which do not know the containers, and
# nginx would ask all of them by turns.
set -euo pipefail

server=""
while read -r word address _; do
    if [[ $word == nameserver && -z $server ]]; then server=$address; fi
done </etc/resolv.conf
if [[ -z $server ]]; then
    printf 'ERROR: /etc/resolv.conf names no name server, so the service cannot be found\n' >&2
    exit 1
fi
if [[ $server == *:* ]]; then server="[$server]"; fi
umask 077
printf 'resolver %s valid=2s ipv6=off;\n' "$server" >/tmp/resolver.conf
exec nginx -e stderr -c /etc/nginx/coze.conf -g 'daemon off;'
