#!/bin/sh
# The health agent for images without Python: the protocol of agent.py in busybox's shell and nc.
# Usage: agent.sh DIRECTORY. The directory (0700) holds `config`, lines KEY=VALUE that are never
# evaluated: tokenLineSha256, port, protocol, appPort, requestPath, intervalSeconds, numberOfProbes,
# typeHandlerVersion, gracePeriodSeconds.
# The verdict lives in DIRECTORY/state, written by one loop and read by each request.
set -u
export LC_ALL=C
nl='
'
cr=$(printf '\r')

port=17800 protocol=http app_port=80 request_path=/ interval=5 needed=1 token_hash=
is_rich= grace=

read_config() {
    while IFS= read -r line || [ -n "$line" ]; do
        value=${line#*=}
        case $line in
        tokenLineSha256=*) token_hash=$value ;;
        port=*) port=$value ;;
        protocol=*) protocol=$value ;;
        appPort=*) app_port=$value ;;
        requestPath=*) request_path=${value:-/} ;;
        intervalSeconds=*) interval=$value ;;
        numberOfProbes=*) needed=$value ;;
        typeHandlerVersion=2.0) is_rich=yes ;;
        gracePeriodSeconds=*) grace=$value ;;
        esac
    done <"$1/config"
    : "${grace:=$((interval * needed))}"
    silence=Unhealthy # what no usable answer means
    [ -z "$is_rich" ] || [ "$protocol" = tcp ] || silence=Unknown
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

# Bounded in bytes and time: 32 lines of 1 KiB, 5 s for the first and 1 s for each other one. The shell
# reads for itself, because on an emulated processor each process costs some milliseconds.
read_head() {
    head=
    reads=0 patience=5
    while [ $reads -lt 32 ]; do
        # shellcheck disable=SC3045  # busybox has -t and -n
        IFS= read -r -t $patience -n 1024 line || { head=$head$line; return 1; }
        head=$head$line$nl
        case $line in '' | "$cr") return 0 ;; esac
        [ ${#line} -lt 1024 ] || return 1
        reads=$((reads + 1)) patience=1
    done
    return 1
}

# The hashes are compared, so that the time it takes tells nothing about the token, and the token
# goes through a pipe, so that no argument list shows it. It is the hash of a line: a here-document,
# which ends with a newline, needs one process, and printf before a pipe three.
is_token() {
    case $1 in '' | *[!0-9A-Za-z._~+/=-]*) return 1 ;; esac
    hash=$(sha256sum <<END
$1
END
    )
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
    { read -r beat; read -r state; read -r since; IFS= read -r detail; IFS= read -r metrics; } <"$1/state"
    uptime_seconds
    if [ $((up - beat)) -gt $((interval * 3 + 30)) ]; then
        state=Unknown detail="no probe for $((up - beat)) s"
    fi
    body="{\"state\": \"$state\", \"detail\": \"$detail\", \"since\": $since, \"bootId\": \"$boot_id\""
    # As they stood in the answer of the application, escapes and all.
    [ -z "$metrics" ] || body="$body, \"customMetrics\": \"$metrics\""
    respond '200 OK' "$body}"
}

umask 077
# For each request the shell reads this file anew, and only up to here.
case $1 in answer) answer "$2"; exit ;; esac

# --- Watching -----------------------------------------------------------------------------------

