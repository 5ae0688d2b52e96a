#!/bin/sh
# The health agent for images without Python: the protocol of agent.py in busybox's shell and nc.
# Usage: agent.sh DIRECTORY. The directory (0700) holds `config`, lines KEY=VALUE that are never
# evaluated: tokenSha256, port, protocol, appPort, requestPath, intervalSeconds, numberOfProbes.
# The verdict lives in DIRECTORY/state, written by one loop and read by each request.
set -u
export LC_ALL=C
nl='
'
cr=$(printf '\r')

port=17800 protocol=http app_port=80 request_path=/ interval=5 needed=1 token_hash=

read_config() {
    while IFS= read -r line || [ -n "$line" ]; do
        value=${line#*=}
        case $line in
        tokenSha256=*) token_hash=$value ;;
        port=*) port=$value ;;
        protocol=*) protocol=$value ;;
        appPort=*) app_port=$value ;;
        requestPath=*) request_path=${value:-/} ;;
        intervalSeconds=*) interval=$value ;;
        numberOfProbes=*) needed=$value ;;
        esac
    done <"$1/config"
}

uptime_seconds() {
    read -r up _ </proc/uptime
    up=${up%.*}
}

# --- Telling ------------------------------------------------------------------------------------

respond() { # STATUS BODY
    printf 'HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n' \
        "$1" $((${#2} + 1))
    printf 'Connection: close\r\n\r\n%s\n' "$2"
}

# Bounded in bytes and time; command substitution would drop the newlines at the end.
read_head() {
    head=
    reads=0
    while [ $reads -lt 8 ]; do
        more=$(timeout 5 dd bs=1024 count=1 2>/dev/null; echo .)
        more=${more%.}
        [ -n "$more" ] || return 1
        head=$head$more
        case $head in *"$cr$nl$cr$nl"*) return 0 ;; esac
        reads=$((reads + 1))
    done
    return 1
}

# The hashes are compared, so that the time it takes tells nothing about the token, and the token
# goes through a pipe, so that no argument list shows it.
is_token() {
    case $1 in '' | *[!0-9A-Za-z._~+/=-]*) return 1 ;; esac
    hash=$(printf '%s' "$1" | sha256sum)
    [ "${hash%% *}" = "$token_hash" ]
}

is_allowed() { # HEADERS
    rest=$1
    while [ -n "$rest" ]; do
        line=${rest%%"$nl"*}
        rest=${rest#*"$nl"}
        line=${line%"$cr"}
        case $line in
        [Aa][Uu][Tt][Hh][Oo][Rr][Ii][Zz][Aa][Tt][Ii][Oo][Nn]:*[Bb][Ee][Aa][Rr][Ee][Rr]' '*)
            is_token "${line##* }" && return 0 ;;
        [Xx]-[Ll][Aa][Bb][Cc][Tt][Ll]-[Tt][Oo][Kk][Ee][Nn]:*)
            value=${line#*:}
            is_token "${value##* }" && return 0 ;;
        '') return 1 ;;
        esac
    done
    return 1
}

answer() { # DIRECTORY: one request on stdin and stdout
    read_config "$1"
    if ! read_head; then
        [ -z "$head" ] || respond '400 Bad Request' '{"error": "bad request"}'
        return
    fi
    first=${head%%"$cr$nl"*}
    case $first in
    [A-Z]*' '*' 'HTTP/1.?) ;;
    *) respond '400 Bad Request' '{"error": "bad request"}'; return ;;
    esac
    if ! is_allowed "${head#*"$nl"}"; then
        respond '401 Unauthorized' '{"error": "wrong or no token"}'
        return
    fi
    case $first in
    'GET /health HTTP/1.'?) ;;
    *' /health HTTP/1.'?) respond '405 Method Not Allowed' '{"error": "only GET"}'; return ;;
    *) respond '404 Not Found' '{"error": "only /health is here"}'; return ;;
    esac
    read -r boot_id </proc/sys/kernel/random/boot_id
    { read -r beat; read -r state; read -r since; IFS= read -r detail; } <"$1/state"
    uptime_seconds
    if [ $((up - beat)) -gt $((interval * 3 + 30)) ]; then
        state=Unknown detail="no probe for $((up - beat)) s"
    fi
    respond '200 OK' \
        "{\"state\": \"$state\", \"detail\": \"$detail\", \"since\": $since, \"bootId\": \"$boot_id\"}"
}

