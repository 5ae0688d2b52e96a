#!/bin/sh
# Prepares an instance at every boot, before sshd: data disks, the way in for labctl, the health agent.
# This file holds functions; boot_script.py puts the calls with this instance's values behind them.
# cloud-init runs it as a boothook, images without cloud-init run it from the seed. Running it twice
# changes nothing. LABCTL_ROOT is for tests: a directory that stands for /.
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
root=${LABCTL_ROOT-}
run=$root/run/labctl
status=ok
disks=
separator=
marker='labctl is making a file system here'
mkdir -p "$run"

say() { # to the serial console, and to who runs this by hand
    echo "labctl: $*"
    [ -n "$root" ] || { echo "labctl: $*" >/dev/console; } 2>/dev/null
}

has() { command -v "$1" >/dev/null 2>&1; }

# busybox's shell prefers its own mke2fs, which knows no ext4, and its own blkid, which knows no -p.
find_program() { # NAME: sets program to a path
    for directory in /usr/sbin /sbin /usr/bin /bin; do
        program=$directory/$1
        [ ! -x "$program" ] || return 0
    done
    return 1
}

# --- Data disks -----------------------------------------------------------------------------------

disk_report() { # NAME STATE DETAIL
    say "data disk $1: $2${3:+, $3}"
    [ "$2" != failed ] || status=failed
    detail=$(printf '%s' "$3" | tr -d '\000-\037\177-\377"\\')
    disks="$disks$separator{\"name\": \"$1\", \"state\": \"$2\", \"detail\": \"$detail\"}"
    separator=', '
}

find_disk() { # SERIAL: sets disk, its directory in /sys
    for serial in "$root"/sys/block/*/serial; do
        found=
        read -r found 2>/dev/null <"$serial" || [ -n "$found" ] || continue
        disk=${serial%/serial}
        [ "$found" != "$1" ] || return 0
    done
    return 1
}

sectors_at() { # DEVICE SECTOR COUNT
    dd if="$1" bs=512 skip="$2" count="$3" 2>/dev/null
}

has_marker() { # DEVICE SECTORS
    [ "$(sectors_at "$1" $(($2 - 1024)) 1 | head -c ${#marker} | tr -d '\000')" = "$marker" ]
}

# Blank: no signature that blkid knows, and zeros where others would be. Every doubt means "not blank".
is_blank() { # DEVICE SECTORS
    if find_program blkid; then
        "$program" -p "$1" >/dev/null 2>&1
        [ $? -eq 2 ] || return 1
    fi
    dd if=/dev/zero of="$run/zeros" bs=512 count=2048 2>/dev/null || return 1
    sectors_at "$1" 0 2048 | cmp -s - "$run/zeros" &&
        sectors_at "$1" $(($2 - 2048)) 2048 | cmp -s - "$run/zeros"
}

# The marker is on the disk only while mke2fs works, and the disk is never mounted before it is gone.
# Found at boot, it says that the power went away meanwhile: nothing of the user is there yet.
format_disk() { # DEVICE SECTORS NAME
    find_program mke2fs || return 1
    printf '%-512s' "$marker" |
        dd of="$1" bs=512 seek=$(($2 - 1024)) conv=notrunc,fsync 2>/dev/null &&
        "$program" -q -F -t ext4 -m 0 -E nodiscard -L "$3" "$1" >"$run/mke2fs.log" 2>&1 &&
        dd if=/dev/zero of="$1" bs=512 seek=$(($2 - 1024)) count=1 conv=notrunc,fsync 2>/dev/null
}

is_mounted() { # DEVICE MOUNT-POINT
    while read -r what where _; do
        [ "$what" != "$1" ] || [ "$where" != "$2" ] || return 0
    done <"$root/proc/mounts"
    return 1
}

ensure_data_disk() { # NAME FILE-SYSTEM-OR-EMPTY MOUNT-POINT-OR-EMPTY
    if ! find_disk "data-$1"; then
        ! has udevadm || udevadm settle --timeout=10
        find_disk "data-$1" || {
            disk_report "$1" failed "no disk with the serial data-$1"
            return
        }
    fi
    device=$root/dev/${disk##*/}
    read -r sectors <"$disk/size"
    state=attached
    if [ -n "$3" ] && is_mounted "$device" "$3"; then
        disk_report "$1" mounted "$3"
        return
    fi
    rm -f "$run/zeros"
    if [ -n "$2" ] && { has_marker "$device" "$sectors" || is_blank "$device" "$sectors"; }; then
        format_disk "$device" "$sectors" "$1" || {
            disk_report "$1" failed "no file system made: $(tail -n 1 "$run/mke2fs.log" 2>&1)"
            return
        }
        state=formatted
    fi
    rm -f "$run/zeros"
    if [ -n "$3" ]; then
        mkdir -p "$root$3"
        reason=$(mount "$device" "$root$3" 2>&1) || {
            disk_report "$1" failed "cannot be mounted on $3, and is not blank: $reason"
            return
        }
        [ "$state" = formatted ] || state=mounted
    fi
    disk_report "$1" "$state" "$3"
}

