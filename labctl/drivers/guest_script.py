"""The shell scripts that labctl runs in guests, for dash and busybox, as root.

They are constants; what varies comes as arguments or on stdin, never into the text.
"""

from collections.abc import Sequence

# Arguments: seconds to wait at most. Prints lines "KEY VALUE"; the last key is always `outcome`.
# It looks at files instead of calling `cloud-init status --wait`, which starts a Python that polls:
# seconds of the one emulated processor that the guest needs for its boot.
AWAIT_CUSTOM_DATA = r"""
now() { read -r up _ </proc/uptime; up=${up%.*}; }
show() { [ ! -r "$2" ] || printf '%s %s\n' "$1" "$(head -c 60000 "$2" | tr '\n' ' ')"; }
printf 'boot-id %s\n' "$(cat /proc/sys/kernel/random/boot_id)"
[ ! -r /etc/labctl-image ] || sed -n 's/^[A-Z_]*=/image &/p' /etc/labctl-image
show boot /run/labctl/boot.json
verdict=/run/labctl/custom-data.json
has_cloud_init=
if command -v cloud-init >/dev/null 2>&1; then
    has_cloud_init=yes
    verdict=/run/cloud-init/result.json
fi
now
end=$((up + $1))
next=$((up + 10))
rest='0.1 0.1 0.2 0.2 0.4'
while [ ! -e "$verdict" ]; do
    if [ -n "$has_cloud_init" ] && [ -e /run/cloud-init/disabled ]; then
        echo 'outcome disabled'
        exit
    fi
    now
    if [ "$up" -ge "$end" ]; then
        show status /run/cloud-init/status.json
        echo 'outcome timeout'
        exit
    fi
    # A stage that died, by lack of memory for example, never writes its result.
    if [ "$up" -ge "$next" ] && [ -n "$has_cloud_init" ] && [ -d /run/systemd/system ]; then
        next=$((up + 10))
        for unit in cloud-init-local cloud-init-main cloud-init cloud-init-network cloud-config \
            cloud-final; do
            if systemctl is-failed --quiet $unit.service && [ ! -e "$verdict" ]; then
                show status /run/cloud-init/status.json
                echo "outcome failed-unit $unit.service"
                exit
            fi
        done
    fi
    pause=${rest%% *}
    case $rest in *' '*) rest=${rest#* } ;; *) rest=0.5 ;; esac
    sleep "${pause:-0.5}"
done
if [ -n "$has_cloud_init" ]; then
    show status /run/cloud-init/status.json
    show result "$verdict"
    echo 'outcome cloud-init'
else
    show custom-data "$verdict"
    echo 'outcome custom-data'
fi
"""

# What custom data printed, for the message of its failure.
CUSTOM_DATA_OUTPUT = r"""
for log in /var/log/custom-data.log /var/log/cloud-init-output.log; do
    [ ! -r "$log" ] || tail -n 40 "$log"
done
"""

# Runs the user's part of cloud-init once more, or tiny's custom data.
RERUN_CUSTOM_DATA = r"""
if ! command -v cloud-init >/dev/null 2>&1; then
    command -v custom-data >/dev/null 2>&1 || {
        echo 'this image has neither cloud-init nor custom-data'
        exit 127
    }
    custom-data --again
    code=$?
    tail -n 40 /var/log/custom-data.log
    exit $code
fi
sem=/var/lib/cloud/instance/sem
for name in write_files write-files write_files_deferred write-files-deferred runcmd scripts_user \
    scripts-user package_update_upgrade_install package-update-upgrade-install; do
    rm -f "$sem/config_$name"
done
code=0
for mode in init config final; do
    cloud-init modules --mode=$mode || code=$?
done
exit $code
"""