# --- Watching -----------------------------------------------------------------------------------

# The reason that busybox's nc gives, without its own words before it.
why() { # OUTPUT
    reason=${1##*: }
    echo "${reason:-timed out}"
}

ask() { # sets result (Healthy, Unhealthy) and seen
    result=Unhealthy
    case $protocol in
    tcp)
        if output=$(timeout "$interval" nc 127.0.0.1 "$app_port" -e true 2>&1); then
            result=Healthy seen="port $app_port accepts"
        else
            seen="port $app_port: $(why "$output")"
        fi
        return
        ;;
    https)
        # wget follows redirections; the first status line is the application's own.
        output=$(timeout "$interval" wget -S -q -O /dev/null --no-check-certificate \
            "https://127.0.0.1:$app_port$request_path" 2>&1 | grep -a -E '^ *HTTP/|^wget: ' | head -n 1)
        output=${output# }
        output=${output# }
        case $output in
        'wget: server returned error: HTTP/'*) output=${output#wget: server returned error: } ;;
        esac
        ;;
    *)
        output=$(printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\n%s\r\nConnection: close\r\n\r\n' \
            "$request_path" "$app_port" 'User-Agent: labctl-health' |
            timeout "$interval" nc 127.0.0.1 "$app_port" 2>&1 | head -c 512 | head -n 1 | tr -d '\000\r')
        ;;
    esac
    case $output in
    HTTP/1.?' '[0-9][0-9][0-9]*)
        code=${output#* }
        code=${code%% *}
        seen="HTTP $code from $request_path"
        [ "$code" != 200 ] || result=Healthy
        ;;
    'nc: '* | 'wget: '*) seen="$request_path: $(why "$output")" ;;
    '') seen="$request_path: timed out" ;;
    *) seen="no HTTP answer from $request_path" ;;
    esac
}

save() { # DIRECTORY
    uptime_seconds
    printf '%s\n%s\n%s\n%s\n' "$up" "$state" "$since" "$shown" >"$1/state.part"
    mv "$1/state.part" "$1/state"
}

watch() { # DIRECTORY
    streak=0 streak_result='' been_healthy=''
    uptime_seconds
    started=$up
    while :; do
        ask
        if [ "$result" = "$streak_result" ]; then
            streak=$((streak + 1))
        else
            streak=1 streak_result=$result
        fi
        if [ "$streak" -ge "$needed" ]; then
            if [ "$seen" != "$detail" ]; then
                detail=$seen
                shown=$(printf '%s' "$detail" | tr -d '\000-\037\177-\377' | sed 's/[\\"]/\\&/g')
            fi
            if [ "$state" != "$result" ]; then
                state=$result
                since=$(date +%s)
            fi
            [ "$result" != Healthy ] || been_healthy=yes
        fi
        save "$1"
        # An application that has not been well yet is asked each second, for five minutes.
        if [ -z "$been_healthy" ] && [ $((up - started)) -lt 300 ]; then
            sleep 1
        else
            sleep "$interval"
        fi
    done
}

main() { # DIRECTORY
    read_config "$1"
    state=Initializing shown='not probed yet' detail='' since=$(date +%s)
    save "$1"
    shell=$(readlink -f /proc/$$/exe)
    case $shell in
    */busybox) set -- "$1" "$shell" sh "$0" ;;
    *) set -- "$1" "$shell" "$0" ;;
    esac
    directory=$1
    shift
    (
        trap 'kill $!; exit' TERM
        while :; do
            nc -ll -p "$port" -e "$@" answer "$directory" </dev/null >/dev/null 2>&1 &
            wait $!
            sleep 1
        done
    ) &
    trap 'kill $!; exit' TERM INT
    watch "$directory"
}

umask 077
case $1 in
answer) answer "$2" ;;
*) main "$1" ;;
esac