# The reason that busybox's nc gives, without its own words before it.
why() { # OUTPUT
    reason=${1##*: }
    echo "${reason:-timed out}"
}

# Reads the body of an answer; prints the state that its JSON tells (Unknown when none), and the custom
# metrics, as they stand between quotes in JSON. Keys may have any case. A recursive descent over
# `rest`, which only ever gets shorter.
# shellcheck disable=SC2016  # awk's own variables
rich_reader='
function fail() { has_failed = 1; rest = "" }
function skip_blanks() { sub(/^[ \t\r\n]+/, "", rest) }
function take(pattern,   taken) {
    if (!match(rest, pattern)) { fail(); return "" }
    taken = substr(rest, 1, RLENGTH)
    rest = substr(rest, RLENGTH + 1)
    return taken
}
function take_value(depth,   mark) {
    mark = substr(rest, 1, 1)
    if (depth > 50) fail()
    else if (mark == "{") take_list(depth, "}")
    else if (mark == "[") take_list(depth, "]")
    else if (mark == "\"") take(text)
    else take("^(-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?|true|false|null)")
}
function take_list(depth, last,   key, before, mark) {
    rest = substr(rest, 2)
    skip_blanks()
    if (substr(rest, 1, 1) == last) { rest = substr(rest, 2); return }
    while (!has_failed) {
        skip_blanks()
        if (last == "}") { key = tolower(take(text)); skip_blanks(); take("^:"); skip_blanks() }
        before = rest
        take_value(depth + 1)
        if (depth == 0 && !has_failed)
            note(key, substr(before, 1, length(before) - length(rest)))
        skip_blanks()
        mark = substr(rest, 1, 1)
        rest = substr(rest, 2)
        if (mark == last) return
        if (mark != ",") fail()
    }
}
function note(key, value,   word) {
    if (key == "\"applicationhealthstate\"") {
        word = tolower(value)
        told = ""
        if (word ~ /^" *healthy *"$/) told = "Healthy"
        if (word ~ /^" *unhealthy *"$/) told = "Unhealthy"
    }
    if (key == "\"custommetrics\"") {
        metrics = ""
        if (substr(value, 1, 1) == "\"") metrics = substr(value, 2, length(value) - 2)
        if (substr(value, 1, 1) == "{") {
            gsub(/[\r\n\t]/, " ", value)
            gsub(/[\\"]/, "\\\\&", value)
            metrics = value
        }
        if (length(metrics) > 4096) metrics = ""
    }
}
{ rest = rest $0 "\n" }
END {
    text = "^\"([^\"\\\\\001-\037]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F][0-9a-fA-F][0-9a-fA-F][0-9a-fA-F])*\""
    # What stands around the object, such as the lengths of chunks, is passed over.
    start = index(rest, "{")
    end = match(rest, /[}][^}]*$/)
    rest = start && start < end ? substr(rest, start, end - start + 1) : ""
    if (rest == "") fail()
    else take_value(0)
    if (has_failed || rest != "" || told == "") { told = "Unknown"; metrics = "" }
    gsub(/[^ -~]/, "", metrics)
    print told "\n" metrics "\n."
}'

# Sets told and told_metrics by the body. On an emulated processor each process costs some
# milliseconds, and an application mostly answers what it did before: then nothing is started.
read_body() { # BODY
    [ "$1" != "$last_body" ] || return 0
    last_body=$1
    told=$(printf '%s' "$1" | awk "$rich_reader")
    told_metrics=${told#*"$nl"}
    told=${told%%"$nl"*}
    told_metrics=${told_metrics%%"$nl"*}
}

ask() { # sets result (Healthy, Unhealthy, Unknown), seen, and metrics where there are some
    result=$silence
    case $protocol in
    tcp)
        if output=$(timeout "$interval" nc 127.0.0.1 "$app_port" -e true 2>&1); then
            result=Healthy seen="port $app_port accepts"
        else
            seen="port $app_port: $(why "$output")"
        fi
        return
        ;;
    https) ask_https ;;
    *) ask_http ;;
    esac
    case $output in
    HTTP/1.?' '[0-9][0-9][0-9]*)
        code=${output#* }
        code=${code%% *}
        seen="HTTP $code from $request_path"
        judge
        ;;
    'nc: '* | 'wget: '*) seen="$request_path: $(why "$output")" ;;
    '') seen="$request_path: timed out" ;;
    *) seen="no HTTP answer from $request_path" ;;
    esac
}

judge() { # by the status code, or by what the body of a 2xx says
    if [ -z "$is_rich" ]; then
        result=Unhealthy
        [ "$code" != 200 ] || result=Healthy
        return
    fi
    case $code in 2[0-9][0-9]) ;; *) return ;; esac
    read_body "$body"
    if [ "$told" = Unknown ]; then
        seen="$seen, without a valid ApplicationHealthState"
    else
        result=$told seen="$seen: $told" metrics=$told_metrics
    fi
}