# --- The way in -----------------------------------------------------------------------------------

install_file() { # PATH MODE, base64 on stdin
    rm -f "$1.part"
    (umask 077 && base64 -d >"$1.part") && chmod "$2" "$1.part" && mv -f "$1.part" "$1" || {
        say "$1 cannot be written"
        status=failed
    }
}

find_account() { # NAME: sets uid, gid, home
    while IFS=: read -r account _ uid gid _ home _; do
        [ "$account" != "$1" ] || return 0
    done <"$root/etc/passwd"
    return 1
}

ensure_account() { # base64 of authorized_keys on stdin
    if ! find_account labctl; then
        # A system account, so that the first person's account still gets uid 1000. The password is
        # impossible rather than locked: sshd without PAM refuses locked accounts.
        has useradd && useradd --system --create-home --home-dir /home/labctl --shell /bin/sh \
            --password '*' labctl
        find_account labctl || {
            say "no account labctl, and no useradd to make it"
            status=failed
            return
        }
    fi
    mkdir -p "$root$home/.ssh"
    chmod 700 "$root$home/.ssh"
    install_file "$root$home/.ssh/authorized_keys" 600
    chown "$uid:$gid" "$root$home" "$root$home/.ssh" "$root$home/.ssh/authorized_keys"
    ! has restorecon || restorecon -R "$root$home"
    [ "$uid" != 0 ] || return 0
    if [ -d "$root/etc/sudoers.d" ] && [ ! -e "$root/etc/sudoers.d/90-labctl" ]; then
        (umask 337 && echo 'labctl ALL=(ALL:ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/90-labctl.part")
        # sudo ignores names with a dot, so the half-written file is never read.
        mv -f "$root/etc/sudoers.d/90-labctl.part" "$root/etc/sudoers.d/90-labctl"
    fi
    if [ -d "$root/run/systemd/system" ]; then
        # Each login would start a service manager of its own for the account, for nothing.
        ln -sfn /dev/null "$root/run/systemd/system/user@$uid.service"
    fi
}

ensure_host_key() { # PATH-SUFFIX MODE, base64 on stdin
    mkdir -p "$root/etc/ssh"
    install_file "$root/etc/ssh/ssh_host_ed25519_key$1" "$2"
}

# --- The health agent -----------------------------------------------------------------------------

# The configuration comes first, in both formats; agent.py and agent.sh follow. Everything is in /run:
# gone with the power, made again by the next boot.
begin_agent() {
    agent=$run/health
    mkdir -p "$agent"
    chmod 700 "$agent"
}

agent_file() { # NAME, base64 on stdin
    install_file "$agent/$1" 600
}

start_agent() {
    [ -z "$root" ] || return 0
    if has python3 && [ -d /run/systemd/system ]; then
        cat >/run/systemd/system/labctl-health.service <<'END'
[Unit]
Description=Health agent of labctl

[Service]
ExecStart=/usr/bin/env python3 -I -S -B /run/labctl/health/agent.py /run/labctl/health/config.json
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_SETUID CAP_SETGID
MemoryMax=64M
Restart=always
RestartSec=2
END
        # Never wait for it: this script runs before the jobs that a wait would wait for.
        systemctl --no-block start labctl-health.service
    elif has python3; then
        is_agent_running || start_detached python3 -I -S -B "$agent/agent.py" "$agent/config.json"
    else
        is_agent_running || start_detached sh "$agent/agent.sh" "$agent"
    fi
}

is_agent_running() {
    pid=
    [ -f "$agent/pid" ] && read -r pid <"$agent/pid"
    [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null
}

start_detached() { # COMMAND...
    setsid "$@" </dev/null >/dev/null 2>&1 &
    echo $! >"$agent/pid"
}

# --- The verdict ----------------------------------------------------------------------------------

finish() { # INSTANCE-ID
    printf '{"instanceId": "%s", "status": "%s", "dataDisks": [%s]}\n' "$1" "$status" "$disks" \
        >"$run/boot.json.part"
    mv -f "$run/boot.json.part" "$run/boot.json"
    [ "$status" = ok ] || say "the instance is not prepared as it should be"
}
