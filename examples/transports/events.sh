#!/bin/sh
# Events as they come (SSE), with curl: one line of JSON for each.
#
#   sh examples/transports/events.sh ['news/#'] [http://localhost:8080]
topic=${1:-news/#}
server=${2:-http://localhost:8080}

curl -fsSN --get "$server/v1/events" --data-urlencode "topic=$topic" | while IFS= read -r line; do
  case $line in
    # What has a name (welcome, gap, end) is about the stream, and no event.
    'event: '*) named=yes ;;
    'data: '*) [ -n "$named" ] || printf '%s\n' "${line#data: }" ;;
    '') named= ;;
  esac
done
