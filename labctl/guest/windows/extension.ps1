# Runs a script once, by a task of its own that outlives the SSH session, and waits for it. $config:
# key, script and runner (base64), kind ("ps1" or "cmd"), seconds it may take, isForced, settings.
# stdout: its output; the last line of stderr: "labctl-extension code=N timed_out=0|1 resumed=0|1".
# A run is claimed by the process that runs it, in one atomic step, so two starts make one run.
$ErrorActionPreference = 'Stop'
$parent = Join-Path $env:ProgramData 'labctl\extensions'
$dir = Join-Path $parent $config.key
$task = "labctl-extension-$($config.key)"
$end = Join-Path $dir 'exit'
$utf8 = New-Object Text.UTF8Encoding $false
$hive = [Microsoft.Win32.RegistryKey]::OpenBaseKey('LocalMachine', 'Registry64')
# After a restart sshd may be up before the boot is prepared.
$until = [DateTime]::UtcNow.AddSeconds(120)
while (-not ($run = $hive.OpenSubKey('SOFTWARE\labctl-run')) -or -not $run.GetValue('boot')) {
    if ([DateTime]::UtcNow -gt $until) { throw 'the boot script has not run' }
    Start-Sleep -Milliseconds 500
}
$boot = $run.GetValue('bootId')
$resumed = 1

function Test-Running {
    $found = Get-ScheduledTask -TaskName $task -ErrorAction SilentlyContinue
    return [bool]($found -and "$($found.State)" -in 'Running', 'Queued')
}

function Write-End([string] $text, [string] $reason) {
    if ($reason) { [IO.File]::AppendAllText((Join-Path $dir 'output'), "labctl: $reason`n") }
    [IO.File]::WriteAllText("$end.part", $text)
    if (-not (Test-Path -LiteralPath $end)) { [IO.File]::Move("$end.part", $end) }
}

function Save-File([string] $name, [byte[]] $content) {
    $path = Join-Path $dir $name
    [IO.File]::WriteAllBytes("$path.$PID", $content)
    Move-Item -LiteralPath "$path.$PID" -Destination $path -Force
}

New-Item -ItemType Directory -Force -Path $parent | Out-Null
if ($config.isForced -and -not (Test-Running) -and (Test-Path -LiteralPath $dir)) {
    Remove-Item -LiteralPath $dir -Recurse -Force
}
New-Item -ItemType Directory -Force -Path $dir | Out-Null
$claims = @(Get-ChildItem -LiteralPath $dir -Filter 'claim-*')
$isClaimed = Test-Path -LiteralPath (Join-Path $dir "claim-$boot")
# A claim of an earlier boot is a run that the end of that boot cut off: it begins anew, but not for
# ever, because the script itself may be what ends the boot.
if (-not (Test-Path -LiteralPath $end) -and -not $isClaimed -and $claims.Count -ge 3) {
    Write-End 'code=none timed_out=0' 'the instance restarted three times while this script ran'
}
if (-not (Test-Path -LiteralPath $end) -and -not $isClaimed) {
    $resumed = 0
    $script = "script.$($config.kind)"
    Save-File $script ([Convert]::FromBase64String($config.script))
    $told = @{ dir = $dir; script = $script; seconds = $config.seconds; boot = $boot; settings = '' }
    if ($config.settings) {
        $told.settings = Join-Path $dir 'settings'
        New-Item -ItemType Directory -Force -Path (Join-Path $told.settings 'settings') | Out-Null
        foreach ($each in $config.settings) {
            [IO.File]::WriteAllText((Join-Path $told.settings $each.file), $each.content, $utf8)
        }
    }
    Save-File 'run.json' ($utf8.GetBytes((ConvertTo-Json $told -Compress)))
    Save-File 'runner.ps1' ([Convert]::FromBase64String($config.runner))
    $words = "-NoProfile -NonInteractive -ExecutionPolicy Bypass -File `"$(Join-Path $dir 'runner.ps1')`""
    $action = New-ScheduledTaskAction -Execute powershell.exe -Argument $words
    $principal = New-ScheduledTaskPrincipal -UserId S-1-5-18 -LogonType ServiceAccount -RunLevel Highest
    $settings = New-ScheduledTaskSettingsSet -ExecutionTimeLimit ([TimeSpan]::Zero) `
        -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -MultipleInstances IgnoreNew
    if (-not (Test-Running)) {
        Register-ScheduledTask -TaskName $task -Action $action -Principal $principal -Settings $settings -Force |
            Out-Null
        Start-ScheduledTask $task
    }
}
$offset = 0
$stdout = [Console]::OpenStandardOutput()

function Copy-Output([string] $path) {
    # The last 64 KiB of what is there, then what comes.
    if (-not (Test-Path -LiteralPath $path)) { return }
    $stream = New-Object IO.FileStream $path, 'Open', 'Read', 'ReadWrite, Delete'
    try {
        if ($script:offset -eq 0 -and $stream.Length -gt 65536) { $script:offset = $stream.Length - 65536 }
        $stream.Position = $script:offset
        $stream.CopyTo($stdout)
        $stdout.Flush()
        $script:offset = $stream.Position
    }
    finally { $stream.Dispose() }
}

$output = Join-Path $dir 'output'
$patience = [DateTime]::UtcNow.AddSeconds(30)
while (-not (Test-Path -LiteralPath $end)) {
    if (Test-Running) { $patience = [DateTime]::UtcNow.AddSeconds(2) }
    elseif ([DateTime]::UtcNow -gt $patience -and -not (Test-Path -LiteralPath $end)) {
        Write-End 'code=none timed_out=0' 'the script was killed from outside'
    }
    Copy-Output $output
    Start-Sleep -Milliseconds 500
}
Copy-Output $output
Unregister-ScheduledTask -TaskName $task -Confirm:$false -ErrorAction SilentlyContinue
[Console]::Error.WriteLine("labctl-extension $([IO.File]::ReadAllText($end).Trim()) resumed=$resumed")