ask_http() { # sets output to the first line, body to what follows the head
    if [ -z "$request" ]; then
        # Who is asked in 1.0 does not answer in chunks.
        http=HTTP/1.1
        [ -z "$is_rich" ] || http=HTTP/1.0
        # Without the last newline: the here-document has one of its own, and a byte too many would
        # make a server that closes reset the connection.
        request=$(printf 'GET %s %s\r\nHost: 127.0.0.1:%s\r\n%s\r\nConnection: close\r\n\r' \
            "$request_path" "$http" "$app_port" 'User-Agent: labctl-health')
    fi
    # A here-document is written, and a file read, by the shell itself: two processes fewer than with
    # pipes. Who answers more than `watch` allows for a file is cut off there.
    if [ -n "$is_guarded" ]; then
        nc 127.0.0.1 "$app_port" >"$directory/answer" 2>&1 <<END &
$request
END
        echo $! >&4
        wait $!
        echo >&4
    else
        timeout "$interval" nc 127.0.0.1 "$app_port" >"$directory/answer" 2>&1 <<END
$request
END
    fi
    answer=
    while IFS= read -r line || [ -n "$line" ]; do
        answer=$answer$line$nl
    done <"$directory/answer"
    output=${answer%%"$nl"*}
    output=${output%"$cr"}
    case $answer in
    *"$cr$nl$cr$nl"*) body=${answer#*"$cr$nl$cr$nl"} ;;
    *"$nl$nl"*) body=${answer#*"$nl$nl"} ;;
    *) body= ;;
    esac
}

ask_https() { # sets output to the first line; wget follows redirections, it is the application's own
    url=https://127.0.0.1:$app_port$request_path
    body=
    if [ -n "$is_rich" ]; then
        body=$(timeout "$interval" wget -S -q -O - --no-check-certificate "$url" \
            2>"$directory/heads" | head -c 8192) 2>/dev/null
        output=$(grep -a -E '^ *HTTP/|^wget: ' "$directory/heads" | head -n 1)
    else
        output=$(timeout "$interval" wget -S -q -O /dev/null --no-check-certificate "$url" 2>&1 |
            grep -a -E '^ *HTTP/|^wget: ' | head -n 1)
    fi
    output=${output# }
    output=${output# }
    case $output in
    'wget: server returned error: HTTP/'*) output=${output#wget: server returned error: } ;;
    esac
}

# Written when it says something else, and now and then as a sign of life: often enough that `answer`,
# which wants one, does not take a slow guest for a dead agent.
save() { # DIRECTORY
    uptime_seconds
    verdict="$state$nl$since$nl$shown$nl$metrics"
    [ "$verdict" != "$saved" ] || [ $((up - saved_at)) -ge 15 ] || return 0
    printf '%s\n%s\n' "$up" "$verdict" >"$1/state.part"
    mv "$1/state.part" "$1/state"
    saved=$verdict saved_at=$up
}

# Sets is_settled when the result is to become the state.
weigh() {
    is_settled=
    [ "$streak" -lt "$needed" ] || is_settled=yes
    [ -n "$is_rich" ] && [ "$state" = Initializing ] || return 0
    # Silence is no report: an application that is not up yet has its grace period.
    [ "$result" != Unknown ] || is_settled=
    uptime_seconds
    if [ -z "$is_settled" ] && [ $((up - started)) -ge "$grace" ]; then
        result=$silence is_settled=yes
        seen="no steady answer within $grace s; $seen"
    fi
}

# To wait for what nobody writes costs no process; sleep does.
pause() { # SECONDS
    # shellcheck disable=SC3045  # busybox has -t
    if [ -n "$is_guarded" ]; then read -r -t "$1" _ <&3; else sleep "$1"; fi
}

# Ends what takes too long: a number on stdin is a process that begins, an empty line that it has ended.
# `timeout` would be three processes for each probe; this is one for all of them.
guard() {
    while read -r process; do
        [ -n "$process" ] || continue
        # shellcheck disable=SC3045  # busybox has -t
        read -r -t "$interval" _ || kill "$process"
    done
}

start_guard() { # DIRECTORY
    rm -f "$1/pause" "$1/guard"
    mkfifo "$1/pause" "$1/guard" || return
    exec 3<>"$1/pause"
    guard <"$1/guard" >/dev/null 2>&1 3>&- &
    guard=$!
    exec 4>"$1/guard"
    rm -f "$1/pause" "$1/guard"
    is_guarded=yes
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
        weigh
        if [ -n "$is_settled" ]; then
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
            pause 1
        else
            pause "$interval"
        fi
    done
}

main() { # DIRECTORY
    read_config "$1"
    state=Initializing shown='not probed yet' detail='' metrics='' since=$(date +%s)
    request='' last_body=. told='' saved='' saved_at=0
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
    listener=$! guard='' is_guarded=''
    trap '' PIPE # the guard may be gone
    case $shell in */busybox) start_guard "$directory" ;; esac
    trap 'kill $listener $guard; exit' TERM INT
    ulimit -f 16 # blocks of 512 bytes, for all that is written from here on
    watch "$directory"
}

main "$1"
