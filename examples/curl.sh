#!/usr/bin/env bash
# The same with nothing but curl: a session, a stream, the same stream again behind its tenth event.
#   ./run-service.sh test
#   bash examples/curl.sh
set -euo pipefail
B=${BASE_URL:-http://127.0.0.1:6000} J='Content-Type: application/json'
HEADERS=$(mktemp)
trap 'rm -f "$HEADERS"' EXIT

SID=$(curl -sf "$B/coze/sessions" -H "$J" -d '{"user_id":"u-1"}' | grep -o 'coze_session_[0-9a-z_]*' | head -n 1)
echo "session $SID"

# Sent again under the same Idempotency-Key, it would be the same chat.
curl -sfN -D "$HEADERS" "$B/coze/sessions/$SID/messages" -H "$J" -H "Idempotency-Key: $SID-1" \
    -d '{"message":"3 + 4","stream":true}'
CID=$(tr -d '\r' <"$HEADERS" | sed -n 's/^x-coze-chat-id: //Ip')

echo "=== chat $CID again, behind event 1-10"
curl -sfN "$B/coze/chats/$CID/events" -H 'Last-Event-ID: 1-10'
curl -sf -X DELETE "$B/coze/sessions/$SID" >/dev/null