# Runs a script once, detached from the SSH session, and waits for it. stdin: the script.
# Arguments: state directory, run key, bytes of the script, seconds it may take, "force" or "",
# bytes of the settings that follow the script on stdin, "private" or "".
# Settings are unpacked below /run, which is memory, for the time of the run; see guest_settings.py.
# The output of a private run is kept there as well, and only until it has been fetched.
# stdout: its output; the last line of stderr: "labctl-extension code=N timed_out=0|1 resumed=0|1".
# A run is claimed by the process that runs it, in one atomic step, so two starts make one run.
RUN_EXTENSION = r"""
set -u
umask 077
unset SUDO_COMMAND SUDO_USER SUDO_UID SUDO_GID # the script is nobody's errand; the first is long
key=$2 size=$3 limit=$4 force=$5 extra=$6 private=$7
dir=$1/$key
memory=/run/labctl/extensions
settings=$memory/$key
boot=$(cat /proc/sys/kernel/random/boot_id)
resumed=1
now() { read -r up _ </proc/uptime; up=${up%.*}; }
is_running() {
    pid=
    [ -e "$dir/pid" ] && read -r pid <"$dir/pid"
    [ -n "$pid" ] && grep -q -s -a -F "$dir/runner" "/proc/$pid/cmdline"
}
mkdir -p "$dir" || exit 1
[ ! -h "$dir/output" ] || mkdir -p "$memory" # a restart of the guest has emptied /run
if [ "$force" = force ] && ! is_running; then
    rm -rf "$dir"
    mkdir "$dir" || exit 1
fi
# A claim of an earlier boot is a run that the end of that boot cut off: it begins anew, but not for
# ever, because the script itself may be what ends the boot.
if [ ! -e "$dir/exit" ] && [ ! -d "$dir/claim-$boot" ] && [ -e "$dir/claims" ] &&
    [ "$(wc -l <"$dir/claims")" -ge 3 ]; then
    echo 'labctl: the instance restarted three times while this script ran' >>"$dir/output"
    echo 'code=none timed_out=0' >"$dir/exit.part"
    mv "$dir/exit.part" "$dir/exit"
fi
if [ ! -e "$dir/exit" ] && [ ! -d "$dir/claim-$boot" ]; then
    resumed=0
    if [ "$extra" -gt 0 ]; then
        grep -q '^[^ ]* /run tmpfs ' /proc/mounts || {
            echo 'labctl: /run is not in memory, so settings cannot be handed over' >&2
            exit 1
        }
        mkdir -p "$settings" && cat >"$settings/stdin.$$" || exit 1
        head -c "$size" <"$settings/stdin.$$" >"$dir/script.$$"
        tail -c +$((size + 1)) <"$settings/stdin.$$" >"$settings/pack.$$"
        rm -f "$settings/stdin.$$"
        if [ "$(wc -c <"$settings/pack.$$")" -ne "$extra" ]; then
            rm -rf "$settings"
            echo 'labctl: the settings did not arrive whole' >&2
            exit 1
        fi
        mv "$settings/pack.$$" "$settings/pack"
        if [ -n "$private" ]; then
            ln -sf "$memory/$key.output" "$dir/output"
            ln -sf "$memory/$key.end" "$dir/output.end"
        fi
    else
        cat >"$dir/script.$$"
    fi
    if [ "$(wc -c <"$dir/script.$$")" -ne "$size" ]; then
        rm -f "$dir/script.$$"
        echo 'labctl: the script did not arrive whole' >&2
        exit 1
    fi
    chmod 700 "$dir/script.$$" && mv "$dir/script.$$" "$dir/script" || exit 1
    rm -f "$dir/pid" "$dir/timed-out"
    cat >"$dir/runner.$$" <<'RUNNER'
dir=$1 key=$2 limit=$3 boot=$4 settings=$5
now() { read -r up _ </proc/uptime; up=${up%.*}; }
signal_all() { # SIGNAL: to all that descends from the script, told by its environment
    marked=$(grep -l -s -a -F "LABCTL_RUN=$key;" /proc/[0-9]*/environ)
    for process in $marked; do
        process=${process#/proc/}
        kill "-$1" "${process%/environ}"
    done
    [ -n "$marked" ]
}
trim() { # No script fills the disk by talking. It appends, so the file may shrink beneath it.
    [ "$(wc -c <"$dir/output")" -gt 8388608 ] || return 0
    tail -c 65536 "$dir/output" >"$dir/output.end"
    cat "$dir/output.end" >"$dir/output"
}
mkdir "$dir/claim-$boot" || exit 0
echo "$boot" >>"$dir/claims"
echo $$ >"$dir/pid.part"
mv "$dir/pid.part" "$dir/pid"
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd "$HOME" || cd /
: >"$dir/output"
if [ -e "$settings/pack" ]; then
    mkdir -p "$settings/settings" "$settings/protected"
    while read -r name value; do
        printf '%b' "$value" >"$settings/$name"
    done <"$settings/pack"
    rm -f "$settings/pack"
    export LABCTL_SETTINGS_DIR="$settings"
fi
if [ "$(head -c 2 "$dir/script")" = '#!' ]; then
    LABCTL_RUN="$key;" setsid "$dir/script"
else
    LABCTL_RUN="$key;" setsid sh "$dir/script"
fi </dev/null >>"$dir/output" 2>&1 &
child=$!
(
    trap 'kill $nap; exit' TERM
    now
    end=$((up + limit))
    while [ "$up" -lt "$end" ]; do
        left=$((end - up))
        [ $left -lt 2 ] || left=2
        sleep $left &
        nap=$!
        wait $nap
        [ -d /proc/$$ ] || exit # the runner was killed
        trim
        now
    done
    trap - TERM
    : >"$dir/timed-out"
    signal_all TERM
    tries=0
    while [ $tries -lt 10 ] && signal_all 0; do
        sleep 0.5
        tries=$((tries + 1))
    done
    signal_all KILL
) &
dog=$!
wait $child
code=$?
timed_out=0
if [ -e "$dir/timed-out" ]; then
    timed_out=1 code=none
    wait $dog
else
    kill $dog
fi
trim
rm -rf "$settings"
echo "code=$code timed_out=$timed_out" >"$dir/exit.part"
mv "$dir/exit.part" "$dir/exit"
RUNNER
    mv "$dir/runner.$$" "$dir/runner"
    unit=
    if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null 2>&1; then
        systemd-run --quiet --collect --unit="labctl-extension-$key" --property=KillMode=process \
            sh "$dir/runner" "$dir" "$key" "$limit" "$boot" "$settings" \
            </dev/null >/dev/null 2>&1 && unit=1
    fi
    if [ -z "$unit" ]; then
        setsid sh "$dir/runner" "$dir" "$key" "$limit" "$boot" "$settings" \
            </dev/null >/dev/null 2>&1 &
    fi
fi
offset=0
emit() {
    [ -e "$dir/output" ] || return 0
    size=$(wc -c <"$dir/output")
    if [ "$offset" -gt "$size" ] || { [ "$offset" -eq 0 ] && [ "$size" -gt 65536 ]; }; then
        offset=$((size > 65536 ? size - 65536 : 0)) # it was trimmed, or it is long already
    fi
    [ "$size" -gt "$offset" ] || return 0
    tail -c +$((offset + 1)) "$dir/output" | head -c $((size - offset))
    offset=$size
}
now
patience=$((up + 30))
rest='0.1 0.1 0.2 0.2 0.4'
while [ ! -e "$dir/exit" ]; do
    if is_running; then
        patience=$((up + 2))
    else
        now
        if [ "$up" -gt "$patience" ] && [ ! -e "$dir/exit" ]; then
            # Only what ran it was killed; what is left must not run on beside a later run.
            for process in $(grep -l -s -a -F "LABCTL_RUN=$key;" /proc/[0-9]*/environ); do
                process=${process#/proc/}
                kill -KILL "${process%/environ}"
            done
            echo 'labctl: the script was killed from outside; did memory run out?' >>"$dir/output"
            echo 'code=none timed_out=0' >"$dir/exit.part"
            mv "$dir/exit.part" "$dir/exit"
        fi
    fi
    emit
    pause=${rest%% *}
    case $rest in *' '*) rest=${rest#* } ;; *) rest=1 ;; esac
    sleep "$pause"
    now
done
emit
rm -rf "$settings" # of a runner that was killed, or of one that came too late
read -r verdict <"$dir/exit"
# On a lost connection this ends the shell (SIGPIPE), so that the next one finds the output.
echo "labctl-extension $verdict resumed=$resumed" >&2 || exit 1
[ ! -h "$dir/output" ] || rm -f "$memory/$key.output" "$memory/$key.end"
"""


def as_root(script: str, arguments: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a script as root in a guest."""
    return ["sudo", "-n", "sh", "-c", script, "labctl", *arguments]
